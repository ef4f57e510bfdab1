//! IP headers of both families, extension headers included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sum::{checksum, off_by};

/// Bit of [`Ip::fragment`]: don't fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Bit of [`Ip::fragment`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_BYTES: usize = 40;

/// An IP header without its addresses; what the other family has means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// DSCP and ECN; in IPv6 the traffic class.
    pub tos: u8,
    /// Time to live; in IPv6 the hop limit.
    pub ttl: u8,
    /// IPv4: identification.
    pub id: u16,
    /// IPv4: flags and fragment offset, the whole word.
    pub fragment: u16,
    /// IPv4: options, a multiple of four bytes and at most 40.
    pub options: Vec<u8>,
    /// IPv6: flow label, 20 bits.
    pub flow_label: u32,
    /// IPv6: extension headers in their order.
    pub extensions: Vec<Extension>,
    /// What it says is inside, if that isn't the truth.
    pub protocol: Option<u8>,
    /// What is wrong with it.
    pub wrong: WrongIp,
}

/// Deliberate mistakes; the default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrongIp {
    /// Version instead of the family's.
    pub version: Option<u8>,
    /// IPv4: header length in words instead of the true one.
    pub header_words: Option<u8>,
    /// IPv4: total length, IPv6: payload length, instead of the true one.
    pub length: Option<u16>,
    /// IPv4: added, as one's complement numbers are, to the right header checksum.
    pub checksum_by: u16,
}

/// An IPv6 extension header. Its first byte is the number of the next one, whatever stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its own number, as the header before it says it.
    pub number: u8,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop options of this many times eight bytes, all padding.
    #[must_use]
    pub fn hop_by_hop(eights: u8) -> Self {
        Self { number: 0, bytes: padded_options(eights) }
    }

    /// Destination options of this many times eight bytes, all padding.
    #[must_use]
    pub fn destination_options(eights: u8) -> Self {
        Self { number: 60, bytes: padded_options(eights) }
    }

    /// A routing header with one address and so many segments left.
    #[must_use]
    pub fn routing(segments_left: u8) -> Self {
        let via = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);
        let bytes = [&[0, 2, 4, segments_left, 0, 0, 0, 0][..], &via.octets()].concat();
        Self { number: 43, bytes }
    }

    /// A fragment header: offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub fn fragment(offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        Self { number: 44, bytes: vec![0, 0, high, low, 0xde, 0xad, 0xbe, 0xef] }
    }

    /// An authentication header with a check value of this many times four bytes.
    #[must_use]
    pub fn authentication(fours: u8) -> Self {
        // Its length is in words of four bytes, less two; parameters index and sequence number come first.
        let mut bytes = vec![0, fours + 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7];
        bytes.resize(12 + 4 * usize::from(fours), 0xaa);
        Self { number: 51, bytes }
    }
}

/// A header of options in which PadN fills all but its first two bytes.
fn padded_options(eights: u8) -> Vec<u8> {
    let bytes = 8 * usize::from(eights);
    let mut header = vec![0, eights - 1, 1, (bytes - 4) as u8];
    header.resize(bytes, 0);
    header
}

impl Default for Ip {
    /// As a Linux host would fill it in.
    fn default() -> Self {
        Self {
            tos: 0,
            ttl: 64,
            id: 0x1d2e,
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            flow_label: 0x0_1234,
            extensions: Vec::new(),
            protocol: None,
            wrong: WrongIp::default(),
        }
    }
}

impl Ip {
    /// Bytes of header, options and extension headers.
    pub(super) fn header_length(&self, family: IpAddr) -> usize {
        match family {
            IpAddr::V4(_) => IPV4_BYTES + self.options.len(),
            IpAddr::V6(_) => {
                IPV6_BYTES + self.extensions.iter().map(|header| header.bytes.len()).sum::<usize>()
            }
        }
    }

    /// The header and what it leads to.
    pub(super) fn around(
        &self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        content: &[u8],
    ) -> Vec<u8> {
        let protocol = self.protocol.unwrap_or(protocol);
        let mut packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.header_v4(source, destination, protocol, content.len())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.header_v6(source, destination, protocol, content.len())
            }
            _ => panic!("{source} and {destination} are of one family"),
        };
        packet.extend(content);
        packet
    }

    fn header_v4(&self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, content: usize) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4), "IP options fill whole words");
        let header_bytes = IPV4_BYTES + self.options.len();
        let words = self.wrong.header_words.unwrap_or(header_bytes as u8 / 4);
        let total = self.wrong.length.unwrap_or((header_bytes + content) as u16);
        let mut header = vec![self.wrong.version.unwrap_or(4) << 4 | words, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let checksum = off_by(checksum(&[&header]), self.wrong.checksum_by);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn header_v6(&self, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, content: usize) -> Vec<u8> {
        let extension_bytes: usize = self.extensions.iter().map(|header| header.bytes.len()).sum();
        let version = u32::from(self.wrong.version.unwrap_or(6));
        let first_word = version << 28 | u32::from(self.tos) << 20 | self.flow_label;
        let mut header = first_word.to_be_bytes().to_vec();
        header.extend(self.wrong.length.unwrap_or((extension_bytes + content) as u16).to_be_bytes());
        let numbers = self.extensions.iter().map(|header| header.number).chain([protocol]);
        let mut next_numbers = numbers;
        header.extend([next_numbers.next().unwrap_or(protocol), self.ttl]);
        header.extend(source.octets());
        header.extend(destination.octets());
        for (extension, next) in self.extensions.iter().zip(next_numbers) {
            header.push(next);
            header.extend(&extension.bytes[1..]);
        }
        header
    }
}
