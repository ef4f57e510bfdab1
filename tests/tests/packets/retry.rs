//! A SYN that its backend does not take goes on to the next one, whole and as its client sent it; and what only looks as if a
//! backend did not take one changes nothing.

mod unreachable;

use std::net::SocketAddr;
use std::time::Duration;

use balancer_common::abi::Signals;
use balancer_common::verdict::Reason;
use balancer_tests::case::{
    CLIENT_ISN, CLIENT_NEXT, Case, Change, Expect, Flow, Forwarding, Given, Scene, answered, dropped,
    forwarded_to, passed, returned_to, run_all, usual,
};
use balancer_tests::packet::{Packet, flags};
use balancer_user::dataplane::slots::Retry;

use super::everywhere;

/// Later than `connect_timeout`, whatever the kernel's tick is, and sooner than a handshake is forgotten.
const LATE: Change = Change::Silence(Duration::from_secs(3));

/// What a backend sees that refuses a SYN which goes on.
const REFUSED: Signals =
    Signals { syns: 1, syn_acks: 0, refused: 1, unreachable: 0, unanswered: 0, retried_refused: 1, ..NONE };
/// What a backend sees that takes a SYN which another has not.
const RESCUED: Signals = Signals { syns: 1, syn_acks: 1, rescued: 1, ..NONE };
const NONE: Signals = Signals {
    syns: 0,
    syn_acks: 0,
    refused: 0,
    unreachable: 0,
    unanswered: 0,
    retried_refused: 0,
    retried_unanswered: 0,
    rescued: 0,
};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(at_once),
        everywhere(of_every_shape),
        everywhere(no_refusals),
        everywhere(with_data),
        everywhere(unreachable::cases),
        everywhere(swallowed),
        everywhere(unanswered),
        everywhere(kept),
        everywhere(not_wanted),
    ]
    .concat()
}

fn retrying(scene: &'static Scene, retry: Retry, claim: &str) -> Case {
    Case::of(scene, claim).given(usual().retry(retry))
}

fn instant(scene: &'static Scene, claim: &str) -> Case {
    retrying(scene, Retry::Instant, claim)
}

/// The frame leaves as this SYN, which it was not when it came in.
fn retried(to: Flow, syn: &Packet) -> Expect {
    moved(to).instead(written_anew(syn))
}

/// What tells packets of one sender apart is kept of none.
fn written_anew(syn: &Packet) -> Packet {
    syn.clone().with(|packet| (packet.ip.id, packet.ip.flow_label) = (0, 0))
}

/// The client's own SYN leaves for this backend instead of the last one.
fn moved(to: Flow) -> Expect {
    forwarded_to(to.member).seen_as(to.peer).forgetting_the_handshake().opening()
}

fn stays(flow: Flow) -> Expect {
    forwarded_to(flow.member).seen_as(flow.peer)
}

/// What becomes of a backend's packet that belongs to no flow. In dnat it is addressed to a client, as any other host's may
/// be, and the kernel's affair.
fn of_no_flow(scene: &Scene, in_snat: Expect) -> Expect {
    match scene.forwarding {
        Forwarding::Snat => in_snat,
        Forwarding::Dnat => passed(),
    }
}

/// The handshake's rest.
fn completed(case: Case, flow: Flow) -> Case {
    case.packet(flow.syn_ack())
        .expect(returned_to(flow.client))
        .packet(flow.request())
        .expect(stays(flow).establishing())
        .packet(flow.response().payload(b"answer"))
        .expect(returned_to(flow.client))
}

fn at_once(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let [backup, spare] = [scene.backup, scene.spare].map(|member| flow.on(member));
    let refused = |case: Case, by: Flow, to: Flow| case.packet(by.refusal()).expect(retried(to, &flow.syn()));
    vec![
        completed(
            refused(
                instant(scene, "a refused SYN goes on to the next backend, in the frame of the refusal")
                    .opening(flow),
                flow,
                backup,
            ),
            backup,
        )
        .signalled(scene.primary, REFUSED)
        .signalled(scene.backup, RESCUED)
        .signalled(scene.spare, NONE),
        refused(
            refused(
                instant(scene, "each backend is tried once, and then the client is told").opening(flow),
                flow,
                backup,
            ),
            backup,
            spare,
        )
        .packet(spare.refusal())
        .expect(returned_to(scene.client).forgetting_the_handshake())
        .signalled(scene.primary, REFUSED)
        .signalled(scene.backup, REFUSED)
        .signalled(scene.spare, Signals { retried_refused: 0, ..REFUSED }),
        completed(
            refused(
                refused(
                    instant(scene, "the third backend may take what two have refused").opening(flow),
                    flow,
                    backup,
                ),
                backup,
                spare,
            ),
            spare,
        )
        .signalled(scene.spare, RESCUED),
        completed(
            refused(
                instant(scene, "a refusal that comes after the pool has moved sends the SYN after it")
                    .opening(flow)
                    .then(Change::Activate(scene.spare)),
                flow,
                spare,
            ),
            spare,
        ),
        instant(scene, "a refusal that comes after the service was taken back goes nowhere")
            .opening(flow)
            .then(Change::Withdraw(scene))
            .packet(flow.refusal())
            .expect(dropped(Reason::NoBackend).instead(written_anew(&flow.syn())).forgetting_the_handshake()),
        instant(scene, "without another backend the client is told at once")
            .given(usual().retry(Retry::Instant).alone())
            .opening(flow)
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .signalled(scene.primary, Signals { retried_refused: 0, ..REFUSED }),
        refused(
            instant(scene, "who is refused a second time, by a backend that was late, is not sent on again")
                .opening(flow),
            flow,
            backup,
        )
        .packet(flow.refusal())
        .expect(of_no_flow(scene, dropped(Reason::NoFlow)))
        .packet(backup.syn_ack())
        .expect(returned_to(scene.client)),
        instant(scene, "other flows and services have no part in it")
            .handshake(flow.to_api())
            .opening(flow)
            .opening(flow.to_api().of(SocketAddr::new(scene.client.ip(), 20001)))
            .packet(flow.refusal())
            .expect(retried(backup, &flow.syn()))
            .packet(flow.to_api().response().payload(b"more"))
            .expect(returned_to(scene.client))
            .opening(flow.of(SocketAddr::new(scene.client.ip(), 20000))),
    ]
}

