//! How a flow ends, and when its client may begin another with the same port.

use std::time::Duration;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    BACKEND_NEXT, CLIENT_NEXT, Case, Change, Scene, answered, forwarded_to, returned_to, run_all,
};
use balancer_tests::packet::Packet;

use super::everywhere;

/// A flow to the primary, in a pool that has moved to the backup since: where the next SYN goes shows what is known.
fn a_flow(scene: &'static Scene, claim: &str) -> Case {
    Case::of(scene, claim).handshake(scene.flow()).then(Change::Activate(scene.backup))
}

/// Both sides have sent FIN, and both are acknowledged.
fn a_closed_flow(scene: &'static Scene, claim: &str) -> Case {
    a_flow(scene, claim)
        .packet(scene.flow().request().fin())
        .expect(forwarded_to(scene.primary))
        .packet(backends_fin(scene))
        .expect(returned_to(scene.client))
        .packet(last_ack(scene))
        .expect(forwarded_to(scene.primary))
}

fn backends_fin(scene: &'static Scene) -> Packet {
    scene.flow().response().fin().acks(CLIENT_NEXT.wrapping_add(1))
}

fn last_ack(scene: &'static Scene) -> Packet {
    scene.flow().request().seq(CLIENT_NEXT.wrapping_add(1)).acks(BACKEND_NEXT.wrapping_add(1))
}

pub(super) fn cases() -> Vec<Case> {
    [everywhere(over), everywhere(alive), everywhere(unbelieved)].concat()
}

fn over(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let selects_anew = |case: Case| {
        case.packet(flow.another_syn()).expect(forwarded_to(scene.backup).forgetting_the_flow().opening())
    };
    vec![
        selects_anew(a_closed_flow(scene, "a SYN after FIN both ways selects anew")),
        selects_anew(
            a_flow(scene, "a SYN after the client's RST selects anew")
                .packet(flow.request().rst())
                .expect(forwarded_to(scene.primary)),
        ),
        selects_anew(
            a_flow(scene, "a SYN after the backend's RST selects anew")
                .packet(flow.response().rst_ack())
                .expect(returned_to(scene.client)),
        ),
        selects_anew(
            a_flow(scene, "a SYN after more than three silent seconds selects anew")
                .then(Change::Silence(Duration::from_millis(3500))),
        ),
        selects_anew(
            a_flow(scene, "SYNs that are repeated meanwhile are no sign of life")
                .then(Change::Silence(Duration::from_millis(2000)))
                .packet(flow.another_syn())
                .expect(forwarded_to(scene.primary))
                .then(Change::Silence(Duration::from_millis(2000))),
        ),
        a_closed_flow(scene, "retransmissions of a closed flow still pass")
            .packet(flow.request().fin())
            .expect(forwarded_to(scene.primary))
            .packet(backends_fin(scene))
            .expect(returned_to(scene.client)),
        a_closed_flow(scene, "a SYN that is repeated from before is no new connection")
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary)),
    ]
}

fn stays(scene: &'static Scene, case: Case) -> Case {
    case.packet(scene.flow().another_syn()).expect(forwarded_to(scene.primary))
}

fn alive(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        stays(scene, a_flow(scene, "a forged SYN in a live flow is left to the backend")),
        stays(
            scene,
            a_flow(scene, "less than three silent seconds are no silence")
                .then(Change::Silence(Duration::from_millis(2000))),
        ),
        stays(
            scene,
            a_flow(scene, "a flow that the client has half closed is alive")
                .packet(flow.request().fin())
                .expect(forwarded_to(scene.primary))
                .packet(flow.response().payload(b"the rest"))
                .expect(returned_to(scene.client)),
        ),
        stays(
            scene,
            Case::of(scene, "a blind SYN in a silent flow goes to its backend while that is the active one")
                .handshake(flow)
                .then(Change::Silence(Duration::from_millis(3500))),
        ),
        stays(
            scene,
            a_flow(scene, "a packet of either side breaks the silence")
                .then(Change::Silence(Duration::from_millis(3500)))
                .packet(flow.response())
                .expect(returned_to(scene.client)),
        ),
    ]
}

fn unbelieved(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        stays(
            scene,
            a_flow(scene, "a RST that its receiver challenges ended nothing")
                .packet(flow.response().rst())
                .expect(returned_to(scene.client))
                .packet(flow.request())
                .expect(forwarded_to(scene.primary)),
        ),
        stays(
            scene,
            a_flow(scene, "a blind RST ended nothing")
                .packet(flow.request().rst().seq(CLIENT_NEXT.wrapping_add(0x1_0000)))
                .expect(forwarded_to(scene.primary)),
        ),
        stays(
            scene,
            a_flow(scene, "FINs that nobody acknowledged ended nothing")
                .packet(flow.request().fin())
                .expect(forwarded_to(scene.primary))
                .packet(flow.response().fin())
                .expect(returned_to(scene.client)),
        ),
        stays(
            scene,
            a_flow(scene, "a RST that never arrives ended nothing")
                .packet(flow.request().rst().ttl(1))
                .expect(answered(Reason::TtlExpired)),
        ),
    ]
}

#[test]
fn endings() {
    run_all("closing", &cases()).unwrap();
}
