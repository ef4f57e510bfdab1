//! Segments of no flow (failure class 31): who sent one learns it by a RST and connects anew, instead of waiting for an
//! answer that can't come. What would answer a RST, or is an answer itself, gets none.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Case, Change, Forwarding, Scene, answered, dropped, forwarded_to, passed, run_all, tcp,
};
use balancer_tests::packet::{Checksum, Mac, Packet, flags};

use super::{everywhere, in_all};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(reset),
        everywhere(not_reset),
        everywhere(after_a_flow),
        everywhere(for_others),
        in_all(Forwarding::Snat, from_backends_in_snat),
        in_all(Forwarding::Snat, backends_own_business_in_snat),
        in_all(Forwarding::Dnat, from_backends_in_dnat),
    ]
    .concat()
}

fn from_client(scene: &'static Scene) -> Packet {
    tcp(scene.client, scene.web.listen).seq(0x0102_0304).acks(0xfedc_ba98)
}

fn reset(scene: &'static Scene) -> Vec<Case> {
    let stray = || from_client(scene).ack();
    let strays = [
        ("an ACK", stray()),
        ("data", stray().payload(b"data")),
        ("a FIN", stray().fin().payload(b"last words")),
        ("a FIN without ACK", from_client(scene).flags(flags::FIN)),
        ("an urgent segment", stray().flags(flags::ACK | flags::PSH | flags::URG)),
        ("a segment that acknowledges nothing", stray().acks(0)),
        ("a segment that acknowledges everything", stray().acks(u32::MAX)),
        ("a segment with options", stray().with(|packet| packet.options = vec![1; 12])),
        ("a padded segment", stray().with(|packet| packet.ethernet.padding = vec![0; 6])),
        ("a segment with DSCP and ECN", stray().with(|packet| packet.ip.tos = 0xb9)),
        ("a segment with a wrong checksum", stray().checksum(Checksum::WrongBy(3))),
        ("a full segment", stray().payload(&[9; 1400])),
    ];
    strays
        .into_iter()
        .map(|(what, packet)| {
            Case::of(scene, &format!("{what} of no flow is answered with a RST"))
                .packet(packet)
                .expect(answered(Reason::NoFlow))
        })
        .collect()
}

fn not_reset(scene: &'static Scene) -> Vec<Case> {
    let strays = [
        ("a RST", from_client(scene).rst(), Reason::NoFlow),
        ("a RST with ACK", from_client(scene).rst_ack(), Reason::NoFlow),
        ("a SYN-ACK", from_client(scene).syn_ack(), Reason::StraySynAck),
    ];
    strays
        .into_iter()
        .map(|(what, packet, reason)| {
            Case::of(scene, &format!("{what} of no flow gets no answer"))
                .packet(packet)
                .expect(dropped(reason))
        })
        .collect()
}

fn after_a_flow(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "a flow to one service is none to another")
            .handshake(flow)
            .packet(flow.to_api().request())
            .expect(answered(Reason::NoFlow)),
        Case::of(scene, "a client's flow is none of another client's")
            .handshake(flow)
            .packet(flow.of(scene.other_client).request())
            .expect(answered(Reason::NoFlow)),
        Case::of(scene, "who got a RST may connect")
            .packet(flow.request())
            .expect(answered(Reason::NoFlow))
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary).opening()),
    ]
}

