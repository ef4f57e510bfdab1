//! The other half of the iron rule: what is not for a service passes, byte-identical and uncounted. Tagged frames pass
//! too, and are counted: who expected them to be balanced finds out why they aren't.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Scene, icmp, passed, passed_for, run_all, tcp, usual};
use balancer_tests::packet::{Extension, MORE_FRAGMENTS, PROVIDER_VLAN, Packet, VLAN, flags};

use super::{everywhere, in_all_ipv4, in_all_ipv6};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(other_destinations),
        everywhere(other_protocols),
        everywhere(other_frames),
        everywhere(tagged),
        in_all_ipv4(fragments_of_others),
        in_all_ipv4(other_ipv4),
        in_all_ipv6(other_ipv6),
        in_all_ipv6(without_ipv6_services),
    ]
    .concat()
}

fn passes(scene: &'static Scene, claim: &str, packet: Packet) -> Case {
    Case::of(scene, claim).packet(packet).expect(passed())
}

/// Another host, behind the gateway or not.
fn elsewhere(scene: &Scene) -> SocketAddr {
    SocketAddr::new(scene.stranger(), 443)
}

fn other_port(scene: &Scene) -> SocketAddr {
    SocketAddr::new(scene.vip(), 22)
}

fn other_destinations(scene: &'static Scene) -> Vec<Case> {
    let from_client = |to| tcp(scene.client, to);
    let to_port = || from_client(other_port(scene));
    let to_host = || from_client(elsewhere(scene));
    vec![
        passes(scene, "another port of the VIP is the kernel's", to_port().syn()),
        passes(scene, "mid-stream to another port of the VIP is the kernel's", to_port().ack()),
        passes(scene, "scans of other ports are the kernel's", to_port().flags(flags::SYN | flags::FIN)),
        passes(scene, "another host's port 443 is its own", to_host().syn()),
        passes(scene, "a TTL of 1 to another host is the kernel's to answer", to_host().syn().ttl(1)),
        passes(
            scene,
            "a spoofed source to another host is the kernel's to judge",
            tcp(scene.web.listen, elsewhere(scene)).syn(),
        ),
        passes(
            scene,
            "an impossible length to another host passes",
            to_host().syn().with(|packet| packet.header_words = Some(15)),
        ),
        passes(
            scene,
            "what a service's own address sends elsewhere passes",
            tcp(scene.web.listen, elsewhere(scene)).ack(),
        ),
        passes(
            scene,
            "what a client sends straight to a backend passes",
            tcp(scene.client, scene.flow().backend()).syn(),
        ),
    ]
}

fn fragments_of_others(scene: &'static Scene) -> Vec<Case> {
    let fragment = |to, protocol, word| {
        tcp(scene.client, to).syn().with(|packet| {
            packet.ip.fragment = word;
            packet.ip.protocol = protocol;
        })
    };
    vec![
        passes(scene, "a fragment to another host passes", fragment(elsewhere(scene), None, MORE_FRAGMENTS)),
        passes(scene, "a first fragment of UDP passes", fragment(scene.web.listen, Some(17), MORE_FRAGMENTS)),
        passes(scene, "a later fragment of UDP passes", fragment(scene.web.listen, Some(17), 9)),
    ]
}

fn other_protocols(scene: &'static Scene) -> Vec<Case> {
    [
        (17, "UDP"),
        (4, "IPv4 in IP"),
        (41, "IPv6 in IP"),
        (47, "GRE"),
        (50, "ESP"),
        (132, "SCTP"),
        (59, "nothing"),
        (253, "an experiment"),
    ]
    .into_iter()
    .map(|(number, name)| {
        let packet = scene.flow().syn().with(|packet| packet.ip.protocol = Some(number));
        passes(scene, &format!("{name} to the VIP passes"), packet)
    })
    .collect()
}

