//! The two labs: the same cables and addresses, and a different gateway in each.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::{
    scene::{BACKEND_MAC, BACKEND_PORT, CLIENT_MAC, Family, Forwarding, LAN_MAC, Scene, WAN_MAC},
    side::Side,
    wire::Wire,
};
use crate::{
    gateway::{Gateway, binary_under_test},
    lab::{Host, Lab, Topology},
    packet::Mac,
};

/// What the router does so that both gateways can be compared: every segment of a flow is translated, whatever its
/// sequence number and checksum; a flow begins with a SYN; no answer is held back.
const ROUTER: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1"),
    ("net/netfilter/nf_conntrack_checksum", "0"),
    ("net/netfilter/nf_conntrack_tcp_loose", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
];
const ROUTER_V6: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/icmp/ratelimit", "0"),
    // Or what its stack says has any flow label.
    ("net/ipv6/auto_flowlabels", "0"),
];

/// The lab whose gateway runs balancer.
pub(super) fn ours(label: &str, scene: Scene) -> Result<Side> {
    let lab = cabled(label, scene)?;
    let mut balancer = Gateway::new(&lab, &binary_under_test()?, &configuration(scene))?;
    balancer.start(&[])?;
    side("balancer", scene, lab, Some(balancer))
}

/// The lab whose gateway is a Linux router.
pub(super) fn kernels(label: &str, scene: Scene) -> Result<Side> {
    let lab = cabled(label, scene)?;
    let router = lab.gateway();
    // First the rules: they load connection tracking, without which its settings aren't there.
    router.run(["nft", &rules(scene)])?;
    let settings = if scene.family == Family::V6 { ROUTER_V6 } else { &[] };
    for (name, value) in ROUTER.iter().chain(settings) {
        router.set_sysctl(name, value)?;
    }
    side("kernel", scene, lab, None)
}

fn side(name: &'static str, scene: Scene, lab: Lab, balancer: Option<Gateway>) -> Result<Side> {
    let client = Wire::open(lab.client(), "eth0")?;
    let backend = Wire::open(lab.backend(0), "eth0")?;
    Side::new(name, scene, balancer, lab, client, backend)
}

/// A lab with static neighbours, known hardware addresses, and hosts at the ends that are deaf and mute by themselves.
fn cabled(label: &str, scene: Scene) -> Result<Lab> {
    let lab = Lab::new(label, &Topology::two_armed().backends(1))?;
    let (client, gateway, backend) = (lab.client(), lab.gateway(), lab.backend(0));
    // A cable instead of the switch: bridges drop what is wrong with a packet (br_netfilter), and learn.
    ip(gateway, "link delete lan0")?;
    ip(backend, "link delete eth0")?;
    let peer = format!("/run/netns/{}", backend.namespace());
    ip(gateway, &format!("link add lan0 type veth peer name eth0 netns {peer}"))?;
    for (host, interface, mac) in [
        (client, "eth0", CLIENT_MAC),
        (gateway, "wan0", WAN_MAC),
        (gateway, "lan0", LAN_MAC),
        (backend, "eth0", BACKEND_MAC),
    ] {
        ip(host, &format!("address flush dev {interface}"))?;
        ip(host, &format!("link set {interface} address {} up", text(mac)))?;
    }
    for host in [client, backend] {
        // GRO on makes the end receive what XDP sends.
        host.run(["ethtool", "-K", "eth0", "tx", "off", "gro", "on"])?;
    }
    for arm in ["wan0", "lan0"] {
        // Or what the gateway's own stack says has no checksum yet.
        gateway.run(["ethtool", "-K", arm, "tx", "off"])?;
    }
    ip(gateway, &format!("link set lan0 mtu {}", scene.lan_mtu))?;
    if scene.family == Family::V6 {
        for interface in ["all", "wan0", "lan0"] {
            gateway.set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        }
    }
    for (address, bits, interface) in [
        (scene.wan(), scene.subnet_bits(), "wan0"),
        (scene.listen().ip(), scene.address_bits(), "wan0"),
        (scene.lan(), scene.subnet_bits(), "lan0"),
    ] {
        let nodad = if scene.family == Family::V6 { "nodad" } else { "" };
        ip(gateway, &format!("address add {address}/{bits} dev {interface} {nodad}"))?;
    }
    neighbour(gateway, scene.router(), CLIENT_MAC, "wan0")?;
    neighbour(gateway, scene.backend().ip(), BACKEND_MAC, "lan0")?;
    neighbour(gateway, scene.lan_stranger(), BACKEND_MAC, "lan0")?;
    ip(gateway, &format!("route add {} via {} dev wan0", scene.clients(), scene.router()))?;
    Ok(lab)
}

fn neighbour(gateway: &Host, address: IpAddr, mac: Mac, interface: &str) -> Result<()> {
    ip(gateway, &format!("neighbour replace {address} lladdr {} dev {interface} nud permanent", text(mac)))
}

fn ip(host: &Host, arguments: &str) -> Result<()> {
    let words = ["ip"].into_iter().chain(arguments.split_ascii_whitespace());
    host.run(words).map(drop).with_context(|| format!("ip {arguments}"))
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The router's rules. No range of ports for masquerade: each conversation has a port that both gateways may use, that
/// nobody else has, and that both keep.
fn rules(scene: Scene) -> String {
    let family = match scene.family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let (listen, backend) = (scene.listen(), scene.backend());
    let mut rules = format!(
        "add table {family} twin; \
         add chain {family} twin in {{ type nat hook prerouting priority dstnat; }}; \
         add rule {family} twin in {family} daddr {} tcp dport {} dnat to {backend}; \
         add chain {family} twin out {{ type nat hook postrouting priority srcnat; }}; ",
        listen.ip(),
        listen.port(),
    );
    if scene.forwarding == Forwarding::Snat {
        rules += &format!(
            "add rule {family} twin out oifname lan0 {family} daddr {} tcp dport {BACKEND_PORT} masquerade; ",
            backend.ip()
        );
    }
    rules
}

fn configuration(scene: Scene) -> String {
    let forwarding = match scene.forwarding {
        Forwarding::Snat => "snat",
        Forwarding::Dnat => "dnat",
    };
    format!(
        r#"[gateway]
interfaces = ["wan0", "lan0"]

[[pool]]
name = "twin"
forwarding = "{forwarding}"
on_backend_down = "keep"
passive = "off"
connect_retry = "off"

[pool.probe]
kind = "none"

[[pool.service]]
name = "web"
listen = "{}"
backend_port = {BACKEND_PORT}

[[pool.backend]]
name = "server1"
address = "{}"
"#,
        scene.listen(),
        scene.backend().ip(),
    )
}
