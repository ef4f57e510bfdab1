//! What is for a service and can't be read, has impossible flags, or has nowhere to go: dropped with its reason, never
//! leaked to the kernel.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Scene, Side, dropped, forwarded_to, run_all, tcp, usual};
use balancer_tests::packet::{MORE_FRAGMENTS, Packet, flags};

use super::{everywhere, in_all_ipv4, in_all_ipv6};

/// Flag combinations that no TCP sends.
const IMPOSSIBLE: [(&str, u8); 9] = [
    ("NULL", 0),
    ("Xmas", flags::FIN | flags::PSH | flags::URG),
    ("SYN+FIN", flags::SYN | flags::FIN),
    ("SYN+FIN+ACK", flags::SYN | flags::FIN | flags::ACK),
    ("SYN+RST", flags::SYN | flags::RST),
    ("FIN+RST", flags::FIN | flags::RST | flags::ACK),
    ("FIN+URG", flags::FIN | flags::URG),
    ("PSH alone", flags::PSH),
    ("all flags", 0xff),
];

pub(super) fn cases() -> Vec<Case> {
    [
        in_all_ipv4(fragments),
        in_all_ipv4(lengths_of_ipv4),
        in_all_ipv6(lengths_of_ipv6),
        everywhere(lengths_of_tcp),
        everywhere(from_backends),
        everywhere(impossible_flags),
        everywhere(fin_without_ack),
        everywhere(nowhere_to_go),
    ]
    .concat()
}

/// A SYN to a service, changed so that it must be dropped and leave nothing behind.
fn syn_is_dropped(
    scene: &'static Scene,
    claim: &str,
    reason: Reason,
    change: impl FnOnce(&mut Packet),
) -> Case {
    Case::of(scene, claim).packet(scene.flow().syn().with(change)).expect(dropped(reason))
}

fn fragments(scene: &'static Scene) -> Vec<Case> {
    let fragment =
        |claim, word| syn_is_dropped(scene, claim, Reason::Fragment, |packet| packet.ip.fragment = word);
    vec![
        fragment("a first fragment is dropped", MORE_FRAGMENTS),
        fragment("a later fragment is dropped", 1),
        fragment("the last fragment that can be is dropped", 0x1fff),
        Case::of(scene, "a fragment in a live flow is dropped too")
            .handshake(scene.flow())
            .packet(scene.flow().request().with(|packet| packet.ip.fragment = MORE_FRAGMENTS))
            .expect(dropped(Reason::Fragment)),
    ]
}

fn lengths_of_ipv4(scene: &'static Scene) -> Vec<Case> {
    let bad = |claim, change: fn(&mut Packet)| syn_is_dropped(scene, claim, Reason::BadLength, change);
    vec![
        bad("an IP header of four words is dropped", |packet| packet.ip.wrong.header_words = Some(4)),
        bad("an IP header beyond the packet is dropped", |packet| packet.ip.wrong.header_words = Some(15)),
        bad("a packet longer than its frame is dropped", |packet| packet.ip.wrong.length = Some(41)),
        bad("a packet that ends in its TCP header is dropped", |packet| packet.ip.wrong.length = Some(39)),
        bad("a packet that ends in its IP header is dropped", |packet| packet.ip.wrong.length = Some(19)),
        bad("a frame that ends in the TCP header is dropped", |packet| {
            packet.ip.wrong.length = Some(30);
            packet.ethernet.cut_to = Some(14 + 30);
        }),
        bad("a total length of zero is dropped", |packet| packet.ip.wrong.length = Some(0)),
    ]
}

fn lengths_of_ipv6(scene: &'static Scene) -> Vec<Case> {
    let bad = |claim, change: fn(&mut Packet)| syn_is_dropped(scene, claim, Reason::BadLength, change);
    vec![
        bad("a packet longer than its frame is dropped", |packet| packet.ip.wrong.length = Some(21)),
        bad("a packet that ends in its TCP header is dropped", |packet| packet.ip.wrong.length = Some(19)),
        bad("a frame that ends in the TCP header is dropped", |packet| {
            packet.ip.wrong.length = Some(10);
            packet.ethernet.cut_to = Some(14 + 50);
        }),
        bad("a payload length of zero is dropped", |packet| packet.ip.wrong.length = Some(0)),
        bad("a frame that ends behind the IPv6 header is dropped", |packet| {
            packet.ethernet.cut_to = Some(14 + 40);
        }),
    ]
}

