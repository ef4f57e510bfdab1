//! The builder against another implementation's reading of the same bytes.

use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TcpSlice, TransportSlice};

use super::{Checksum, Extension, Icmp, Packet, VLAN, difference};

fn v4() -> Packet {
    let source = "203.0.113.7:40000".parse().unwrap();
    Packet::new(source, "203.0.113.10:443".parse().unwrap())
}

fn v6() -> Packet {
    let source = "[2001:db8::7]:40000".parse().unwrap();
    Packet::new(source, "[2001:db8::10]:443".parse().unwrap())
}

/// What is read back of a segment, but for its checksum.
fn assert_same(built: &Packet, tcp: &TcpSlice<'_>) {
    assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (built.sequence, built.acknowledgement));
    assert_eq!((tcp.options(), tcp.payload()), (&built.options[..], &built.payload[..]));
    assert_eq!((tcp.source_port(), tcp.destination_port()), (40000, 443));
    assert!(tcp.syn() && tcp.ack() && !tcp.fin());
}

fn filled_in(packet: Packet) -> Packet {
    packet.syn_ack().seq(7).acks(9).ttl(3).payload(b"odd").with(|packet| {
        packet.options = vec![2, 4, 5, 0xb4];
        packet.ip.options = vec![148, 4, 0, 0];
        packet.ip.tos = 0xb9;
        packet.ip.flow_label = 0xabcde;
    })
}

#[test]
fn another_implementation_reads_ipv4_as_it_was_built() {
    let built = filled_in(v4());
    let frame = built.to_frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport) else {
        panic!("{frame:02x?}")
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.time_to_live, header.dscp.value(), header.ecn.value()), (3, 46, 1));
    let right = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap();
    assert_eq!((tcp.checksum(), built.checksum_field()), (right, right));
    assert_eq!(frame.len(), 14 + built.ip_length());
    assert_same(&built, &tcp);
}

#[test]
fn another_implementation_reads_ipv6_with_extension_headers_as_it_was_built() {
    let built = filled_in(v6()).with(|packet| {
        packet.ip.extensions = vec![
            Extension::hop_by_hop(1),
            Extension::destination_options(2),
            Extension::routing(0),
            Extension::authentication(3),
        ];
    });
    let frame = built.to_frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport) else {
        panic!("{frame:02x?}")
    };
    let header = ip.header().to_header();
    assert_eq!((header.hop_limit, header.traffic_class, header.flow_label.value()), (3, 0xb9, 0xabcde));
    assert_eq!(usize::from(header.payload_length) + 40, built.ip_length());
    assert_eq!(ip.extensions().clone().into_iter().count(), 4);
    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(header.source, header.destination).unwrap());
    assert_same(&built, &tcp);
}

#[test]
fn another_implementation_reads_a_fragment_header_as_it_was_built() {
    let fragment = v6().with(|packet| packet.ip.extensions = vec![Extension::fragment(185, true)]);
    let frame = fragment.to_frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("{frame:02x?}") };
    assert!(ip.is_payload_fragmented() && sliced.transport.is_none());
}

#[test]
fn another_implementation_finds_icmp_checksums_right() {
    let [v4, v6] = [v4(), v6()].map(|quoted| quoted.syn().payload(b"quoted"));
    let error = Icmp::new(v4.destination.ip(), v4.source.ip(), 3, 4).rest(1400).about(&v4).to_frame();
    let sliced = SlicedPacket::from_ethernet(&error).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{error:02x?}") };
    let header = icmp.header();
    assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()));
    assert_eq!(icmp.payload(), v4.to_packet());

    let error = Icmp::new(v6.destination.ip(), v6.source.ip(), 2, 0).rest(1400).about_first(8, &v6);
    let frame = error.to_frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("{frame:02x?}") };
    let (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) = (error.source, error.destination)
    else {
        panic!("{error:?}")
    };
    assert!(
        Icmpv6Slice::from_slice(icmp.slice())
            .unwrap()
            .is_checksum_valid(source.octets(), destination.octets())
    );
    assert_eq!(icmp.payload(), &v6.to_packet()[..48]);
    let wrong = error.with(|error| error.checksum_by = 1).to_frame();
    assert_eq!(difference(&frame, &wrong).unwrap().lines().count(), 1);
}

#[test]
fn a_tag_stands_between_the_addresses_and_the_type() {
    let frame = v4().with(|packet| packet.ethernet.tags = vec![(VLAN, 100)]).to_frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    assert_eq!(sliced.vlan_ids().iter().map(|id| id.value()).collect::<Vec<_>>(), [100]);
    assert_eq!([&frame[..12], &frame[16..]].concat(), v4().to_frame());
}

#[test]
fn a_wrong_checksum_is_wrong_by_what_was_asked_for() {
    for packet in [v4(), v6()] {
        let right = packet.to_frame();
        let wrong = packet.checksum(Checksum::WrongBy(5)).to_frame();
        let seen = difference(&right, &wrong).unwrap();
        assert!(seen.contains("TCP checksum") && seen.lines().count() == 1, "{seen}");
    }
}

#[test]
fn a_partial_checksum_is_what_completes_the_segments_own_sum() {
    // RFC 1071: the complement of the sum over the segment with the pseudo-header's sum in its checksum field is the
    // right checksum. A card that is asked to finish the work does just that.
    for packet in [v4().syn(), v6().syn().payload(b"odd")] {
        let partial = packet.clone().checksum(Checksum::Partial).to_packet();
        let header = packet.ip.header_length(packet.source.ip());
        assert_eq!(super::sum::checksum(&[&partial[header..]]), packet.checksum_field());
    }
}

#[test]
fn mistakes_are_made_as_asked_for() {
    let frame = v4()
        .with(|packet| {
            packet.ip.wrong.header_words = Some(4);
            packet.header_words = Some(15);
            packet.ip.wrong.length = Some(1000);
            packet.ethernet.cut_to = Some(40);
        })
        .to_frame();
    assert_eq!((frame.len(), frame[14], frame[16..18].to_vec()), (40, 0x44, vec![3, 232]));
}
