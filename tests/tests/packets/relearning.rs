//! A client moves behind another router or interface: its answers follow, but only after a packet that is the client's
//! own beyond doubt. A blind host on the LAN must not steal them.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    BACKEND_NEXT, CLIENT_NEXT, Case, Change, Expect, OTHER_ROUTER_MAC, Scene, Side, answered, forwarded_to,
    returned_to, run_all,
};
use balancer_tests::packet::{Mac, Packet};

use super::everywhere;

/// A host on the backends' side that the clients are behind now.
const LAN_ROUTER_MAC: Mac = [2, 0, 0, 0, 9, 9];

pub(super) fn cases() -> Vec<Case> {
    [everywhere(moved), everywhere(in_a_backends_name)].concat()
}

fn from_other_router(packet: Packet) -> Packet {
    packet.with(|packet| packet.ethernet.source = OTHER_ROUTER_MAC)
}

fn moved(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let back = || returned_to(scene.client);
    let over_there = || back().by_way_of(Side::Wan, OTHER_ROUTER_MAC);
    let after = |claim: &str, packet: Packet, way: Expect| {
        Case::of(scene, claim)
            .handshake(flow)
            .packet(from_other_router(packet))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"answer"))
            .expect(way)
    };
    let request = |offset: u32| flow.request().seq(CLIENT_NEXT.wrapping_add(offset));
    vec![
        after("answers follow a client that moves behind another router", request(0), over_there()),
        after("the last sequence number of the window is the client's", request(0xffff), over_there()),
        after("what is behind the window moves nobody", request(0x1_0000), back()),
        after("a keep-alive is the client's", request(u32::MAX), over_there()),
        after("what was sent before is the client's", request(0_u32.wrapping_sub(0x1_0000)), over_there()),
        after("what is far before the window moves nobody", request(0_u32.wrapping_sub(0x1_0001)), back()),
        after(
            "answers follow a client whose first packet over there is its last",
            request(0).fin(),
            over_there(),
        ),
        after("what is from nowhere moves nobody", request(0x8000_0000), back()),
        Case::of(scene, "a client may move back")
            .handshake(flow)
            .packet(from_other_router(flow.request()))
            .expect(forwarded_to(scene.primary))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary))
            .packet(flow.response())
            .expect(back()),
        Case::of(scene, "the window moves with what the backend acknowledges")
            .handshake(flow)
            .packet(flow.response().acks(CLIENT_NEXT.wrapping_add(0x2_0000)))
            .expect(back())
            .packet(from_other_router(request(0)))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().acks(CLIENT_NEXT.wrapping_add(0x2_0000)))
            .expect(back())
            .packet(from_other_router(request(0x2_0000)))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response())
            .expect(over_there()),
        Case::of(scene, "the answer to a SYN follows a client that repeats it from elsewhere")
            .opening(flow)
            .packet(from_other_router(flow.syn()))
            .expect(forwarded_to(scene.primary))
            .packet(flow.syn_ack())
            .expect(over_there()),
        Case::of(scene, "answers follow a client to another interface")
            .handshake(flow)
            .packet_through(Side::Lan, flow.request().with(|packet| packet.ethernet.source = LAN_ROUTER_MAC))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response())
            .expect(back().by_way_of(Side::Lan, LAN_ROUTER_MAC)),
        Case::of(scene, "a packet that goes nowhere moves nobody")
            .handshake(flow)
            .packet(from_other_router(flow.request().ttl(1)))
            .expect(answered(Reason::TtlExpired))
            .packet(flow.response())
            .expect(back()),
    ]
}

/// Packets in a backend's name that come from the clients' side.
fn in_a_backends_name(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let back = || returned_to(scene.client);
    let far = |number: u32| number.wrapping_add(0x4000_0000);
    let forged = || flow.response().seq(far(BACKEND_NEXT)).acks(far(CLIENT_NEXT));
    let request = |sequence: u32| flow.request().seq(sequence);
    vec![
        Case::of(scene, "what is acknowledged in a backend's name from elsewhere moves no client")
            .handshake(flow)
            .packet_through(Side::Wan, forged())
            .expect(back())
            .packet(from_other_router(request(far(CLIENT_NEXT))))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response())
            .expect(back()),
        Case::of(scene, "nor does it end a flow by a RST")
            .handshake(flow)
            .then(Change::Activate(scene.backup))
            .packet_through(Side::Wan, forged())
            .expect(back())
            .packet(request(far(CLIENT_NEXT)).rst())
            .expect(forwarded_to(scene.primary))
            .packet(flow.another_syn())
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "nor what is acknowledged in a client's name")
            .handshake(flow)
            .then(Change::Activate(scene.backup))
            .packet(from_other_router(request(far(CLIENT_NEXT)).acks(far(BACKEND_NEXT))))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().seq(far(BACKEND_NEXT)).rst_ack())
            .expect(back())
            .packet(flow.another_syn())
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "a backend that answers by another way is believed if it knows the connection")
            .handshake(flow)
            .packet_through(Side::Wan, flow.response().acks(CLIENT_NEXT.wrapping_add(0x2_0000)))
            .expect(back())
            .packet(from_other_router(request(CLIENT_NEXT.wrapping_add(0x2_0000))))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response())
            .expect(back().by_way_of(Side::Wan, OTHER_ROUTER_MAC)),
    ]
}

#[test]
fn clients_that_move() {
    run_all("relearning", &cases()).unwrap();
}
