//! What a host would make of a frame, however broken: whom it is for, and whether its checksums are right.
//!
//! Sums are taken over the finished bytes, as a receiver does. Where lengths can't be, nothing is said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sum::{checksum, pseudo_header};
use super::{
    ETHERNET_BYTES, IPV4, IPV4_BYTES, IPV6, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP,
};

/// How many extension headers are walked.
const EXTENSION_HEADERS: usize = 6;

/// What was read of a frame, as far as it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Time to live or hop limit.
    pub ttl: Option<u8>,
    /// Whether the IPv4 header's checksum is right.
    pub header: Option<bool>,
    /// Whether the checksum of TCP or ICMP is right.
    pub content: Option<bool>,
    destination: Option<IpAddr>,
    tcp_port: Option<u16>,
}

impl ReadBack {
    /// Whom a TCP segment is for.
    #[must_use]
    pub fn tcp_destination(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.destination?, self.tcp_port?))
    }

    /// Whether each checksum is right, as far as there are any.
    #[must_use]
    pub fn checksums(&self) -> [Option<bool>; 2] {
        [self.header, self.content]
    }

    /// Whether nothing is wrong, and there is something to be right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.header != Some(false) && self.content == Some(true)
    }
}

/// Reads a frame.
#[must_use]
pub fn read_back(frame: &[u8]) -> ReadBack {
    let mut read = ReadBack::default();
    let ether_type = frame.get(12..14).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let packet = frame.get(ETHERNET_BYTES..).unwrap_or_default();
    let whole = match ether_type {
        Some(IPV4) => ipv4(packet, &mut read),
        Some(IPV6) => ipv6(packet, &mut read),
        _ => None,
    };
    if let Some((protocol, source, destination, content)) = whole {
        read.content = content_is_right(protocol, source, destination, content);
    }
    read
}

/// Protocol, addresses and content of a packet whose lengths can be.
type Whole<'a> = Option<(u8, IpAddr, IpAddr, &'a [u8])>;

fn ipv4<'a>(packet: &'a [u8], read: &mut ReadBack) -> Whole<'a> {
    let fixed = packet.get(..IPV4_BYTES)?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || header < IPV4_BYTES {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]).into();
    let (source, destination) = (address(12), address(16));
    read.destination = Some(destination);
    read.ttl = Some(fixed[8]);
    read.header = packet.get(..header).map(|header| checksum(&[header]) == 0);
    if fixed[9] == PROTOCOL_TCP {
        read.tcp_port = port(packet.get(header..)?);
    }
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let is_fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
    let content = packet.get(header..total)?;
    (!is_fragment).then_some((fixed[9], source, destination, content))
}

fn ipv6<'a>(packet: &'a [u8], read: &mut ReadBack) -> Whole<'a> {
    let fixed = packet.get(..IPV6_BYTES)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        Ipv6Addr::from(octets).into()
    };
    let (source, destination) = (address(8), address(24));
    read.destination = Some(destination);
    read.ttl = Some(fixed[7]);
    let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let (mut next, mut at) = (fixed[6], IPV6_BYTES);
    for _ in 0..EXTENSION_HEADERS {
        let Some([following, length, ..]) = packet.get(at..) else { break };
        let bytes = match next {
            0 | 43 | 60 => 8 + 8 * usize::from(*length),
            51 => 8 + 4 * usize::from(*length),
            _ => break,
        };
        (next, at) = (*following, at + bytes);
    }
    let rest = packet.get(at..)?;
    if next == PROTOCOL_TCP {
        read.tcp_port = port(rest);
    }
    let content = packet.get(at..IPV6_BYTES + payload)?;
    Some((next, source, destination, content))
}

fn port(segment: &[u8]) -> Option<u16> {
    segment.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]))
}

fn content_is_right(protocol: u8, source: IpAddr, destination: IpAddr, content: &[u8]) -> Option<bool> {
    let pseudo = match protocol {
        PROTOCOL_TCP | PROTOCOL_ICMPV6 => pseudo_header(source, destination, protocol, content.len()),
        PROTOCOL_ICMP => Vec::new(),
        _ => return None,
    };
    Some(checksum(&[&pseudo, content]) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Checksum, Extension, Icmp, Packet};

    fn packets() -> [Packet; 2] {
        let v4 = Packet::new("203.0.113.7:40000".parse().unwrap(), "203.0.113.10:443".parse().unwrap());
        let v6 = Packet::new("[2001:db8::7]:40000".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
        [v4.payload(b"odd"), v6.with(|packet| packet.ip.extensions = vec![Extension::hop_by_hop(2)])]
    }

    #[test]
    fn what_was_built_right_reads_as_right() {
        for packet in packets() {
            let read = read_back(&packet.to_frame());
            assert!(read.is_right(), "{read:?}");
            assert_eq!((read.tcp_destination(), read.ttl), (Some(packet.destination), Some(64)));
            let wrong = read_back(&packet.clone().checksum(Checksum::WrongBy(1)).to_frame());
            assert_eq!((wrong.content, wrong.header), (Some(false), read.header));
            let about = Icmp::new(packet.destination.ip(), packet.source.ip(), 3, 0).about(&packet);
            assert!(read_back(&about.to_frame()).is_right());
        }
    }

    #[test]
    fn a_cut_frame_never_panics() {
        for frame in packets().map(|packet| packet.to_frame()) {
            for length in 0..frame.len() {
                assert_eq!(read_back(&frame[..length]).content, None, "{length}");
            }
        }
    }
}