fn other_frames(scene: &'static Scene) -> Vec<Case> {
    let syn = |change: fn(&mut Packet)| scene.flow().syn().with(change);
    let with_type = |claim: &str, ether_type| {
        let packet = scene.flow().syn().with(|packet| packet.ethernet.ether_type = Some(ether_type));
        passes(scene, claim, packet)
    };
    let other_family = if scene.is_ipv4() { 0x86dd } else { 0x0800 };
    vec![
        with_type("ARP passes", 0x0806),
        with_type("what says it is of the other family passes", other_family),
        with_type("a length instead of a type passes", 0x0026),
        with_type("MPLS passes", 0x8847),
        passes(scene, "a broadcast frame passes", syn(|packet| packet.ethernet.destination = [0xff; 6])),
        passes(
            scene,
            "a multicast frame passes",
            syn(|packet| packet.ethernet.destination = [1, 0, 0x5e, 0, 0, 1]),
        ),
        passes(scene, "another version passes", syn(|packet| packet.ip.wrong.version = Some(5))),
        passes(scene, "a frame of its header alone passes", syn(|packet| packet.ethernet.cut_to = Some(14))),
        passes(
            scene,
            "a frame that ends in the IP header passes",
            syn(|packet| packet.ethernet.cut_to = Some(14 + 19)),
        ),
    ]
}

fn tagged(scene: &'static Scene) -> Vec<Case> {
    let with_tags = |claim: &str, packet: Packet, tags: &[(u16, u16)]| {
        Case::of(scene, claim)
            .packet(packet.with(|packet| packet.ethernet.tags = tags.to_vec()))
            .expect(passed_for(Reason::Tagged))
    };
    let flow = scene.flow();
    vec![
        with_tags("a tagged SYN passes", flow.syn(), &[(VLAN, 100)]),
        with_tags("a SYN with a priority tag passes", flow.syn(), &[(VLAN, 0xe000)]),
        with_tags("a SYN with a provider's tag passes", flow.syn(), &[(PROVIDER_VLAN, 100)]),
        with_tags("a twice tagged SYN passes", flow.syn(), &[(PROVIDER_VLAN, 7), (VLAN, 100)]),
        with_tags("a tagged answer of a backend passes", flow.response(), &[(VLAN, 100)]),
    ]
}

fn other_ipv4(scene: &'static Scene) -> Vec<Case> {
    let frame = |content: &[u8]| [&[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 2, 1, 8, 0][..], content].concat();
    vec![
        Case::of(scene, "IPv4 of no content passes").frame(frame(&[0; 46])).expect(passed()),
        Case::of(scene, "IPv4 without a header passes").frame(frame(&[])).expect(passed()),
    ]
}

/// Failure class 8: who has no IPv6 services has nothing to fear for his IPv6.
fn without_ipv6_services(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let passes = |claim: &str, packet: Packet| {
        Case::of(scene, claim).given(usual().without_ipv6()).packet(packet).expect(passed())
    };
    vec![
        passes("without IPv6 services a SYN passes", flow.syn()),
        passes("without IPv6 services an answer of a host passes", flow.syn_ack()),
        passes(
            "without IPv6 services any extension headers pass",
            flow.syn().with(|packet| packet.ip.extensions = vec![Extension::routing(1); 9]),
        ),
        Case::of(scene, "without IPv6 services errors pass")
            .given(usual().without_ipv6())
            .icmp(icmp(scene.stranger(), scene.vip(), 1, 1).about(&flow.response_behind()))
            .expect(passed()),
    ]
}

fn other_ipv6(scene: &'static Scene) -> Vec<Case> {
    let frame = |content: &[u8]| [&[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 2, 1, 0x86, 0xdd][..], content].concat();
    vec![
        Case::of(scene, "IPv6 of no content passes").frame(frame(&[0; 46])).expect(passed()),
        Case::of(scene, "IPv6 without a header passes").frame(frame(&[])).expect(passed()),
    ]
}

#[test]
fn others_traffic() {
    run_all("untouched", &cases()).unwrap();
}
