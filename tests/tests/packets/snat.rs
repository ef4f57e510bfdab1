//! Which address and port the gateway uses towards the backend.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    CLIENT_NEXT, Case, Change, Flow, Forwarding, Given, Scene, WIDE4, WIDE6, dropped, forwarded_to,
    returned_to, run_all, usual,
};

use super::in_all;

pub(super) fn cases() -> Vec<Case> {
    [
        in_all(Forwarding::Snat, chosen),
        in_all(Forwarding::Snat, taken),
        in_all(Forwarding::Snat, given_back),
        in_all(Forwarding::Dnat, no_ports_at_all),
        several_addresses(&WIDE4),
        several_addresses(&WIDE6),
    ]
    .concat()
}

/// One SNAT port and no more: the client's.
fn one_port() -> Given {
    usual().snat_ports(30000..=30000)
}

/// The other client's flow, whose port collides with the first one's.
fn other(scene: &'static Scene) -> Flow {
    scene.flow().of(scene.other_client)
}

fn chosen(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let replaced = flow.seen_as_port(50000);
    let with_port = |port| flow.of(SocketAddr::new(scene.client.ip(), port));
    vec![
        Case::of(scene, "a client's port outside of the pool's is replaced by one of them")
            .given(usual().snat_ports(50000..=50000))
            .handshake(replaced)
            .packet(replaced.request().payload(b"question"))
            .expect(forwarded_to(scene.primary).seen_as(replaced.peer))
            .packet(replaced.response().payload(b"answer"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "the first and the last port of a range belong to it")
            .given(usual().snat_ports(30000..=30001))
            .opening(with_port(30000))
            .opening(with_port(30001)),
        Case::of(scene, "what is next to a range doesn't belong to it")
            .given(usual().snat_ports(30000..=30001))
            .packet(with_port(29999).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening())
            .packet(with_port(30002).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening()),
        Case::of(scene, "a port that a client may not have is not kept")
            .packet(with_port(1023).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening())
            .packet(with_port(40000).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening()),
    ]
}

fn taken(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "a port that another handshake has is not used twice")
            .opening(flow)
            .packet(other(scene).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening()),
        Case::of(scene, "a port that another flow has is not used twice")
            .handshake(flow)
            .packet(other(scene).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening()),
        Case::of(scene, "a port is free again for another service and another backend")
            .handshake(flow)
            .handshake(other(scene).to_api())
            .then(Change::Activate(scene.backup))
            .opening(other(scene).on(scene.backup)),
        Case::of(scene, "without a free port nothing is opened, and who has one keeps it")
            .given(one_port())
            .handshake(flow)
            .packet(other(scene).syn())
            .expect(dropped(Reason::SnatExhausted))
            .packet(flow.request().payload(b"still mine"))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "the port of a handshake under way is as taken as any")
            .given(one_port())
            .opening(flow)
            .packet(other(scene).syn())
            .expect(dropped(Reason::SnatExhausted)),
        Case::of(scene, "there are others in a range of a few ports")
            .given(usual().snat_ports(30000..=30015))
            .opening(flow)
            .packet(other(scene).syn())
            .expect(forwarded_to(scene.primary).from_another_port().opening()),
    ]
}

fn given_back(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let opens_instead = |case: Case| {
        case.packet(other(scene).syn()).expect(forwarded_to(scene.primary).forgetting_the_flow().opening())
    };
    vec![
        Case::of(scene, "a refused connection gives its port back")
            .given(one_port())
            .opening(flow)
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .opening(other(scene)),
        opens_instead(
            Case::of(scene, "when nothing else is free, the port of a closed flow is taken over")
                .given(one_port())
                .handshake(flow)
                .packet(flow.request().fin())
                .expect(forwarded_to(scene.primary))
                .packet(flow.response().fin().acks(CLIENT_NEXT.wrapping_add(1)))
                .expect(returned_to(scene.client))
                .packet(flow.request().seq(CLIENT_NEXT.wrapping_add(1)).acks(0xffff_fff2))
                .expect(forwarded_to(scene.primary)),
        ),
        opens_instead(
            Case::of(scene, "when nothing else is free, the port of a reset flow is taken over")
                .given(one_port())
                .handshake(flow)
                .packet(flow.response().rst())
                .expect(returned_to(scene.client)),
        ),
    ]
}

fn no_ports_at_all(scene: &'static Scene) -> Vec<Case> {
    let strange = SocketAddr::new(scene.client.ip(), 80);
    vec![
        Case::of(scene, "a client's address and port are its own affair")
            .given(one_port())
            .handshake(scene.flow())
            .handshake(other(scene))
            .handshake(scene.flow().of(strange)),
    ]
}

fn several_addresses(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "several addresses give each port as often")
            .given(one_port())
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary).opening())
            .packet(other(scene).syn())
            .expect(forwarded_to(scene.primary).opening())
            .packet(flow.of(SocketAddr::new(scene.stranger(), 30000)).syn())
            .expect(dropped(Reason::SnatExhausted)),
        Case::of(scene, "an answer to an address that isn't the flow's is no answer")
            .given(one_port())
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary).opening())
            .packet(flow.seen_as(SocketAddr::new(scene.gateway, 30000)).syn_ack())
            .expect(dropped(Reason::StraySynAck)),
    ]
}

#[test]
fn snat_ports() {
    run_all("snat", &cases()).unwrap();
}
