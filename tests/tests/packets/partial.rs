//! Checksums that were left to a network card that doesn't exist (failure class 2): a rewrite makes them wrong for good,
//! so the handshake shows it: its packets are dropped and counted, and `doctor` can name the line that helps.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Scene, dropped, forwarded_to, returned_to, run_all};
use balancer_tests::packet::{Checksum, Packet};

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    everywhere(partial)
}

fn with_options(packet: Packet) -> Packet {
    packet
        .with(|packet| packet.options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7])
}

/// A segment whose right checksum is what a host would write for its card: of 65,536 urgent pointers one makes it so.
fn right_by_chance(packet: &Packet) -> Packet {
    let partial = packet.clone().checksum(Checksum::Partial).checksum_field();
    let right = |urgent| packet.clone().with(|packet| packet.urgent = urgent);
    (0..=u16::MAX)
        .map(right)
        .find(|packet| packet.checksum_field() == partial)
        .expect("the urgent pointer is in the sum")
}

fn partial(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "a SYN with a partial checksum is dropped")
            .packet(flow.syn().checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum)),
        Case::of(scene, "a SYN with options and a partial checksum is dropped")
            .packet(with_options(flow.syn()).checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum)),
        Case::of(scene, "a SYN-ACK with a partial checksum is dropped, a repaired one goes on")
            .opening(flow)
            .packet(flow.syn_ack().checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum))
            .packet(with_options(flow.syn_ack()).checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        Case::of(scene, "a SYN whose right checksum looks partial is forwarded")
            .packet(right_by_chance(&with_options(flow.syn())))
            .expect(forwarded_to(scene.primary).opening()),
        Case::of(scene, "a SYN-ACK whose right checksum looks partial is forwarded")
            .opening(flow)
            .packet(right_by_chance(&with_options(flow.syn_ack())))
            .expect(returned_to(scene.client)),
    ]
}

#[test]
fn partial_checksums() {
    run_all("partial", &cases()).unwrap();
}