/// A SYN as no other is, with so many words of options.
fn particular(flow: Flow, words: u8) -> Packet {
    flow.syn().flags(flags::SYN | flags::ECE | flags::CWR).ttl(33).with(|packet| {
        packet.ip.tos = 0xb8;
        packet.window = 0x1234;
        packet.options = (1..=words * 4).collect();
    })
}

/// What is particular about a refusal.
type Shape = fn(&mut Packet);

fn of_every_shape(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let backup = flow.on(scene.backup);
    let shapes: [(&str, Shape); 3] = [
        ("a bare refusal", |_| {}),
        ("a padded refusal", |packet| packet.ethernet.padding = vec![0x5a; 6]),
        ("a refusal with a long excuse", |packet| packet.payload = vec![0x5a; 301]),
    ];
    let case = |words: u8, (shape, change): (&str, Shape)| {
        let syn = particular(flow, words);
        completed(
            instant(scene, &format!("{shape} becomes a SYN with {} bytes of options", words * 4))
                .packet(syn.clone())
                .expect(stays(flow).opening())
                .packet(flow.refusal().with(change))
                .expect(retried(backup, &syn)),
            backup,
        )
    };
    (0..=10).flat_map(|words| shapes.map(|shape| case(words, shape))).collect()
}

/// TCP fast open: what came with the SYN is the client's to send again.
fn with_data(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let syn = particular(flow, 4);
    let refused = flow.refusal().acks(CLIENT_NEXT.wrapping_add(7));
    vec![
        instant(scene, "a refused SYN goes on without the data that came with it")
            .packet(syn.clone().payload(b"request"))
            .expect(forwarded_to(scene.primary).opening())
            .packet(refused.clone())
            .expect(retried(flow.on(scene.backup), &syn)),
        instant(scene, "of a SYN without data nobody acknowledges any")
            .opening(flow)
            .packet(refused)
            .expect(returned_to(scene.client).forgetting_the_handshake()),
    ]
}

fn no_refusals(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let opened = |claim| instant(scene, claim).opening(flow);
    let only_sent = Signals { syns: 1, ..NONE };
    vec![
        completed(
            opened("a RST that acknowledges anything but the SYN refuses nothing")
                .packet(flow.refusal().acks(CLIENT_ISN))
                .expect(dropped(Reason::BadHandshake))
                .packet(flow.refusal().acks(0))
                .expect(dropped(Reason::BadHandshake))
                .packet(flow.refusal().acks(CLIENT_NEXT.wrapping_add(0x7fff_ffff)))
                .expect(dropped(Reason::BadHandshake)),
            flow,
        )
        .signalled(scene.primary, Signals { syn_acks: 1, ..only_sent })
        .signalled(scene.backup, NONE),
        opened("a RST that acknowledges more than the SYN is its client's to judge")
            .packet(flow.refusal().acks(CLIENT_NEXT.wrapping_add(1)))
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .signalled(scene.primary, only_sent),
        completed(
            opened("a RST that acknowledges nothing refuses nothing")
                .packet(flow.refusal().rst().acks(0).seq(0))
                .expect(dropped(Reason::BadHandshake)),
            flow,
        )
        .signalled(scene.primary, Signals { syn_acks: 1, ..only_sent }),
        completed(
            opened("another backend refuses nothing in this one's name")
                .packet(flow.on(scene.backup).refusal())
                .expect(of_no_flow(scene, dropped(Reason::NoFlow))),
            flow,
        )
        .signalled(scene.primary, Signals { syn_acks: 1, ..only_sent })
        .signalled(scene.backup, NONE),
        opened("who has taken a SYN can't refuse it any more, and the client is told")
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .signalled(scene.primary, Signals { syn_acks: 1, ..only_sent })
            .signalled(scene.backup, NONE),
    ]
}