fn lengths_of_tcp(scene: &'static Scene) -> Vec<Case> {
    let bad = |claim, change: fn(&mut Packet)| syn_is_dropped(scene, claim, Reason::BadLength, change);
    let flow = scene.flow();
    vec![
        bad("a TCP header of four words is dropped", |packet| packet.header_words = Some(4)),
        bad("a TCP header beyond the packet is dropped", |packet| packet.header_words = Some(6)),
        bad("a TCP header in the frame's padding is dropped", |packet| {
            packet.header_words = Some(6);
            packet.ethernet.padding = vec![1; 6];
        }),
        Case::of(scene, "what can't be read in a live flow is dropped too")
            .handshake(flow)
            .packet(flow.request().with(|packet| packet.header_words = Some(15)))
            .expect(dropped(Reason::BadLength)),
    ]
}

/// Towards the gateway's own addresses in snat. In dnat a backend's packets are addressed to clients: what can't be read
/// is like any other host's.
fn from_backends(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    if scene.forwarding == balancer_tests::case::Forwarding::Dnat {
        return Vec::new();
    }
    let mut cases = vec![
        Case::of(scene, "what can't be read of a backend's answer is dropped")
            .handshake(flow)
            .packet(flow.response().with(|packet| packet.header_words = Some(15)))
            .expect(dropped(Reason::BadLength)),
    ];
    if scene.is_ipv4() {
        cases.push(
            Case::of(scene, "a fragment of a backend's answer is dropped")
                .packet(flow.response().with(|packet| packet.ip.fragment = 7))
                .expect(dropped(Reason::Fragment)),
        );
    }
    cases
}

fn impossible_flags(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let api = flow.to_api();
    IMPOSSIBLE
        .into_iter()
        .map(|(name, flags)| {
            let claim = format!("{name}: dropped without a flow, in a handshake, and in a flow");
            Case::of(scene, &claim)
                .packet(tcp(scene.client, flow.listen()).flags(flags))
                .expect(dropped(Reason::BadFlags))
                .packet(api.syn())
                .expect(forwarded_to(scene.primary).opening())
                .packet(tcp(scene.client, api.listen()).flags(flags))
                .expect(dropped(Reason::BadFlags))
                .handshake(flow)
                .packet(flow.request().flags(flags))
                .expect(dropped(Reason::BadFlags))
                .packet(flow.response().flags(flags))
                .expect(dropped(Reason::BadFlags))
        })
        .collect()
}

/// Of no flow it is answered, see `strays`.
fn fin_without_ack(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "a FIN without ACK ends no flow and no handshake")
            .opening(flow)
            .packet(tcp(scene.client, flow.listen()).flags(flags::FIN))
            .expect(dropped(Reason::BadFlags))
            .packet(flow.syn_ack().flags(flags::FIN))
            .expect(dropped(Reason::BadFlags))
            .handshake(flow.to_api())
            .packet(flow.to_api().request().flags(flags::FIN))
            .expect(dropped(Reason::BadFlags))
            .packet(flow.to_api().response().flags(flags::FIN))
            .expect(dropped(Reason::BadFlags)),
    ]
}

fn nowhere_to_go(scene: &'static Scene) -> Vec<Case> {
    let syn_in = |claim, given, reason| {
        Case::of(scene, claim).given(given).packet(scene.flow().syn()).expect(dropped(reason))
    };
    vec![
        syn_in("without an active backend a SYN is dropped", usual().nobody_active(), Reason::NoBackend),
        syn_in(
            "without a way to the backend a SYN is dropped",
            usual().no_way_to(scene.primary),
            Reason::NoNextHop,
        ),
        syn_in(
            "without a way back a SYN is dropped",
            usual().unknown_interface(Side::Wan),
            Reason::NoNextHop,
        ),
    ]
}

#[test]
fn refusals() {
    run_all("refused", &cases()).unwrap();
}
