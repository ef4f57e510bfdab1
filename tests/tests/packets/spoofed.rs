//! Sources that no client can have (failure class 25): their SYNs open nothing, and nothing they send is answered.

use std::net::{IpAddr, SocketAddr};

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    Case, Forwarding, MAIL, Member, ROUTER_MAC, Scene, WAN_MAC, WIDE4, WIDE6, dropped, run_all, tcp,
};
use balancer_tests::packet::Packet;

use super::{everywhere, in_all, in_all_ipv4, in_all_ipv6};

pub(super) fn cases() -> Vec<Case> {
    [
        in_all_ipv4(no_clients_of_ipv4),
        in_all_ipv6(no_clients_of_ipv6),
        everywhere(our_own),
        in_all(Forwarding::Dnat, backends_in_dnat),
        in_all(Forwarding::Snat, backends_in_snat),
    ]
    .concat()
}

fn spoofed(scene: &'static Scene, claim: &str, source: SocketAddr) -> Case {
    let segment = || tcp(source, scene.web.listen);
    Case::of(scene, claim)
        .packet(from_wan(segment().syn()))
        .expect(dropped(Reason::SpoofedSource))
        .packet(from_wan(segment().ack()))
        .expect(dropped(Reason::SpoofedSource))
        .packet(from_wan(segment().fin()))
        .expect(dropped(Reason::SpoofedSource))
}

/// Whoever it claims to be from, it came from the router.
fn from_wan(packet: Packet) -> Packet {
    packet.with(|packet| {
        packet.ethernet.source = ROUTER_MAC;
        packet.ethernet.destination = WAN_MAC;
    })
}

fn no_client_is(scene: &'static Scene, source: &str) -> Case {
    let source: IpAddr = source.parse().expect("an address");
    spoofed(scene, &format!("no client is {source}"), SocketAddr::new(source, 30000))
}

fn no_clients_of_ipv4(scene: &'static Scene) -> Vec<Case> {
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ]
    .into_iter()
    .map(|source| no_client_is(scene, source))
    .collect()
}

fn no_clients_of_ipv6(scene: &'static Scene) -> Vec<Case> {
    ["::", "::1", "ff02::1", "ff0e::7", "::ffff:198.51.100.7"]
        .into_iter()
        .map(|source| no_client_is(scene, source))
        .collect()
}

fn our_own(scene: &'static Scene) -> Vec<Case> {
    let wide = if scene.is_ipv4() { &WIDE4 } else { &WIDE6 };
    let other_vip = if scene.is_ipv4() { MAIL.vip() } else { WIDE6.vip() };
    vec![
        spoofed(scene, "nobody is both ends of a connection", scene.web.listen),
        spoofed(scene, "a VIP is no client", SocketAddr::new(scene.vip(), 30000)),
        spoofed(scene, "another pool's VIP is no client", SocketAddr::new(other_vip, 30000)),
        spoofed(scene, "a SNAT address is no client", SocketAddr::new(wide.snat_addresses[1], 30000)),
        spoofed(
            scene,
            "the gateway's own address towards the backends is no client",
            SocketAddr::new(scene.gateway, 30000),
        ),
    ]
}

fn backends_in_dnat(scene: &'static Scene) -> Vec<Case> {
    let through_its_own_way = |claim, member: Member| {
        Case::of(scene, claim)
            .packet(scene.flow().of(member.at(30000)).syn())
            .expect(dropped(Reason::SpoofedSource))
    };
    vec![
        through_its_own_way("in dnat no backend is a client: its answer would not come by", scene.backup),
        through_its_own_way("in dnat no backend is its own client", scene.primary),
        spoofed(scene, "in dnat nobody else is a backend either", scene.backup.at(30000)),
    ]
}

fn backends_in_snat(scene: &'static Scene) -> Vec<Case> {
    vec![
        spoofed(scene, "a backend doesn't come in through the clients' interface", scene.backup.at(30000)),
        spoofed(scene, "nor does the active one", scene.primary.at(30000)),
    ]
}

#[test]
fn spoofed_sources() {
    run_all("spoofed", &cases()).unwrap();
}
