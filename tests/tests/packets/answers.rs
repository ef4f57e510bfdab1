//! What the gateway says about packets that it can't forward (failure classes 10 and 11), to the byte; and how often.

use anyhow::{Result, ensure};
use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Action, Case, Counter, Gateway, SNAT4, SNAT6, Scene, Side, answered, dropped, forwarded_to, on_a_gateway,
    returned_to, run_all, tcp, usual,
};
use balancer_tests::packet::{Extension, Packet};

use super::{everywhere, in_all_ipv4, in_all_ipv6};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(hops_used_up),
        everywhere(quotes),
        everywhere(too_big),
        in_all_ipv4(of_ipv4),
        in_all_ipv6(of_ipv6),
    ]
    .concat()
}

fn hops_used_up(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let expired = || answered(Reason::TtlExpired);
    vec![
        Case::of(scene, "a SYN with its last hop used up opens nothing")
            .packet(flow.syn().ttl(1))
            .expect(expired()),
        Case::of(scene, "a SYN without any hop left opens nothing")
            .packet(flow.syn().ttl(0))
            .expect(expired()),
        Case::of(scene, "a client learns that its segment's hops are used up, and its flow goes on")
            .handshake(flow)
            .packet(flow.request().payload(b"question").ttl(1))
            .expect(expired())
            .packet(flow.request().payload(b"question").ttl(0))
            .expect(expired())
            .packet(flow.request().payload(b"question").ttl(2))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "a backend learns that its segment's hops are used up, and its flow goes on")
            .handshake(flow)
            .packet(flow.response().payload(b"answer").ttl(1))
            .expect(expired())
            .packet(flow.response().payload(b"answer").ttl(0))
            .expect(expired())
            .packet(flow.response().payload(b"answer").ttl(2))
            .expect(returned_to(scene.client)),
        Case::of(scene, "hops that are used up end no flow, whatever the segment says")
            .handshake(flow)
            .packet(flow.request().fin().ttl(1))
            .expect(expired())
            .packet(flow.response().rst().ttl(1))
            .expect(expired())
            .packet(flow.request().payload(b"alive"))
            .expect(forwarded_to(scene.primary)),
    ]
}

/// The packet's hops are used up, so it comes back in an answer.
fn quoted(scene: &'static Scene, claim: &str, packet: Packet) -> Case {
    Case::of(scene, claim).handshake(scene.flow()).packet(packet.ttl(1)).expect(answered(Reason::TtlExpired))
}

fn quotes(scene: &'static Scene) -> Vec<Case> {
    let request = || scene.flow().request();
    let of_length = |bytes: usize| {
        let headers = request().ip_length();
        request().payload(&vec![0x5a; bytes - headers])
    };
    vec![
        quoted(scene, "all of a short packet is quoted", of_length(100)),
        quoted(scene, "whole words are quoted", of_length(103)),
        quoted(scene, "as much as may be is quoted", of_length(512)),
        quoted(scene, "no more than may be is quoted", of_length(513)),
        quoted(scene, "of a full packet its beginning is quoted", of_length(1500)),
        quoted(
            scene,
            "the frame's padding isn't quoted",
            request().with(|packet| packet.ethernet.padding = vec![0xee; 6]),
        ),
        quoted(
            scene,
            "a packet is quoted as it came",
            request().with(|packet| {
                packet.ip.tos = 0xb9;
                packet.ip.id = 7;
                packet.ip.flow_label = 0xf_ffff;
                packet.options = vec![1; 12];
            }),
        ),
    ]
}

/// So much data that the packet has this many bytes.
fn filled(packet: Packet, bytes: usize) -> Packet {
    let headers = packet.ip_length();
    packet.payload(&vec![1; bytes - headers])
}

