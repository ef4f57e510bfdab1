//! Errors that say that a SYN's backend can't be reached.

use balancer_common::abi::Signals;
use balancer_common::verdict::Reason;
use balancer_tests::case::{CLIENT_NEXT, Case, Scene, dropped, icmp, returned_to};
use balancer_tests::packet::{Icmp, Packet};
use balancer_user::dataplane::slots::Retry;

use super::{NONE, REFUSED, RESCUED, completed, instant, moved, particular, retried, retrying, stays};

/// Of the backend, about the SYN as it saw it.
fn about_syn(scene: &'static Scene, syn: &Packet) -> Icmp {
    let flow = scene.flow();
    let behind = syn.clone().with(|packet| {
        packet.source = flow.peer;
        packet.destination = flow.backend();
    });
    let kind = if scene.is_ipv4() { 3 } else { 1 };
    icmp(scene.primary.address, flow.peer.ip(), kind, 1).about(&behind)
}

pub(super) fn cases(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let backup = flow.on(scene.backup);
    let syn = particular(flow, 5);
    let opened = |claim| instant(scene, claim).packet(syn.clone()).expect(stays(flow).opening());
    let first_bytes = |bytes| {
        about_syn(scene, &syn).about_first(bytes, about_syn(scene, &syn).quoted().expect("an error quotes"))
    };
    let too_big = if scene.is_ipv4() { (3, 4) } else { (2, 0) };
    vec![
        completed(
            opened("an error says that the backend can't be reached, and the SYN goes on in its frame")
                .icmp(about_syn(scene, &syn))
                .expect(retried(backup, &syn)),
            backup,
        )
        .signalled(scene.primary, Signals { refused: 0, unreachable: 1, ..REFUSED })
        .signalled(scene.backup, RESCUED),
        completed(
            opened("eight bytes of the SYN are enough to know it by")
                .icmp(first_bytes(8))
                .expect(retried(backup, &syn)),
            backup,
        ),
        completed(
            opened("an error about another sequence number is for the client to judge")
                .icmp(about_syn(scene, &syn.clone().seq(CLIENT_NEXT)))
                .expect(returned_to(scene.client)),
            flow,
        )
        .signalled(scene.primary, Signals { syns: 1, syn_acks: 1, ..NONE })
        .signalled(scene.backup, NONE),
        opened("an error that says something else is for the client to judge")
            .icmp(about_syn(scene, &syn).with(|error| (error.kind, error.code) = too_big))
            .expect(returned_to(scene.client))
            .signalled(scene.primary, Signals { syns: 1, ..NONE }),
        opened("an error about a SYN that was taken is for the client to judge")
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .icmp(about_syn(scene, &syn))
            .expect(returned_to(scene.client))
            .signalled(scene.primary, Signals { syns: 1, syn_acks: 1, ..NONE }),
        retrying(scene, Retry::Repeated, "an error may be swallowed as a RST is")
            .packet(syn.clone())
            .expect(stays(flow).opening())
            .icmp(about_syn(scene, &syn))
            .expect(dropped(Reason::Refused))
            .packet(syn.clone())
            .expect(moved(backup))
            .signalled(scene.primary, Signals { refused: 0, unreachable: 1, ..REFUSED }),
    ]
}
