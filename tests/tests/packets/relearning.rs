//! A client moves behind another router or interface: its answers follow, but only after a packet that is the client's
//! own beyond doubt. A blind host on the LAN must not steal them.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    CLIENT_NEXT, Case, Expect, OTHER_ROUTER_MAC, Scene, Side, answered, forwarded_to, returned_to, run_all,
};
use balancer_tests::packet::{Mac, Packet};

use super::everywhere;

/// A host on the backends' side that the clients are behind now.
const LAN_ROUTER_MAC: Mac = [2, 0, 0, 0, 9, 9];

pub(super) fn cases() -> Vec<Case> {
    everywhere(moved)
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
        after("what is before the window moves nobody", request(u32::MAX), back()),
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

#[test]
fn clients_that_move() {
    run_all("relearning", &cases()).unwrap();
}
