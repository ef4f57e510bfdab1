//! Which hosts there are, how they are cabled, and their addresses.
//!
//! ```text
//! two-armed   client eth0 ──── wan0 gateway lan0 ──── switch ──── eth0 backend…
//!             203.0.113.7      .1, VIP .10   10.0.2.1             10.0.2.11, .12 …
//!
//! one-armed   client, gateway lan0 and backends on one switch:
//!             10.0.2.7, 10.0.2.1 + VIP 10.0.2.10, 10.0.2.11, .12 …
//! ```
//! With more than one client the two-armed wan side is a switch too. Cables are made inside the namespaces, so no
//! interface name of the machine is used, and nothing is known beforehand: neighbours are learned by ARP.

use std::{net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    host::{Host, Interface},
    process::checked,
};

/// Last octets; the same in both topologies, so that a trace reads alike.
const GATEWAY: u8 = 1;
const CLIENT: u8 = 7;
const VIP: u8 = 10;
const FIRST_BACKEND: u8 = 11;
const FIRST_FURTHER_CLIENT: u8 = 101;

/// Keeps backends below the further clients, and a lab cheap.
const HOSTS_MAX: usize = 64;

const WAN: [u8; 3] = [203, 0, 113];
const LAN: [u8; 3] = [10, 0, 2];

/// How many interfaces the gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arms {
    One,
    Two,
}

/// What to build; one client and two backends unless told otherwise.
#[derive(Debug, Clone)]
pub struct Topology {
    arms: Arms,
    clients: usize,
    backends: usize,
}

impl Topology {
    /// Clients on the gateway's `wan0`, backends on its `lan0`, the VIP on `wan0`.
    #[must_use]
    pub fn two_armed() -> Self {
        Self { arms: Arms::Two, clients: 1, backends: 2 }
    }

    /// Everybody on one subnet; the gateway sends packets out of the interface they came in on.
    #[must_use]
    pub fn one_armed() -> Self {
        Self { arms: Arms::One, clients: 1, backends: 2 }
    }

    /// With this many clients, 1 to 64.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// With this many backends, 1 to 64.
    #[must_use]
    pub fn backends(mut self, backends: usize) -> Self {
        self.backends = backends;
        self
    }
}

/// The hosts of a lab that is up.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) gateway: Host,
    pub(super) clients: Vec<Host>,
    pub(super) backends: Vec<Host>,
    pub(super) vip: Ipv4Addr,
}

/// Makes the namespaces of `lab` and cables them; hosts write their processes' output below `dir`.
pub(super) fn build(lab: &str, topology: &Topology, dir: &Path) -> Result<Hosts> {
    for (count, what) in [(topology.clients, "clients"), (topology.backends, "backends")] {
        ensure!((1..=HOSTS_MAX).contains(&count), "a lab has 1 to {HOSTS_MAX} {what}, not {count}");
    }
    let builder = Builder { lab, dir };
    let client_side = if topology.arms == Arms::Two { WAN } else { LAN };
    let vip = address(client_side, VIP);

    let clients = (0..topology.clients)
        .map(|i| {
            let last = if i == 0 { CLIENT } else { nth(FIRST_FURTHER_CLIENT, i - 1) };
            builder.host(&format!("client{i}"), &[("eth0", address(client_side, last))])
        })
        .collect::<Result<Vec<_>>>()?;
    let backends = (0..topology.backends)
        .map(|i| builder.host(&format!("backend{i}"), &[("eth0", address(LAN, nth(FIRST_BACKEND, i)))]))
        .collect::<Result<Vec<_>>>()?;
    let mut arms = vec![("lan0", address(LAN, GATEWAY))];
    if topology.arms == Arms::Two {
        arms.insert(0, ("wan0", address(WAN, GATEWAY)));
    }
    let gateway = builder.host("gateway", &arms)?;

    let lan = builder.switch("lan")?;
    builder.cable_to_gateway(&lan, &gateway, "lan0")?;
    for backend in &backends {
        builder.cable_to_switch(&lan, backend)?;
    }
    match (topology.arms, clients.as_slice()) {
        (Arms::Two, [client]) => cable((client.namespace(), "eth0"), (gateway.namespace(), "wan0"))?,
        (Arms::Two, _) => {
            let wan = builder.switch("wan")?;
            builder.cable_to_gateway(&wan, &gateway, "wan0")?;
            clients.iter().try_for_each(|client| builder.cable_to_switch(&wan, client))?;
        }
        (Arms::One, _) => clients.iter().try_for_each(|client| builder.cable_to_switch(&lan, client))?,
    }

    configure(&gateway)?;
    let vip_arm = &gateway.interfaces()[0].name;
    ip(&["-n", gateway.namespace(), "address", "add", &format!("{vip}/32"), "dev", vip_arm])?;
    for (hosts, subnet) in [(&clients, client_side), (&backends, LAN)] {
        for host in hosts {
            configure(host)?;
            as_real_network_card(host.namespace(), "eth0")?;
            // As on real servers. It also makes the gateway, not a missing route, what keeps the sides apart.
            let gateway = address(subnet, GATEWAY).to_string();
            ip(&["-n", host.namespace(), "route", "add", "default", "via", &gateway])?;
        }
    }
    Ok(Hosts { gateway, clients, backends, vip })
}

