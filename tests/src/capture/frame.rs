//! What a captured frame says, and whether its checksums are right, summed from scratch: deliberately not with the
//! product's own arithmetic, whose mistakes it is there to find.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, TcpHeaderSlice, ether_type};

/// Whether the kernel had already written, or verified, the TCP checksum of a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TcpChecksum {
    InFrame,
    NotReady,
}

/// What one frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Not IPv4.
    Other,
    /// A checksum or length is wrong; what, and of which packet.
    Bad(String),
    /// IPv4, but not TCP, or a fragment: the header's checksum is right.
    Ip,
    /// A whole TCP segment with right checksums, those that could be checked.
    Tcp(Segment),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
    pub(super) is_syn: bool,
    pub(super) is_rst: bool,
}

/// Decodes an Ethernet frame as captured, padding and all.
pub(super) fn decode(frame: &[u8], tcp_checksum: TcpChecksum) -> Frame {
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else { return Frame::Other };
    if ethernet.ether_type() != ether_type::IPV4 {
        return Frame::Other;
    }
    let packet = &frame[ethernet.slice().len()..];
    let header = match Ipv4HeaderSlice::from_slice(packet) {
        Ok(header) => header,
        Err(error) => return Frame::Bad(format!("IPv4 header: {error}")),
    };
    let (from, to) = (header.source_addr(), header.destination_addr());
    if fold(sum(header.slice())) != 0xffff {
        return Frame::Bad(format!("IPv4 checksum {from} -> {to}"));
    }
    // Beyond the packet's own length there is only Ethernet's padding.
    let Some(payload) = packet.get(header.slice().len()..usize::from(header.total_len())) else {
        return Frame::Bad(format!(
            "IPv4 length {} of {} bytes, {from} -> {to}",
            header.total_len(),
            packet.len()
        ));
    };
    if header.protocol() != IpNumber::TCP || header.is_fragmenting_payload() {
        return Frame::Ip;
    }
    decode_tcp(payload, from, to, tcp_checksum)
}

fn decode_tcp(payload: &[u8], from: Ipv4Addr, to: Ipv4Addr, checksum: TcpChecksum) -> Frame {
    let tcp = match TcpHeaderSlice::from_slice(payload) {
        Ok(tcp) => tcp,
        Err(error) => return Frame::Bad(format!("TCP header {from} -> {to}: {error}")),
    };
    let source = SocketAddrV4::new(from, tcp.source_port());
    let destination = SocketAddrV4::new(to, tcp.destination_port());
    // The length fits: it comes out of a 16-bit field.
    let pseudo = sum(&from.octets()) + sum(&to.octets()) + u64::from(IpNumber::TCP.0) + payload.len() as u64;
    if checksum == TcpChecksum::InFrame && fold(pseudo + sum(payload)) != 0xffff {
        return Frame::Bad(format!(
            "TCP checksum {:#06x} {source} -> {destination}, {}",
            tcp.checksum(),
            flags(&tcp)
        ));
    }
    Frame::Tcp(Segment { source, destination, is_syn: tcp.syn(), is_rst: tcp.rst() })
}

fn flags(tcp: &TcpHeaderSlice<'_>) -> String {
    let all =
        [(tcp.syn(), "SYN"), (tcp.ack(), "ACK"), (tcp.fin(), "FIN"), (tcp.rst(), "RST"), (tcp.psh(), "PSH")];
    all.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect::<Vec<_>>().join("+")
}

/// Sum of big-endian 16-bit words; an odd last byte counts as the high one. A frame can't overflow it.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum()
}

/// Folds the carries in; all ones is what a right checksum makes of the whole.
fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn syn(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([203, 0, 113, 7], [203, 0, 113, 10], 64)
            .tcp(40000, 443, 7, 1024)
            .syn();
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn good_segments_of_even_and_odd_length_pass_padded_or_not() {
        for payload in [&b""[..], b"x", b"xy", b"xyz"] {
            let mut frame = syn(payload);
            let Frame::Tcp(segment) = decode(&frame, TcpChecksum::InFrame) else { panic!("{frame:?}") };
            assert!(segment.is_syn && !segment.is_rst);
            assert_eq!(segment.destination.to_string(), "203.0.113.10:443");
            frame.extend([0xff; 6]);
            assert!(matches!(decode(&frame, TcpChecksum::InFrame), Frame::Tcp(_)));
        }
    }

    #[test]
    fn every_flipped_bit_of_packet_and_segment_is_noticed() {
        let good = syn(b"payload");
        let ethernet = 14;
        for bit in ethernet * 8..good.len() * 8 {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&frame, TcpChecksum::InFrame);
            assert!(matches!(decoded, Frame::Bad(_)), "bit {bit}: {decoded:?}");
        }
    }

    #[test]
    fn a_checksum_that_is_not_ready_is_not_judged() {
        let mut frame = syn(b"");
        frame[14 + 20 + 16] ^= 0xff;
        assert!(matches!(decode(&frame, TcpChecksum::InFrame), Frame::Bad(_)));
        assert!(matches!(decode(&frame, TcpChecksum::NotReady), Frame::Tcp(_)));
    }

    #[test]
    fn a_frame_cut_anywhere_does_not_panic() {
        let frame = syn(b"payload");
        for length in 0..frame.len() {
            assert!(!matches!(decode(&frame[..length], TcpChecksum::InFrame), Frame::Tcp(_)), "{length}");
        }
    }
}
