//! What a captured frame says, and whether its checksums are right, summed from scratch: deliberately not with the
//! product's own arithmetic, whose mistakes it is there to find.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, ether_type,
};

/// Whether the kernel had already written, or verified, the TCP checksum of a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TcpChecksum {
    InFrame,
    NotReady,
}

/// What one frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Not IP.
    Other,
    /// A checksum or length is wrong; what, and of which packet.
    Bad(String),
    /// IP, but no whole segment or error: what there is of checksums is right.
    Ip,
    /// An ICMP error with a right checksum; its type and code, and the MTU that it tells.
    IcmpError { source: IpAddr, destination: IpAddr, kind: (u8, u8), mtu: u32 },
    /// A whole TCP segment with right checksums, those that could be checked.
    Tcp(Segment),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) is_syn: bool,
    pub(super) is_rst: bool,
}

/// An IP packet without its header.
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: IpNumber,
    payload: &'a [u8],
}

/// Decodes an Ethernet frame as captured, padding and all.
pub(super) fn decode(frame: &[u8], tcp_checksum: TcpChecksum) -> Frame {
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else { return Frame::Other };
    let bytes = &frame[ethernet.slice().len()..];
    let packet = match ethernet.ether_type() {
        ether_type::IPV4 => decode_v4(bytes),
        ether_type::IPV6 => decode_v6(bytes),
        _ => return Frame::Other,
    };
    match packet {
        Err(what) => Frame::Bad(what),
        Ok(None) => Frame::Ip,
        Ok(Some(packet)) => match packet.protocol {
            IpNumber::TCP => decode_tcp(&packet, tcp_checksum),
            IpNumber::ICMP | IpNumber::IPV6_ICMP => decode_icmp(&packet),
            _ => Frame::Ip,
        },
    }
}

/// `None`: a fragment.
fn decode_v4(bytes: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| format!("IPv4 header: {error}"))?;
    let (from, to) = (header.source_addr(), header.destination_addr());
    if fold(sum(header.slice())) != 0xffff {
        return Err(format!("IPv4 checksum {from} -> {to}"));
    }
    // Beyond the packet's own length there is only Ethernet's padding.
    let length = usize::from(header.total_len());
    let payload = bytes
        .get(header.slice().len()..length)
        .ok_or_else(|| format!("IPv4 length {length} of {} bytes, {from} -> {to}", bytes.len()))?;
    let packet = Packet { from: from.into(), to: to.into(), protocol: header.protocol(), payload };
    Ok((!header.is_fragmenting_payload()).then_some(packet))
}

/// Extension headers are left alone: nobody in a lab's traffic sends any but multicast reports.
fn decode_v6(bytes: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|error| format!("IPv6 header: {error}"))?;
    let (from, to) = (header.source_addr(), header.destination_addr());
    let (start, length) = (header.slice().len(), usize::from(header.payload_length()));
    let payload = bytes
        .get(start..start + length)
        .ok_or_else(|| format!("IPv6 length {length} of {} bytes, {from} -> {to}", bytes.len()))?;
    Ok(Some(Packet { from: from.into(), to: to.into(), protocol: header.next_header(), payload }))
}

fn decode_tcp(packet: &Packet<'_>, checksum: TcpChecksum) -> Frame {
    let Packet { from, to, payload, .. } = *packet;
    let tcp = match TcpHeaderSlice::from_slice(payload) {
        Ok(tcp) => tcp,
        Err(error) => return Frame::Bad(format!("TCP header {from} -> {to}: {error}")),
    };
    let source = SocketAddr::new(from, tcp.source_port());
    let destination = SocketAddr::new(to, tcp.destination_port());
    if checksum == TcpChecksum::InFrame && fold(packet.pseudo_header() + sum(payload)) != 0xffff {
        return Frame::Bad(format!(
            "TCP checksum {:#06x} {source} -> {destination}, {}",
            tcp.checksum(),
            flags(&tcp)
        ));
    }
    Frame::Tcp(Segment { source, destination, is_syn: tcp.syn(), is_rst: tcp.rst() })
}

