//! ICMP that is about no flow: forged errors are dropped (failure class 5), and everything else is the kernel's.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Case, Forwarding, Scene, dropped, forwarded_to, icmp, passed, returned_to, run_all,
};
use balancer_tests::packet::{Extension, Icmp, MORE_FRAGMENTS, Packet};

use super::{everywhere, in_all, in_all_ipv4, in_all_ipv6};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(forged),
        everywhere(other_messages),
        everywhere(unreadable_quotes),
        everywhere(about_others),
        in_all(Forwarding::Snat, about_our_own),
        in_all_ipv4(fragments),
        in_all_ipv6(extended_quotes),
    ]
    .concat()
}

fn unreachable(scene: &Scene) -> u8 {
    if scene.is_ipv4() { 3 } else { 1 }
}

/// To the VIP, about what a service is said to have sent.
fn to_vip(scene: &'static Scene, quoted: &Packet) -> Icmp {
    icmp(scene.stranger(), scene.vip(), unreachable(scene), 1).about(quoted)
}

fn forged(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let other = flow.of(scene.other_client);
    let mut cases = vec![
        Case::of(scene, "an error about a flow that never was is dropped")
            .icmp(to_vip(scene, &flow.response_behind()))
            .expect(dropped(Reason::IcmpNoFlow)),
        Case::of(scene, "an error about another client's flow is dropped, and the client's own goes on")
            .handshake(flow)
            .icmp(to_vip(scene, &other.response_behind()))
            .expect(dropped(Reason::IcmpNoFlow))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "an error about a flow that was refused is dropped")
            .opening(flow)
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .icmp(to_vip(scene, &flow.response_behind()))
            .expect(dropped(Reason::IcmpNoFlow)),
        Case::of(scene, "an error creates no flow")
            .icmp(to_vip(scene, &flow.response_behind()))
            .expect(dropped(Reason::IcmpNoFlow))
            .opening(flow),
    ];
    if scene.forwarding == Forwarding::Snat {
        let error = icmp(scene.primary.address, flow.peer.ip(), unreachable(scene), 1);
        cases.push(
            Case::of(scene, "an error of a backend about a flow that never was is dropped")
                .icmp(error.about(&flow.request_behind()))
                .expect(dropped(Reason::IcmpNoFlow)),
        );
    }
    cases
}

/// What is neither about a flow nor an error.
fn other_messages(scene: &'static Scene) -> Vec<Case> {
    let messages: &[(&str, u8)] = if scene.is_ipv4() {
        &[("echo request", 8), ("echo reply", 0), ("redirect", 5), ("timestamp", 13), ("source quench", 4)]
    } else {
        &[
            ("echo request", 128),
            ("echo reply", 129),
            ("neighbour solicitation", 135),
            ("neighbour advertisement", 136),
            ("router advertisement", 134),
            ("redirect", 137),
        ]
    };
    let quoted = scene.flow().response_behind();
    messages
        .iter()
        .map(|(name, kind)| {
            Case::of(scene, &format!("{name} passes, whatever it carries"))
                .handshake(scene.flow())
                .icmp(icmp(scene.stranger(), scene.vip(), *kind, 0).body(b"any bytes"))
                .expect(passed())
                .icmp(icmp(scene.stranger(), scene.vip(), *kind, 0).about(&quoted))
                .expect(passed())
        })
        .collect()
}

fn unreadable_quotes(scene: &'static Scene) -> Vec<Case> {
    let quoted = scene.flow().response_behind();
    let header = quoted.ip_length() - quoted.tcp_length();
    let of_length = |bytes: usize| {
        icmp(scene.stranger(), scene.vip(), unreachable(scene), 1).body(&quoted.to_packet()[..bytes])
    };
    let passes = |claim: &str, error: Icmp| {
        Case::of(scene, claim).handshake(scene.flow()).icmp(error).expect(passed())
    };
    vec![
        passes("an error without a quote passes", of_length(0)),
        passes("an error whose quote ends in the IP header passes", of_length(header - 1)),
        passes("an error whose quote has no ports passes", of_length(header)),
        passes("an error whose quote ends in the ports passes", of_length(header + 3)),
        passes(
            "an error that quotes UDP passes",
            to_vip(scene, &quoted.clone().with(|packet| packet.ip.protocol = Some(17))),
        ),
    ]
}

fn about_others(scene: &'static Scene) -> Vec<Case> {
    let from_other_port = |port| scene.flow().response_behind().with(|packet| packet.source.set_port(port));
    let elsewhere = scene.flow().response_behind().with(|packet| {
        packet.source = SocketAddr::new(scene.stranger(), 443);
    });
    vec![
        Case::of(scene, "an error about another port of the VIP passes")
            .icmp(to_vip(scene, &from_other_port(22)))
            .expect(passed()),
        Case::of(scene, "an error for another host passes")
            .icmp(icmp(scene.client.ip(), scene.stranger(), unreachable(scene), 1).about(&elsewhere))
            .expect(passed()),
    ]
}

/// The gateway's own connections have ports outside of `snat_ports`.
fn about_our_own(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let own = flow.seen_as_port(40000);
    let error = || icmp(scene.primary.address, flow.peer.ip(), unreachable(scene), 1);
    let elsewhere = flow.request_behind().with(|packet| packet.destination.set_port(22));
    vec![
        Case::of(scene, "an error about the gateway's own connection passes")
            .icmp(error().about(&own.request_behind()))
            .expect(passed()),
        Case::of(scene, "an error about another port of a backend passes")
            .icmp(error().about(&elsewhere))
            .expect(passed()),
    ]
}

fn fragments(scene: &'static Scene) -> Vec<Case> {
    let fragment =
        |word| to_vip(scene, &scene.flow().response_behind()).with(|error| error.ip.fragment = word);
    vec![
        Case::of(scene, "fragments of an error pass")
            .handshake(scene.flow())
            .icmp(fragment(MORE_FRAGMENTS))
            .expect(passed())
            .icmp(fragment(3))
            .expect(passed()),
    ]
}

/// Hosts don't send TCP with extension headers, so nobody has errors about it.
fn extended_quotes(scene: &'static Scene) -> Vec<Case> {
    let quoted = scene
        .flow()
        .response_behind()
        .with(|packet| packet.ip.extensions = vec![Extension::destination_options(1)]);
    vec![
        Case::of(scene, "an error that quotes extension headers is left to the kernel")
            .handshake(scene.flow())
            .icmp(to_vip(scene, &quoted))
            .expect(passed()),
    ]
}

#[test]
fn errors_about_no_flow() {
    run_all("icmpothers", &cases()).unwrap();
}
