//! Full tables: who is in goes on, who isn't stays out, and is counted.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Change, Given, Scene, dropped, forwarded_to, returned_to, run_all, usual};

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    everywhere(full)
}

/// Room for one handshake and one flow.
fn tiny() -> Given {
    usual().max_half_open(1).max_flows(1)
}

fn full(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let elsewhere = flow.of(SocketAddr::new(scene.client.ip(), 20000));
    let other = flow.of(scene.other_client);
    vec![
        Case::of(
            scene,
            "a handshake too many takes the place of the oldest, whose client gets no RST for it",
        )
        .given(tiny())
        .opening(flow)
        .packet(elsewhere.syn())
        .expect(forwarded_to(scene.primary).opening().forgetting_the_handshake())
        .packet(flow.request())
        .expect(dropped(Reason::NoFlow))
        .packet(elsewhere.syn_ack())
        .expect(returned_to(elsewhere.client))
        .packet(elsewhere.request())
        .expect(forwarded_to(scene.primary).establishing())
        .opening(flow),
        Case::of(scene, "a handshake too many is refused where none can make room, and flows don't suffer")
            .handshake(flow)
            .then(Change::Crowd)
            .packet(elsewhere.syn())
            .expect(dropped(Reason::HalfOpenFull))
            .packet(flow.request().payload(b"goes on"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"both ways"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "what another CPU is at for too long is left to the sender, who tries again")
            .then(Change::Locks(true))
            .packet(flow.syn())
            .expect(dropped(Reason::Contended))
            .then(Change::Locks(false))
            .opening(flow)
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .then(Change::Locks(true))
            .packet(flow.request())
            .expect(dropped(Reason::Contended))
            .then(Change::Locks(false))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
        Case::of(scene, "a refused connection makes room for another handshake")
            .given(tiny())
            .opening(flow)
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .opening(other),
        Case::of(scene, "more flows than max_flows are refused, and old ones don't suffer")
            .given(tiny())
            .handshake(flow)
            .opening(elsewhere)
            .packet(elsewhere.syn_ack())
            .expect(returned_to(elsewhere.client))
            .packet(elsewhere.request())
            .expect(dropped(Reason::FlowTableFull))
            .packet(flow.request().payload(b"goes on"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"both ways"))
            .expect(returned_to(scene.client)),
    ]
}

#[test]
fn full_tables() {
    run_all("limits", &cases()).unwrap();
}
