//! Full tables: who is in goes on, who isn't stays out, and is counted.

use std::net::SocketAddr;
use std::time::Duration;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    BACKEND_NEXT, CLIENT_NEXT, Case, Change, Flow, Given, Scene, dropped, forwarded_to, returned_to, run_all,
    usual,
};

use super::everywhere;

pub(super) fn cases() -> Vec<Case> {
    [everywhere(full), everywhere(room)].concat()
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
        Case::of(scene, "half a flow, which another CPU is making, is none that could make room")
            .given(tiny())
            .opening(flow)
            .then(Change::TearApart)
            .packet(elsewhere.syn())
            .expect(dropped(Reason::HalfOpenFull)),
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

/// What a gateway without a controller lives by: nobody else takes flows out that are over.
fn room(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let elsewhere = flow.of(SocketAddr::new(scene.client.ip(), 20000));
    let begins = |claim: &str| Case::of(scene, claim).given(tiny()).handshake(flow);
    let comes = |case: Case| {
        case.opening(elsewhere).packet(elsewhere.syn_ack()).expect(returned_to(elsewhere.client))
    };
    let has_room = |case: Case| {
        comes(case)
            .packet(elsewhere.request())
            .expect(forwarded_to(scene.primary).establishing().forgetting_the_flow())
    };
    let has_none =
        |case: Case| comes(case).packet(elsewhere.request()).expect(dropped(Reason::FlowTableFull));
    let half_closed = |claim: &str| {
        begins(claim)
            .packet(flow.request().fin())
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().acks(CLIENT_NEXT.wrapping_add(1)))
            .expect(returned_to(scene.client))
    };
    let other = flow.of(SocketAddr::new(scene.other_client.ip(), 31000));
    let both = Case::of(scene, "beside one that only its client has ended, one that is over is found")
        .given(usual().max_half_open(1).max_flows(2))
        .handshake(other)
        .handshake(flow)
        .packet(flow.request().fin())
        .expect(forwarded_to(scene.primary))
        .packet(flow.response().acks(CLIENT_NEXT.wrapping_add(1)))
        .expect(returned_to(scene.client));
    vec![
        has_room(
            closed(flow, both)
                .then(Change::Silence(Duration::from_secs(5)))
                .packet(other.request().fin())
                .expect(forwarded_to(scene.primary))
                .packet(other.response().acks(CLIENT_NEXT.wrapping_add(1)))
                .expect(returned_to(other.client)),
        ),
        has_room(closed(flow, half_closed("where max_flows are there, one that is over makes room"))),
        has_room(
            begins("where max_flows are there, one that was reset a moment ago makes room")
                .packet(flow.response().rst_ack())
                .expect(returned_to(scene.client))
                .then(Change::Silence(Duration::from_secs(2))),
        ),
        has_none(
            begins("one that may have been reset makes no room before that could be challenged")
                .packet(flow.response().rst_ack())
                .expect(returned_to(scene.client)),
        ),
        comes(closed(
            flow,
            half_closed("where room was looked for too often, a new one waits for the next moment"),
        ))
        .then(Change::Exhaust)
        .packet(elsewhere.request())
        .expect(dropped(Reason::FlowTableFull)),
        has_none(half_closed("one that only its client has ended makes no room")),
        has_room(
            half_closed("one that its client ended eleven silent minutes ago makes room")
                .then(Change::Silence(Duration::from_secs(660))),
        ),
        has_none(
            begins("one that nobody has ended makes no room, however silent it is")
                .then(Change::Silence(Duration::from_secs(660))),
        ),
        has_none(
            begins("one with a FIN that nobody acknowledged makes no room")
                .packet(flow.request().fin())
                .expect(forwarded_to(scene.primary))
                .then(Change::Silence(Duration::from_secs(660))),
        ),
    ]
}

/// The backend ends the flow, too.
fn closed(flow: Flow, half: Case) -> Case {
    half.packet(flow.response().fin().acks(CLIENT_NEXT.wrapping_add(1)))
        .expect(returned_to(flow.client))
        .packet(flow.request().seq(CLIENT_NEXT.wrapping_add(1)).acks(BACKEND_NEXT.wrapping_add(1)))
        .expect(forwarded_to(flow.member))
}

#[test]
fn full_tables() {
    run_all("limits", &cases()).unwrap();
}