fn decode_icmp(packet: &Packet<'_>) -> Frame {
    let Packet { from: source, to: destination, payload, protocol } = *packet;
    let is_v6 = protocol == IpNumber::IPV6_ICMP;
    let pseudo = if is_v6 { packet.pseudo_header() } else { 0 };
    if fold(pseudo + sum(payload)) != 0xffff {
        return Frame::Bad(format!("ICMP checksum {source} -> {destination}"));
    }
    let Some(&[kind, code, _, _, a, b, c, d]) = payload.first_chunk() else {
        return Frame::Bad(format!("ICMP header {source} -> {destination}"));
    };
    let mtu = match (is_v6, kind, code) {
        (true, 2, _) => u32::from_be_bytes([a, b, c, d]),
        (false, 3, 4) => u32::from_be_bytes([0, 0, c, d]),
        (true, 1 | 3 | 4, _) | (false, 3 | 11 | 12, _) => 0,
        _ => return Frame::Ip,
    };
    Frame::IcmpError { source, destination, kind: (kind, code), mtu }
}

impl Packet<'_> {
    fn pseudo_header(&self) -> u64 {
        let addresses = [self.from, self.to].map(|address| match address {
            IpAddr::V4(address) => sum(&address.octets()),
            IpAddr::V6(address) => sum(&address.octets()),
        });
        addresses[0] + addresses[1] + u64::from(self.protocol.0) + self.payload.len() as u64
    }
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
    use std::net::Ipv6Addr;

    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4};

    use super::*;

    fn syn(payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = ethernet.ipv4([203, 0, 113, 7], [203, 0, 113, 10], 64).tcp(40000, 443, 7, 1024).syn();
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn syn_v6(payload: &[u8]) -> Vec<u8> {
        let [from, to] =
            ["2001:db8:1::7", "2001:db8:1::10"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from, to, 64).tcp(40000, 443, 7, 1024).syn();
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn good_segments_of_even_and_odd_length_pass_padded_or_not() {
        for payload in [&b""[..], b"x", b"xy", b"xyz"] {
            for (mut frame, to) in
                [(syn(payload), "203.0.113.10:443"), (syn_v6(payload), "[2001:db8:1::10]:443")]
            {
                let Frame::Tcp(segment) = decode(&frame, TcpChecksum::InFrame) else { panic!("{frame:?}") };
                assert!(segment.is_syn && !segment.is_rst);
                assert_eq!(segment.destination.to_string(), to);
                frame.extend([0xff; 6]);
                assert!(matches!(decode(&frame, TcpChecksum::InFrame), Frame::Tcp(_)));
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_an_ipv6_segment_is_noticed() {
        let good = syn_v6(b"payload");
        let segment = 14 + 40;
        for bit in segment * 8..good.len() * 8 {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&frame, TcpChecksum::InFrame);
            assert!(matches!(decoded, Frame::Bad(_)), "bit {bit}: {decoded:?}");
        }
    }

    #[test]
    fn icmp_errors_of_both_families_tell_their_mtu_and_wrong_ones_are_noticed() {
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut v4 = Vec::new();
        let too_big = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
        let builder = ethernet().ipv4([203, 0, 113, 5], [203, 0, 113, 10], 64);
        builder.icmpv4(Icmpv4Type::DestinationUnreachable(too_big)).write(&mut v4, b"quoted").unwrap();
        let mut v6 = Vec::new();
        let builder = ethernet().ipv6([1; 16], [2; 16], 64);
        builder.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1300 }).write(&mut v6, b"quoted").unwrap();
        for (mut frame, kind) in [(v4, (3, 4)), (v6, (2, 0))] {
            let decoded = decode(&frame, TcpChecksum::InFrame);
            let Frame::IcmpError { kind: told, mtu, .. } = decoded else { panic!("{decoded:?}") };
            assert_eq!((told, mtu), (kind, 1300));
            *frame.last_mut().unwrap() ^= 1;
            assert!(matches!(decode(&frame, TcpChecksum::InFrame), Frame::Bad(_)));
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
