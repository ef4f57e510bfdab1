//! The other half of the iron rule: what is not for a service passes, byte-identical and uncounted.

use std::net::{Ipv4Addr, SocketAddrV4};

use balancer_tests::case::{CLIENT, Case, PRIMARY, VIP, WEB, gateway, passed, run_all, tcp};
use balancer_tests::packet::{IPV4, MORE_FRAGMENTS, Packet, flags};

use super::{syn, syn_ack};

const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 99), 443);
const OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(VIP, 22);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = other_destinations();
    cases.extend(other_protocols());
    cases.extend(other_frames());
    cases
}

fn packet_passes(claim: &str, packet: Packet) -> Case {
    Case::new(claim).packet(packet).expect(passed())
}

fn frame_passes(claim: &str, frame: Vec<u8>) -> Case {
    Case::new(claim).frame(frame).expect(passed())
}

fn other_destinations() -> Vec<Case> {
    vec![
        packet_passes("another port of the VIP is the kernel's", syn(CLIENT, OTHER_PORT)),
        packet_passes("mid-stream to another port of the VIP is the kernel's", tcp(CLIENT, OTHER_PORT).ack()),
        packet_passes(
            "scans of other ports are the kernel's",
            tcp(CLIENT, OTHER_PORT).flags(flags::SYN | flags::FIN),
        ),
        packet_passes("another host's port 443 is its own", syn(CLIENT, ELSEWHERE)),
        packet_passes("a TTL of 1 to another host is the kernel's to answer", syn(CLIENT, ELSEWHERE).ttl(1)),
        packet_passes("a spoofed source to another host is the kernel's to judge", syn(WEB, ELSEWHERE)),
        packet_passes(
            "a fragment to another host passes",
            syn(CLIENT, ELSEWHERE).with(|packet| packet.fragment = MORE_FRAGMENTS),
        ),
        packet_passes(
            "an impossible length to another host passes",
            syn(CLIENT, ELSEWHERE).with(|packet| packet.wrong.tcp_header_words = Some(15)),
        ),
        packet_passes(
            "a backend's answer to the gateway's own connection passes",
            syn_ack(PRIMARY.at(10001), gateway(40000)),
        ),
        packet_passes("what a service's own address sends elsewhere passes", tcp(WEB, ELSEWHERE).ack()),
    ]
}

/// A SYN to a service in which another protocol's number stands.
fn with_protocol(number: u8) -> Vec<u8> {
    let mut frame = syn(CLIENT, WEB).to_frame();
    frame[14 + 9] = number;
    frame
}

fn other_protocols() -> Vec<Case> {
    [(1, "ICMP"), (17, "UDP"), (4, "IP in IP"), (47, "GRE"), (50, "ESP"), (132, "SCTP"), (0, "protocol 0")]
        .into_iter()
        .map(|(number, name)| frame_passes(&format!("{name} to the VIP passes"), with_protocol(number)))
        .collect()
}

fn with_ether_type(ether_type: u16) -> Vec<u8> {
    syn(CLIENT, WEB).with(|packet| packet.ether_type = ether_type).to_frame()
}

/// The frame with a VLAN tag after its addresses.
fn tagged(frame: &[u8], tag_type: u16) -> Vec<u8> {
    let tag = [tag_type.to_be_bytes(), 100_u16.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

fn other_frames() -> Vec<Case> {
    let frame = syn(CLIENT, WEB).to_frame();
    let addressed = |mac| syn(CLIENT, WEB).with(|packet| packet.destination_mac = mac);
    vec![
        frame_passes("ARP passes", with_ether_type(0x0806)),
        frame_passes("IPv6 passes", with_ether_type(0x86dd)),
        frame_passes("a length instead of a type passes", with_ether_type(0x0026)),
        frame_passes("a tagged frame passes", tagged(&frame, 0x8100)),
        frame_passes("a twice tagged frame passes", tagged(&tagged(&frame, 0x8100), 0x88a8)),
        packet_passes("a broadcast frame passes", addressed([0xff; 6])),
        packet_passes("a multicast frame passes", addressed([1, 0, 0x5e, 0, 0, 1])),
        packet_passes(
            "another version than 4 passes",
            syn(CLIENT, WEB).with(|packet| packet.wrong.version = Some(6)),
        ),
        frame_passes("a frame of its header alone passes", frame[..14].to_vec()),
        frame_passes("a frame that ends in the IP header passes", frame[..33].to_vec()),
        frame_passes("IPv4 of no content passes", [&frame[..12], &IPV4.to_be_bytes(), &[0; 46]].concat()),
    ]
}

#[test]
fn others_traffic() {
    run_all("untouched", &cases()).unwrap();
}