fn swallowed(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let [backup, spare] = [scene.backup, scene.spare].map(|member| flow.on(member));
    let refused = |case: Case, by: Flow, to: Flow| {
        case.packet(by.refusal()).expect(dropped(Reason::Refused)).packet(flow.syn()).expect(moved(to))
    };
    let repeating = |claim| retrying(scene, Retry::Repeated, claim).opening(flow);
    vec![
        completed(
            refused(
                repeating("a refusal is swallowed, and the SYN goes on when it is repeated"),
                flow,
                backup,
            ),
            backup,
        )
        .signalled(scene.primary, REFUSED)
        .signalled(scene.backup, RESCUED),
        refused(refused(repeating("each backend may swallow one repetition"), flow, backup), backup, spare)
            .packet(spare.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake()),
        repeating("what is repeated with another sequence number is another connection")
            .packet(flow.refusal())
            .expect(dropped(Reason::Refused))
            .packet(flow.another_syn())
            .expect(stays(flow).forgetting_the_handshake().opening()),
        retrying(scene, Retry::Instant, "a refusal that has no room for the SYN is swallowed")
            .given(jumbo(Retry::Instant))
            .opening(flow)
            .packet(flow.refusal().payload(&[0x5a; 5000]))
            .expect(dropped(Reason::NoHeadRoom))
            .packet(flow.syn())
            .expect(moved(backup))
            .signalled(scene.primary, REFUSED),
    ]
}

fn jumbo(retry: Retry) -> Given {
    usual().retry(retry).lan_mtu(9000).wan_mtu(9000)
}

fn unanswered(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let backup = flow.on(scene.backup);
    let lost = Signals { syns: 1, unanswered: 1, retried_unanswered: 1, ..NONE };
    let mut cases = Vec::new();
    for retry in [Retry::Instant, Retry::Repeated] {
        let opened = |claim: &str| retrying(scene, retry, &format!("{claim} ({retry:?})")).opening(flow);
        cases.extend([
            completed(
                opened("a SYN that is repeated soon goes to the same backend")
                    .packet(flow.syn())
                    .expect(stays(flow)),
                flow,
            )
            .signalled(scene.primary, Signals { syns: 1, syn_acks: 1, ..NONE }),
            completed(
                opened("a SYN that is repeated late goes on to the next backend, and the first is told when it wakes")
                    .then(LATE)
                    .packet(flow.syn())
                    .expect(moved(backup))
                    .packet(flow.syn_ack())
                    .expect(of_no_flow(scene, answered(Reason::NoFlow)))
                    .packet(flow.syn_ack().with(|packet| packet.ethernet.destination = [2, 0, 0, 0, 0, 0x77]))
                    .expect(of_no_flow(scene, dropped(Reason::StraySynAck))),
                backup,
            )
            .signalled(scene.primary, lost)
            .signalled(scene.backup, RESCUED),
            opened("a SYN that is repeated late stays where it is when nobody else is there")
                .given(usual().retry(retry).alone())
                .then(LATE)
                .packet(flow.syn())
                .expect(stays(flow))
                .signalled(scene.primary, Signals { retried_unanswered: 0, ..lost }),
            opened("a SYN that was answered is not sent on, however late it is repeated")
                .packet(flow.syn_ack())
                .expect(returned_to(scene.client))
                .then(LATE)
                .packet(flow.syn())
                .expect(stays(flow))
                .signalled(scene.primary, Signals { syns: 1, syn_acks: 1, ..NONE }),
        ]);
    }
    cases
}

fn kept(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let held = |claim| retrying(scene, Retry::Held, claim).opening(flow);
    vec![
        completed(
            held("a pool that holds swallows a refusal, and the SYN stays with its backend")
                .packet(flow.refusal())
                .expect(dropped(Reason::Refused))
                .packet(flow.syn())
                .expect(stays(flow)),
            flow,
        )
        .signalled(scene.primary, Signals { syn_acks: 1, retried_refused: 0, ..REFUSED })
        .signalled(scene.backup, NONE),
        held("a pool that holds has nothing to hold for when nobody else is there")
            .given(usual().retry(Retry::Held).alone())
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake()),
        held("a pool that holds sends nothing on, however late it is")
            .then(LATE)
            .packet(flow.syn())
            .expect(stays(flow))
            .signalled(scene.primary, Signals { syns: 1, unanswered: 1, ..NONE }),
    ]
}

fn not_wanted(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        retrying(scene, Retry::Off, "without retry a refusal is its client's, and is told of")
            .opening(flow)
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .signalled(scene.primary, Signals { retried_refused: 0, ..REFUSED })
            .signalled(scene.backup, NONE),
        retrying(scene, Retry::Off, "without retry a SYN goes to the same backend, however late it is")
            .opening(flow)
            .then(LATE)
            .packet(flow.syn())
            .expect(stays(flow))
            .signalled(scene.primary, Signals { syns: 1, unanswered: 1, ..NONE }),
    ]
}

#[test]
fn attempts_that_backends_do_not_take() {
    run_all("retry", &cases()).unwrap();
}
