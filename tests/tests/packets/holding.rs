//! A pool on hold, whose new connections wait, and one that refuses them.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Case, Change, Flow, Forwarding, MAIL, ROUTER_MAC, Scene, Side, WAN_MAC, answered, dropped, forwarded_to,
    icmp, returned_to, run_all, tcp, usual,
};
use balancer_tests::packet::Checksum;

use super::{everywhere, in_all};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(waiting),
        everywhere(what_is_held_says_nothing),
        everywhere(not_everybody_may_wait),
        everywhere(full),
        everywhere(refusing),
        in_all(Forwarding::Snat, refusing_backends),
    ]
    .concat()
}

/// The flow's SYN comes while its pool is on hold.
fn held(case: Case, flow: Flow) -> Case {
    case.packet(flow.syn()).expect(dropped(Reason::Held).opening())
}

/// The flow's SYN, which was held, comes again, and goes to a backend.
fn released(case: Case, flow: Flow) -> Case {
    case.packet(flow.syn())
        .expect(forwarded_to(flow.member).seen_as(flow.peer).forgetting_the_handshake().opening())
}

fn on_hold(scene: &'static Scene, claim: &str) -> Case {
    Case::of(scene, claim).then(Change::Hold(scene))
}

fn waiting(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let backup = flow.on(scene.backup);
    let waits = |claim| held(on_hold(scene, claim), flow);
    vec![
        released(
            waits("a SYN waits while its pool is on hold, and goes to the backend that comes then")
                .then(Change::Activate(scene.backup)),
            backup,
        )
        .packet(backup.syn_ack())
        .expect(returned_to(scene.client))
        .packet(backup.request())
        .expect(forwarded_to(scene.backup).establishing()),
        released(
            waits("a SYN that is repeated on hold waits once")
                .packet(flow.syn())
                .expect(dropped(Reason::Held))
                .packet(flow.syn().with(|packet| packet.options = vec![2, 4, 5, 0xb4]))
                .expect(dropped(Reason::Held))
                .then(Change::Activate(scene.primary)),
            flow,
        ),
        waits("a client that tries anew on hold waits for its new connection")
            .packet(flow.another_syn())
            .expect(dropped(Reason::Held))
            .then(Change::Activate(scene.primary))
            .packet(flow.another_syn())
            .expect(forwarded_to(scene.primary).forgetting_the_handshake().opening()),
        held(waits("all services of a pool wait, and no other pool's do"), flow.to_api())
            .opening(MAIL.flow()),
        Case::of(scene, "flows go on while their pool is on hold")
            .handshake(flow)
            .then(Change::Hold(scene))
            .packet(flow.request().payload(b"more"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"and more"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a handshake that a backend has begun is completed with it on hold")
            .opening(flow)
            .then(Change::Hold(scene))
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
        waits("what waited is refused when its pool refuses new connections")
            .then(Change::Reject(scene))
            .packet(flow.syn())
            .expect(answered(Reason::AllDown).forgetting_the_handshake()),
        waits("what waited is dropped when its pool has nobody")
            .then(Change::Deactivate(scene))
            .packet(flow.syn())
            .expect(dropped(Reason::NoBackend).forgetting_the_handshake()),
    ]
}

fn what_is_held_says_nothing(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let about = icmp(scene.stranger(), scene.vip(), if scene.is_ipv4() { 3 } else { 1 }, 1)
        .about(&flow.response_behind());
    vec![
        held(on_hold(scene, "a connection that waits has nothing but its SYN"), flow)
            .packet(flow.request())
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.request().fin())
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.request().rst())
            .expect(dropped(Reason::BadHandshake))
            .icmp(about)
            .expect(dropped(Reason::IcmpNoFlow))
            .packet(flow.syn())
            .expect(dropped(Reason::Held)),
    ]
}

fn not_everybody_may_wait(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let spoofed = tcp(SocketAddr::new(scene.vip(), 30000), flow.listen()).syn().with(|packet| {
        packet.ethernet.source = ROUTER_MAC;
        packet.ethernet.destination = WAN_MAC;
    });
    vec![
        on_hold(scene, "a SYN that opens nothing waits for nothing")
            .packet(spoofed)
            .expect(dropped(Reason::SpoofedSource))
            .packet(flow.syn().checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum))
            .packet(flow.syn().ttl(1))
            .expect(answered(Reason::TtlExpired)),
        on_hold(scene, "a SYN without a way back waits for nothing")
            .given(usual().unknown_interface(Side::Wan))
            .packet(flow.syn())
            .expect(dropped(Reason::NoNextHop)),
    ]
}

fn full(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let elsewhere = flow.of(SocketAddr::new(scene.client.ip(), 20000));
    let full = usual().max_half_open(1);
    vec![
        released(
            held(on_hold(scene, "a SYN too many takes the place of the one that waits").given(full), flow)
                .packet(elsewhere.syn())
                .expect(dropped(Reason::Held))
                .then(Change::Activate(scene.primary)),
            elsewhere,
        ),
        on_hold(scene, "a SYN waits for nothing where handshakes are too many, and none makes room")
            .then(Change::Crowd)
            .packet(flow.syn())
            .expect(dropped(Reason::HalfOpenFull)),
        held(
            on_hold(scene, "a SYN that another CPU is at for too long waits when it comes again")
                .then(Change::Locks(true))
                .packet(flow.syn())
                .expect(dropped(Reason::Contended))
                .then(Change::Locks(false)),
            flow,
        ),
    ]
}

fn refusing(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let refuses = |claim| Case::of(scene, claim).then(Change::Reject(scene));
    vec![
        refuses("a pool that refuses new connections tells their clients, and no other pool does")
            .packet(flow.syn())
            .expect(answered(Reason::AllDown))
            .packet(flow.to_api().syn().with(|packet| packet.options = vec![1; 40]))
            .expect(answered(Reason::AllDown))
            .packet(flow.syn().payload(b"fast open").seq(u32::MAX))
            .expect(answered(Reason::AllDown))
            .opening(MAIL.flow())
            .then(Change::Activate(scene.backup))
            .opening(flow.on(scene.backup)),
        Case::of(scene, "flows go on while their pool refuses new ones")
            .handshake(flow)
            .then(Change::Reject(scene))
            .packet(flow.request().payload(b"more"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"and more"))
            .expect(returned_to(scene.client)),
        refuses("who can't be told isn't")
            .given(usual().unknown_interface(Side::Wan))
            .packet(flow.syn())
            .expect(dropped(Reason::AllDown)),
        refuses("a SYN that opens nothing is refused nothing")
            .packet(flow.syn().checksum(Checksum::Partial))
            .expect(dropped(Reason::PartialChecksum)),
    ]
}

/// A backend is a client like any other through its own interface.
fn refusing_backends(scene: &'static Scene) -> Vec<Case> {
    let own = SocketAddr::new(scene.backup.address, 30000);
    vec![
        Case::of(scene, "a backend that is a client is refused as others are")
            .then(Change::Reject(scene))
            .packet(tcp(own, scene.web.listen).syn())
            .expect(answered(Reason::AllDown)),
    ]
}

#[test]
fn a_pool_on_hold_and_one_that_refuses() {
    run_all("holding", &cases()).unwrap();
}
