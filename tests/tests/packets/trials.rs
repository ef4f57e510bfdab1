//! One connection tries a backend of which nobody knows whether it is up again; and an active backend to which there is no
//! way.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Case, Change, Scene, answered, dropped, forwarded_to, returned_to, run_all, usual,
};
use balancer_user::dataplane::slots::Retry;

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    [everywhere(trials), everywhere(no_way)].concat()
}

fn on_trial(scene: &'static Scene, claim: &str) -> Case {
    Case::of(scene, claim).given(usual().retry(Retry::Instant)).then(Change::Trial(scene.backup))
}

fn trials(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let other = flow.of(scene.other_client);
    let [first, next] = [flow.on(scene.backup), other];
    let refused = |by, syn: &balancer_tests::packet::Packet| {
        // What tells packets of one sender apart is kept of none.
        let kept = syn.clone().with(|packet| (packet.ip.id, packet.ip.flow_label) = (0, 0));
        forwarded_to(by).instead(kept).forgetting_the_handshake().opening()
    };
    vec![
        on_trial(scene, "one connection tries the backend on trial, and the next goes to the active one")
            .handshake(first)
            .handshake(next),
        on_trial(scene, "a connection that the backend on trial refuses goes on to the active one")
            .opening(first)
            .packet(first.refusal())
            .expect(refused(scene.primary, &flow.syn()).seen_as(flow.peer))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        on_trial(scene, "while new connections are refused one may try, and no other")
            .then(Change::Reject(scene))
            .opening(first)
            .packet(next.syn())
            .expect(answered(Reason::AllDown)),
        on_trial(scene, "a backend on trial is not tried without a way to it")
            .then(Change::LoseWay(scene.backup))
            .opening(flow),
        on_trial(scene, "while connections are held nobody tries")
            .then(Change::Hold(scene))
            .packet(flow.syn())
            .expect(dropped(Reason::Held).opening()),
    ]
}

fn no_way(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let lost = |retry, claim| {
        Case::of(scene, claim).given(usual().retry(retry)).then(Change::LoseWay(scene.primary))
    };
    let dropped = |case: Case| case.packet(flow.syn()).expect(dropped(Reason::NoNextHop));
    vec![
        lost(Retry::Instant, "without a way to the active backend a new flow goes on to the next one")
            .opening(flow.on(scene.backup)),
        lost(Retry::Repeated, "without a way to the active backend a new flow goes on (retransmit)")
            .opening(flow.on(scene.backup)),
        dropped(lost(Retry::Off, "without a way to the active backend there is no new flow")),
        dropped(lost(Retry::Held, "without a way to the active backend a pool with hooks waits for them")),
    ]
}

#[test]
fn trials_and_ways_that_are_lost() {
    run_all("trials", &cases()).unwrap();
}