fn too_big(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        Case::of(scene, "a client learns the MTU of the way to the backend")
            .given(usual().lan_mtu(1400))
            .handshake(flow)
            .packet(filled(flow.request(), 1401))
            .expect(answered(Reason::TooBig))
            .packet(filled(flow.request(), 1400))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "a backend learns the MTU of the way to the client")
            .given(usual().wan_mtu(1280))
            .handshake(flow)
            .packet(filled(flow.response(), 1281))
            .expect(answered(Reason::TooBig))
            .packet(filled(flow.response(), 1280))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a SYN that is too big opens nothing")
            .packet(filled(flow.syn(), 1501))
            .expect(answered(Reason::TooBig)),
    ]
}

fn of_ipv4(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let may_be_fragmented = |packet: Packet| packet.with(|packet| packet.ip.fragment = 0);
    vec![
        Case::of(scene, "who allows fragments isn't told that a packet is too big")
            .given(usual().lan_mtu(1400))
            .packet(may_be_fragmented(filled(flow.syn(), 1401)))
            .expect(dropped(Reason::TooBig))
            .handshake(flow)
            .packet(may_be_fragmented(filled(flow.request(), 1401)))
            .expect(dropped(Reason::TooBig)),
        quoted(
            scene,
            "IP options are quoted",
            flow.request().with(|packet| packet.ip.options = [148, 4, 0, 0].repeat(10)),
        ),
        Case::of(scene, "a segment of no flow with IP options is answered without them")
            .packet(
                tcp(scene.client, flow.listen()).ack().acks(7).with(|packet| packet.ip.options = vec![1; 40]),
            )
            .expect(answered(Reason::NoFlow)),
    ]
}

fn of_ipv6(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let extended = |packet: Packet| {
        packet.with(|packet| {
            packet.ip.extensions = vec![Extension::hop_by_hop(1), Extension::destination_options(3)];
        })
    };
    vec![
        quoted(scene, "extension headers are quoted", extended(flow.request()).payload(b"question")),
        Case::of(scene, "a segment of no flow with extension headers is answered without them")
            .packet(extended(tcp(scene.client, flow.listen()).ack().acks(7)))
            .expect(answered(Reason::NoFlow)),
    ]
}

/// Sends the same packet until the answers stop, and tells how many there were.
fn answers_until_they_stop(program: &mut Gateway, packet: &Packet, reason: Reason) -> Result<u64> {
    const ENOUGH: u64 = 100_000;
    let before = program.counters()?;
    let mut answers = 0;
    while program.run(Side::of(packet.ethernet.source), &packet.to_frame())?.action == Action::Redirect {
        answers += 1;
        ensure!(answers < ENOUGH, "{answers} answers, and no end");
    }
    let after = program.counters()?;
    let counted = |counter| after.count(counter, reason) - before.count(counter, reason);
    ensure!(counted(Counter::Answers) == answers, "{answers} answers, counted {}", counted(Counter::Answers));
    ensure!(counted(Counter::Drops) == 1, "one drop, counted {}", counted(Counter::Drops));
    Ok(answers)
}

/// Failure class 32: whoever sends us packets can't make us a source of more than so many.
fn answers_are_limited(label: &str, scene: &'static Scene) -> Result<()> {
    let flow = scene.flow();
    on_a_gateway(label, || {
        let mut program = Gateway::told(&usual())?;
        for (packet, reason) in [
            (flow.request(), Reason::NoFlow),
            (flow.syn().ttl(1), Reason::TtlExpired),
            (filled(flow.syn(), 1501), Reason::TooBig),
        ] {
            answers_until_they_stop(&mut program, &packet, reason)?;
        }
        program.reject(scene);
        answers_until_they_stop(&mut program, &flow.syn(), Reason::AllDown)?;
        program.activate(scene.primary)?;
        // Traffic isn't.
        let syn = program.run(Side::Wan, &flow.syn().to_frame())?;
        ensure!(syn.action == Action::Redirect, "{:?}", syn.action);
        Ok(())
    })
}

#[test]
fn answers_over_ipv4_are_limited_and_counted() {
    answers_are_limited("limit4", &SNAT4).unwrap();
}

#[test]
fn answers_over_ipv6_are_limited_and_counted() {
    answers_are_limited("limit6", &SNAT6).unwrap();
}

#[test]
fn the_gateways_own_answers() {
    run_all("answers", &cases()).unwrap();
}
