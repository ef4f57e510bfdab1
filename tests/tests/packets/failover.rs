//! A pool moves to another backend: which packets follow, and which don't.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Change, MAIL, Scene, dropped, forwarded_to, returned_to, run_all};

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    [everywhere(who_follows), everywhere(nobody_there)].concat()
}

fn who_follows(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let backup = flow.on(scene.backup);
    let other = flow.of(scene.other_client).on(scene.backup);
    vec![
        Case::of(scene, "all services of a pool move at once, and no other pool does")
            .then(Change::Activate(scene.backup))
            .opening(backup)
            .opening(backup.to_api())
            .opening(MAIL.flow()),
        Case::of(scene, "flows to the old backend go on")
            .handshake(flow)
            .then(Change::Activate(scene.backup))
            .packet(flow.request().payload(b"more"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"and more"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a handshake that the old backend has begun is completed with it")
            .opening(flow)
            .then(Change::Activate(scene.backup))
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
        Case::of(scene, "a client that tries anew gets the new backend")
            .opening(flow)
            .then(Change::Activate(scene.backup))
            .packet(flow.another_syn())
            .expect(forwarded_to(scene.backup).forgetting_the_handshake().opening()),
        Case::of(scene, "there and back again")
            .handshake(flow)
            .then(Change::Activate(scene.backup))
            .handshake(other)
            .then(Change::Activate(scene.primary))
            .opening(flow.to_api())
            .packet(other.request().payload(b"stays"))
            .expect(forwarded_to(scene.backup))
            .packet(flow.request().payload(b"stays too"))
            .expect(forwarded_to(scene.primary)),
    ]
}

fn nobody_there(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let other = flow.of(scene.other_client);
    vec![
        Case::of(scene, "a pool without an active backend opens nothing, and its flows go on")
            .handshake(flow)
            .then(Change::Deactivate(scene))
            .packet(other.syn())
            .expect(dropped(Reason::NoBackend))
            .packet(other.to_api().syn())
            .expect(dropped(Reason::NoBackend))
            .packet(flow.request().payload(b"goes on"))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "a way that is lost stops the flows, and one that is there carries new ones")
            .handshake(flow)
            .then(Change::LoseWay(scene.primary))
            .packet(flow.request())
            .expect(dropped(Reason::NoNextHop))
            .packet(flow.response())
            .expect(returned_to(scene.client))
            .then(Change::Activate(scene.backup))
            .opening(other.on(scene.backup)),
    ]
}

#[test]
fn failovers() {
    run_all("failover", &cases()).unwrap();
}
