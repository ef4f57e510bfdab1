//! What a translation keeps and what it changes: addresses, ports, one of the TTL, both checksums, and nothing else.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    CLIENT, Case, PRIMARY, WEB, dropped, forwarded_to, gateway, returned_to, run_all, tcp, usual,
};
use balancer_tests::packet::{Packet, flags};

use super::{from_backend, from_client, syn};

/// MSS, SACK permitted, timestamps, window scale: what Linux sends with a SYN.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
/// Timestamps as in every further segment.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
/// Router alert (RFC 2113), padded to ten words.
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = kept();
    cases.extend(wrong());
    cases.extend(sizes());
    cases
}

/// The change is made to a SYN, to a client's data and to a backend's data.
fn kept_everywhere(claim: &str, change: impl Fn(&mut Packet)) -> Case {
    Case::new(claim)
        .packet(syn(CLIENT, WEB).with(&change))
        .expect(forwarded_to(PRIMARY).opening())
        .packet(super::syn_ack(PRIMARY.at(10001), gateway(30000)).with(&change))
        .expect(returned_to(CLIENT))
        .packet(from_client(CLIENT, WEB).payload(b"question").with(&change))
        .expect(forwarded_to(PRIMARY).establishing())
        .packet(from_backend(PRIMARY.at(10001), gateway(30000)).payload(b"an answer").with(&change))
        .expect(returned_to(CLIENT))
}

fn kept() -> Vec<Case> {
    vec![
        kept_everywhere("DSCP and ECN are kept", |packet| packet.tos = 0xb9),
        kept_everywhere("the IP identification is kept, with or without don't-fragment", |packet| {
            packet.id = 0xffff;
            packet.fragment = 0;
        }),
        kept_everywhere("the reserved fragment bit is nobody's business", |packet| packet.fragment = 0xc000),
        kept_everywhere("TCP options of any kind are kept", |packet| {
            packet.tcp_options = SYN_OPTIONS.to_vec()
        }),
        kept_everywhere("as many TCP options as fit are kept", |packet| packet.tcp_options = vec![1; 40]),
        kept_everywhere("IP options are kept", |packet| packet.ip_options = ROUTER_ALERT.to_vec()),
        kept_everywhere("as many IP and TCP options as fit are kept", |packet| {
            packet.ip_options = ROUTER_ALERT.repeat(10);
            packet.tcp_options = vec![1; 40];
        }),
        kept_everywhere("window and urgent pointer are kept", |packet| {
            packet.window = 0;
            packet.urgent = 0xffff;
        }),
        kept_everywhere("ECN's flags are kept", |packet| packet.flags |= flags::ECE | flags::CWR),
        kept_everywhere("timestamps are kept", |packet| packet.tcp_options = TIMESTAMPS.to_vec()),
        kept_everywhere("the frame's padding is kept, and counted", |packet| packet.padding = vec![0xee; 6]),
        kept_everywhere("a TTL of 2 leaves as 1", |packet| packet.ttl = 2),
        kept_everywhere("a TTL of 255 leaves as 254", |packet| packet.ttl = 255),
        Case::new("a zero checksum is as good as any")
            .packet(with_zero_checksum(syn(CLIENT, WEB)))
            .expect(forwarded_to(PRIMARY).opening()),
        Case::new("a checksum may become zero")
            .packet(syn(CLIENT, WEB).with(|packet| packet.urgent = urgent_for_a_zero_checksum_behind()))
            .expect(forwarded_to(PRIMARY).opening()),
    ]
}

fn checksum_of(packet: &Packet) -> u16 {
    let frame = packet.to_frame();
    u16::from_be_bytes([frame[50], frame[51]])
}

/// The urgent pointer that is all that is missing to a sum of all ones.
fn with_zero_checksum(packet: Packet) -> Packet {
    let urgent = checksum_of(&packet.clone().with(|packet| packet.urgent = 0));
    let packet = packet.with(|packet| packet.urgent = urgent);
    assert_eq!(checksum_of(&packet), 0);
    packet
}

fn urgent_for_a_zero_checksum_behind() -> u16 {
    let behind = tcp(gateway(30000), PRIMARY.at(10001)).syn().seq(balancer_tests::case::CLIENT_ISN);
    with_zero_checksum(behind).urgent
}

fn wrong() -> Vec<Case> {
    vec![
        kept_everywhere("a wrong TCP checksum stays wrong by as much", |packet| {
            packet.wrong.tcp_checksum_by = 0x0101;
        }),
        kept_everywhere("a wrong IP checksum stays wrong by as much", |packet| {
            packet.wrong.ip_checksum_by = 0x8000;
        }),
        kept_everywhere("the least mistake in a checksum survives", |packet| {
            packet.wrong.tcp_checksum_by = 0xfffe;
            packet.wrong.ip_checksum_by = 1;
        }),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        Case::new("what just fits the way out goes, and one byte more doesn't")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(from_client(CLIENT, WEB).payload(&[1; 1460]))
            .expect(forwarded_to(PRIMARY))
            .packet(from_client(CLIENT, WEB).payload(&[1; 1461]))
            .expect(dropped(Reason::TooBig))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)).payload(&[1; 1461]))
            .expect(dropped(Reason::TooBig)),
        Case::new("each side has its own limit, and padding doesn't count")
            .given(usual().lan_mtu(1400))
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(from_client(CLIENT, WEB).payload(&[1; 1360]).with(|packet| packet.padding = vec![0; 100]))
            .expect(forwarded_to(PRIMARY))
            .packet(from_client(CLIENT, WEB).payload(&[1; 1361]).with(|packet| packet.fragment = 0))
            .expect(dropped(Reason::TooBig))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)).payload(&[1; 1460]))
            .expect(returned_to(CLIENT)),
    ]
}

#[test]
fn translations() {
    run_all("translation", &cases()).unwrap();
}
