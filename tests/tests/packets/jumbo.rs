//! Packets larger than a page (failure class 12): they come in several buffers, and leave whole.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Given, Scene, answered, forwarded_to, returned_to, run_all, usual};
use balancer_tests::packet::Packet;

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    everywhere(jumbo)
}

fn wide() -> Given {
    usual().lan_mtu(9000).wan_mtu(9000)
}

/// So much data that the packet has this many bytes.
fn filled(packet: Packet, bytes: usize) -> Packet {
    let data: Vec<u8> = (0..bytes - packet.ip_length()).map(|index| index as u8).collect();
    packet.payload(&data)
}

fn jumbo(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "9,000 bytes are translated, both ways")
            .given(wide())
            .handshake(flow)
            .packet(filled(flow.request(), 9000))
            .expect(forwarded_to(scene.primary))
            .packet(filled(flow.response(), 9000))
            .expect(returned_to(scene.client)),
        Case::of(scene, "every size around a page is translated")
            .given(wide())
            .handshake(flow)
            .packet(filled(flow.request(), 3500))
            .expect(forwarded_to(scene.primary))
            .packet(filled(flow.request(), 4096))
            .expect(forwarded_to(scene.primary))
            .packet(filled(flow.response(), 4097))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a jumbo packet that is too big is answered with its beginning")
            .given(usual().wan_mtu(9000))
            .handshake(flow)
            .packet(filled(flow.request(), 9000))
            .expect(answered(Reason::TooBig)),
    ]
}

#[test]
fn jumbo_packets() {
    run_all("jumbo", &cases()).unwrap();
}