/// As a switch sends to everybody while it doesn't know where the one it is for is.
fn for_others(scene: &'static Scene) -> Vec<Case> {
    const ANOTHER: Mac = [2, 0, 0, 0, 0, 0x77];
    const VIRTUAL_ROUTERS: [Mac; 2] = [[0, 0, 0x5e, 0, 1, 51], [0, 0, 0x5e, 0, 2, 51]];
    let flow = scene.flow();
    let sent_to = |mac, packet: Packet| packet.with(|packet| packet.ethernet.destination = mac);
    let mut cases = vec![
        Case::of(scene, "what was sent to another host is no flow's, and nobody is told")
            .packet(sent_to(ANOTHER, flow.request()))
            .expect(dropped(Reason::NoFlow))
            .packet(sent_to(ANOTHER, flow.request().fin()))
            .expect(dropped(Reason::NoFlow))
            .packet(sent_to(ANOTHER, flow.request().flags(flags::FIN)))
            .expect(dropped(Reason::NoFlow))
            .packet(sent_to(ANOTHER, flow.syn()))
            .expect(forwarded_to(scene.primary).opening()),
        Case::of(scene, "who asks another host isn't refused by this one")
            .then(Change::Reject(scene))
            .packet(sent_to(ANOTHER, flow.syn()))
            .expect(dropped(Reason::AllDown))
            .packet(flow.syn())
            .expect(answered(Reason::AllDown)),
    ];
    cases.extend(VIRTUAL_ROUTERS.map(|router| {
        Case::of(scene, &format!("what was sent to the virtual router {router:x?} is for this one"))
            .packet(sent_to(router, flow.request()))
            .expect(answered(Reason::NoFlow))
            .packet(sent_to(router, flow.syn()))
            .expect(forwarded_to(scene.primary).opening())
    }));
    cases
}

/// A backend that speaks of a flow that isn't known here.
fn from_backends_in_snat(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "an ACK of a backend for no flow is answered with a RST")
            .packet(flow.response())
            .expect(answered(Reason::NoFlow)),
        Case::of(scene, "data of a backend for no flow is answered with a RST")
            .packet(flow.response().payload(b"lost"))
            .expect(answered(Reason::NoFlow)),
        Case::of(scene, "a FIN of a backend for no flow is answered with a RST")
            .packet(flow.response().fin())
            .expect(answered(Reason::NoFlow)),
        Case::of(scene, "a RST of a backend for no flow gets no answer")
            .packet(flow.response().rst())
            .expect(dropped(Reason::NoFlow)),
        Case::of(scene, "a SYN-ACK of a backend for no flow never reaches the kernel")
            .packet(flow.syn_ack())
            .expect(dropped(Reason::StraySynAck)),
        Case::of(scene, "impossible flags of a backend for no flow are dropped")
            .packet(flow.response().flags(0))
            .expect(dropped(Reason::BadFlags)),
    ]
}

/// The gateway itself connects to backends: it probes them.
fn backends_own_business_in_snat(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let own = flow.seen_as_port(40000);
    let elsewhere = tcp(scene.primary.at(22), flow.peer).ack();
    vec![
        Case::of(scene, "a backend's answer to the gateway's own connection passes")
            .packet(own.syn_ack())
            .expect(passed())
            .packet(own.response().payload(b"certificate"))
            .expect(passed())
            .packet(own.response().rst())
            .expect(passed()),
        Case::of(scene, "what a backend sends from another port than its services' passes")
            .packet(elsewhere)
            .expect(passed()),
        Case::of(scene, "a backend may connect to the gateway from its service's port")
            .packet(tcp(flow.backend(), flow.peer).syn())
            .expect(passed()),
        Case::of(scene, "what another host sends to a SNAT address passes")
            .packet(tcp(scene.client, flow.peer).ack())
            .expect(passed()),
    ]
}

/// Towards clients, and so not for the gateway at all.
fn from_backends_in_dnat(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let strays = [
        ("an ACK", flow.response()),
        ("a SYN-ACK", flow.syn_ack()),
        ("a RST", flow.response().rst()),
        ("NULL", flow.response().flags(0)),
    ];
    strays
        .into_iter()
        .map(|(what, packet)| {
            let claim = format!("{what} of a backend to a client without a flow is any router's business");
            Case::of(scene, &claim).packet(packet).expect(passed())
        })
        .collect()
}

#[test]
fn segments_of_no_flow() {
    run_all("strays", &cases()).unwrap();
}
