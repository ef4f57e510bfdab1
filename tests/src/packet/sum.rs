//! Internet checksums from scratch: RFC 1071 over the finished bytes, and mistakes in them on demand.

use std::net::IpAddr;

/// RFC 1071: the complement of the one's complement sum of all 16-bit words. Every part but the last has an even
/// number of bytes.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    !fold(sum.sum())
}

/// The header that TCP and ICMPv6 sum and nobody sends: RFC 9293, section 3.1, and RFC 8200, section 8.1.
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, bytes: usize) -> Vec<u8> {
    let mut header = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend([0, protocol]);
            header.extend((bytes as u16).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend((bytes as u32).to_be_bytes());
            header.extend([0, 0, 0, protocol]);
        }
        _ => panic!("{source} and {destination} are of one family"),
    }
    header
}

/// A checksum that is wrong by `error`. One's complement has two zeros; this gives the one that a right sum never is
/// for an error, and the right sum itself for none.
pub(super) fn off_by(right: u16, error: u16) -> u16 {
    if error == 0 {
        return right;
    }
    match fold(u32::from(right) + u32::from(error)) {
        0xffff => 0,
        wrong => wrong,
    }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_worked_example_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }
}