struct Builder<'a> {
    lab: &'a str,
    dir: &'a Path,
}

impl Builder<'_> {
    fn host(&self, role: &str, interfaces: &[(&str, Ipv4Addr)]) -> Result<Host> {
        let interfaces =
            interfaces.iter().map(|&(name, address)| Interface { name: name.to_owned(), address });
        let host = Host::new(role, format!("{}-{role}", self.lab), self.dir, interfaces.collect());
        ip(&["netns", "add", host.namespace()])?;
        Ok(host)
    }

    /// A namespace with one bridge, `br0`; its ports are named after the hosts behind them.
    fn switch(&self, side: &str) -> Result<String> {
        let namespace = format!("{}-switch_{side}", self.lab);
        ip(&["netns", "add", &namespace])?;
        ip(&[
            "-n",
            &namespace,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        ip(&["-n", &namespace, "link", "set", "br0", "up"])?;
        Ok(namespace)
    }

    fn cable_to_gateway(&self, switch: &str, gateway: &Host, arm: &str) -> Result<()> {
        cable((switch, "gateway"), (gateway.namespace(), arm))?;
        ip(&["-n", switch, "link", "set", "gateway", "master", "br0"])?;
        // XDP frames reach a veth only while its receiving end polls: an XDP program there, or GRO on.
        in_namespace(switch, &["ethtool", "-K", "gateway", "gro", "on"])
    }

    fn cable_to_switch(&self, switch: &str, host: &Host) -> Result<()> {
        cable((switch, host.role()), (host.namespace(), "eth0"))?;
        ip(&["-n", switch, "link", "set", host.role(), "master", "br0"])
    }
}

/// A cable between two interfaces, both made here and set up.
fn cable(one: (&str, &str), other: (&str, &str)) -> Result<()> {
    ip(&["link", "add", one.1, "netns", one.0, "type", "veth", "peer", "name", other.1, "netns", other.0])?;
    ip(&["-n", one.0, "link", "set", one.1, "up"])?;
    ip(&["-n", other.0, "link", "set", other.1, "up"])
}

/// Addresses, loopback, and the settings that a namespace otherwise takes over from the machine.
fn configure(host: &Host) -> Result<()> {
    // Switched off before the first address: no duplicate address detection, no router solicitation in captures.
    host.set_sysctl_if_there("net/ipv6/conf/all/disable_ipv6", "1")?;
    // Copied from the machine when a namespace is made, so a machine that routes would forward in here.
    host.set_sysctl("net/ipv4/ip_forward", "0")?;
    let forwarding = host.sysctl("net/ipv4/ip_forward")?;
    ensure!(forwarding == "0", "{} forwards packets: ip_forward is {forwarding}", host.role());
    ip(&["-n", host.namespace(), "link", "set", "lo", "up"])?;
    for interface in host.interfaces() {
        let address = format!("{}/24", interface.address);
        ip(&["-n", host.namespace(), "address", "add", &address, "dev", &interface.name])?;
    }
    Ok(())
}

/// A veth hands frames over without checksums, which no wire does, and which stay wrong once XDP rewrote them:
/// transmit offloads off. GRO on makes the end receive what XDP sends (see `cable_to_gateway`).
fn as_real_network_card(namespace: &str, interface: &str) -> Result<()> {
    in_namespace(namespace, &["ethtool", "-K", interface, "tx", "off", "gro", "on"])
}

fn address([a, b, c]: [u8; 3], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, last)
}

/// The last octet `index` after `first`; `HOSTS_MAX` keeps it in range.
fn nth(first: u8, index: usize) -> u8 {
    u8::try_from(index).map_or(first, |index| first.saturating_add(index))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    checked(command).map(drop).context("build the lab (needs root and iproute2)")
}

fn in_namespace(namespace: &str, words: &[&str]) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).args(words);
    checked(command).map(drop).context("set a cable's offloads (needs root, util-linux and ethtool)")
}
