//! What a translation keeps and what it changes: addresses, ports, one of the TTL, both checksums, and nothing else.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Scene, answered, dropped, forwarded_to, returned_to, run_all, usual};
use balancer_tests::packet::{Checksum, Packet, flags};

use super::{everywhere, in_all_ipv4, in_all_ipv6};

/// MSS, SACK permitted, timestamps, window scale: what Linux sends with a SYN.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
/// Timestamps as in every further segment.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
/// Router alert (RFC 2113), padded to ten words.
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(kept),
        in_all_ipv4(kept_of_ipv4),
        in_all_ipv6(kept_of_ipv6),
        everywhere(checksums),
        everywhere(sizes),
    ]
    .concat()
}

/// The change is made to every packet of a flow's beginning.
fn kept_everywhere(scene: &'static Scene, claim: &str, change: impl Fn(&mut Packet)) -> Case {
    let flow = scene.flow();
    Case::of(scene, claim)
        .packet(flow.syn().with(&change))
        .expect(forwarded_to(scene.primary).opening())
        .packet(flow.syn_ack().with(&change))
        .expect(returned_to(scene.client))
        .packet(flow.request().payload(b"question").with(&change))
        .expect(forwarded_to(scene.primary).establishing())
        .packet(flow.response().payload(b"an answer").with(&change))
        .expect(returned_to(scene.client))
}

fn kept(scene: &'static Scene) -> Vec<Case> {
    let kept = |claim: &str, change: fn(&mut Packet)| kept_everywhere(scene, claim, change);
    vec![
        kept("DSCP and ECN are kept", |packet| packet.ip.tos = 0xb9),
        kept("TCP options of any kind are kept", |packet| packet.options = SYN_OPTIONS.to_vec()),
        kept("as many TCP options as fit are kept", |packet| packet.options = vec![1; 40]),
        kept("window and urgent pointer are kept", |packet| {
            packet.window = 0;
            packet.urgent = 0xffff;
        }),
        kept("ECN's flags are kept", |packet| packet.flags |= flags::ECE | flags::CWR),
        kept("timestamps are kept", |packet| packet.options = TIMESTAMPS.to_vec()),
        kept("the frame's padding is kept, and counted", |packet| packet.ethernet.padding = vec![0xee; 6]),
        kept("a TTL of 2 leaves as 1", |packet| packet.ip.ttl = 2),
        kept("a TTL of 255 leaves as 254", |packet| packet.ip.ttl = 255),
    ]
}

fn kept_of_ipv4(scene: &'static Scene) -> Vec<Case> {
    let kept = |claim: &str, change: fn(&mut Packet)| kept_everywhere(scene, claim, change);
    vec![
        kept("the IP identification is kept, with or without don't-fragment", |packet| {
            packet.ip.id = 0xffff;
            packet.ip.fragment = 0;
        }),
        kept("the reserved fragment bit is nobody's business", |packet| packet.ip.fragment = 0xc000),
        kept("IP options are kept", |packet| packet.ip.options = ROUTER_ALERT.to_vec()),
        kept("as many IP and TCP options as fit are kept", |packet| {
            packet.ip.options = ROUTER_ALERT.repeat(10);
            packet.options = vec![1; 40];
        }),
        kept("a wrong IP checksum stays wrong by as much", |packet| packet.ip.wrong.checksum_by = 0x8000),
    ]
}

fn kept_of_ipv6(scene: &'static Scene) -> Vec<Case> {
    let kept = |claim: &str, change: fn(&mut Packet)| kept_everywhere(scene, claim, change);
    vec![
        kept("a flow label of all ones is kept", |packet| packet.ip.flow_label = 0xf_ffff),
        kept("no flow label stays none", |packet| packet.ip.flow_label = 0),
    ]
}

/// The urgent pointer that is all that is missing to a sum of all ones.
fn with_zero_checksum(packet: Packet) -> Packet {
    let urgent = packet.clone().with(|packet| packet.urgent = 0).checksum_field();
    let packet = packet.with(|packet| packet.urgent = urgent);
    assert_eq!(packet.checksum_field(), 0);
    packet
}

fn checksums(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let kept = |claim: &str, change: fn(&mut Packet)| kept_everywhere(scene, claim, change);
    let behind = flow.syn().with(|packet| {
        packet.source = flow.peer;
        packet.destination = flow.backend();
    });
    let urgent = with_zero_checksum(behind).urgent;
    vec![
        kept("a wrong TCP checksum stays wrong by as much", |packet| {
            packet.checksum = Checksum::WrongBy(0x0101);
        }),
        kept("the least mistake in a checksum survives", |packet| {
            packet.checksum = Checksum::WrongBy(0xfffe);
            packet.ip.wrong.checksum_by = 1;
        }),
        Case::of(scene, "a zero checksum is as good as any")
            .packet(with_zero_checksum(flow.syn()))
            .expect(forwarded_to(scene.primary).opening()),
        Case::of(scene, "a checksum may become zero")
            .packet(flow.syn().with(|packet| packet.urgent = urgent))
            .expect(forwarded_to(scene.primary).opening()),
    ]
}

/// So much data that the packet has this many bytes.
fn filled(packet: Packet, bytes: usize) -> Packet {
    let headers = packet.ip_length();
    packet.payload(&vec![1; bytes - headers])
}

fn sizes(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let to_backend = |bytes| filled(flow.request(), bytes);
    let to_client = |bytes| filled(flow.response(), bytes);
    let without_leave = |packet: Packet| packet.with(|packet| packet.ip.fragment = 0);
    // IPv6 has no bit for it: nobody on the way may fragment.
    let too_big = if scene.is_ipv4() { dropped } else { answered };
    vec![
        Case::of(scene, "what just fits the way out goes, and one byte more doesn't")
            .handshake(flow)
            .packet(to_backend(1500))
            .expect(forwarded_to(scene.primary))
            .packet(to_backend(1501))
            .expect(answered(Reason::TooBig))
            .packet(to_client(1500))
            .expect(returned_to(scene.client))
            .packet(to_client(1501))
            .expect(answered(Reason::TooBig)),
        Case::of(scene, "each side has its own limit, and padding doesn't count")
            .given(usual().lan_mtu(1400))
            .handshake(flow)
            .packet(to_backend(1400).with(|packet| packet.ethernet.padding = vec![0; 100]))
            .expect(forwarded_to(scene.primary))
            .packet(without_leave(to_backend(1401)))
            .expect(too_big(Reason::TooBig))
            .packet(to_client(1500))
            .expect(returned_to(scene.client)),
    ]
}

#[test]
fn translations() {
    run_all("translation", &cases()).unwrap();
}
