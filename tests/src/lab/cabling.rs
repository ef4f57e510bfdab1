//! Makes what a topology says: namespaces, cables, switches, addresses and routes.
//!
//! Cables are made inside the namespaces, so no interface name of the machine is used. A subnet is a switch, except
//! that two hosts alone on the clients' side, or wherever the topology says so, are joined by one cable.

use std::{net::IpAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    host::{Host, Interface},
    process::checked,
    subnet::{Family, Subnet, prefix_length},
    topology::{FIRST_SNAT, GATEWAY, HostPlan, Plan, Port, Topology, VIP, nth},
};

/// The hosts of a lab that is up.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) gateway: Host,
    pub(super) clients: Vec<Host>,
    pub(super) backends: Vec<Host>,
    pub(super) routers: Vec<Host>,
    /// One for each family.
    pub(super) vips: Vec<IpAddr>,
    /// Of the first family, then of the other one.
    pub(super) snat_addresses: Vec<IpAddr>,
}

/// Makes the namespaces of `lab` and cables them; hosts write their processes' output below `dir`.
pub(super) fn build(lab: &str, topology: &Topology, dir: &Path) -> Result<Hosts> {
    let Plan { gateway, clients, backends, routers } = topology.plan()?;
    let front = gateway.ports[0].subnet;
    let builder = Builder {
        lab,
        dir,
        families: &topology.families,
        mtu: topology.mtu.to_string(),
        is_cabled_directly: topology.is_cabled_directly,
    };
    let all = || [&gateway].into_iter().chain(&clients).chain(&backends).chain(&routers);
    all().try_for_each(|plan| builder.namespace(plan))?;
    for subnet in Subnet::ALL {
        let ports: Vec<_> = all()
            .flat_map(|plan| plan.ports.iter().map(move |port| (plan, port)))
            .filter(|(_, port)| port.subnet == subnet)
            .collect();
        builder.join(subnet, &ports)?;
    }
    let each = |plans: &[HostPlan]| plans.iter().map(|plan| builder.host(plan)).collect::<Result<Vec<_>>>();
    let (gateway, clients, backends, routers) =
        (builder.host(&gateway)?, each(&clients)?, each(&backends)?, each(&routers)?);
    for host in clients.iter().chain(&backends).chain(&routers) {
        as_real_network_cards(host)?;
    }
    routers.iter().try_for_each(|router| forward(router, &topology.families))?;

    let addresses = |subnet: Subnet, last: u8| {
        topology.families.iter().map(move |&family| subnet.address(family, last)).collect::<Vec<_>>()
    };
    let vips = addresses(front, VIP);
    let lasts = (0..topology.snat_addresses).map(|index| nth(FIRST_SNAT, index));
    let snat_addresses: Vec<_> = lasts.flat_map(|last| addresses(Subnet::Lan, last)).collect();
    add_to(&gateway, &vips, &gateway.interfaces()[0].name)?;
    add_to(&gateway, &snat_addresses, "lan0")?;
    Ok(Hosts { gateway, clients, backends, routers, vips, snat_addresses })
}

struct Builder<'a> {
    lab: &'a str,
    dir: &'a Path,
    families: &'a [Family],
    mtu: String,
    is_cabled_directly: bool,
}

impl Builder<'_> {
    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.lab)
    }

    /// A namespace, and before anything is in it the settings that it otherwise takes over from the machine.
    fn namespace(&self, plan: &HostPlan) -> Result<()> {
        let namespace = self.name(&plan.role);
        ip(&["netns", "add", &namespace])?;
        let host = Host::new(&plan.role, namespace, self.dir, Vec::new(), Vec::new());
        // A machine that routes would forward in here.
        host.set_sysctl("net/ipv4/ip_forward", "0")?;
        let forwarding = host.sysctl("net/ipv4/ip_forward")?;
        ensure!(forwarding == "0", "{} forwards packets: ip_forward is {forwarding}", host.role());
        if !self.families.contains(&Family::V6) {
            // No neighbour discovery, no router solicitation, no multicast reports in captures.
            return host.set_sysctl_if_there("net/ipv6/conf/all/disable_ipv6", "1");
        }
        host.set_sysctl("net/ipv6/conf/all/disable_ipv6", "0")?;
        host.set_sysctl("net/ipv6/conf/all/forwarding", "0")?;
        // The link-local address, which neighbour discovery asks from, is there at once, and nobody asks for routers.
        for (name, value) in
            [("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("router_solicitations", "0")]
        {
            for which in ["all", "default"] {
                host.set_sysctl(&format!("net/ipv6/conf/{which}/{name}"), value)?;
            }
        }
        Ok(())
    }

    /// Cables the hosts of one subnet.
    fn join(&self, subnet: Subnet, ports: &[(&HostPlan, &Port)]) -> Result<()> {
        let end = |(plan, port): &(&HostPlan, &Port)| (self.name(&plan.role), port.name);
        match ports {
            [] => Ok(()),
            [one, other] if self.is_cabled_directly || matches!(subnet, Subnet::Wan | Subnet::Remote) => {
                self.cable(&end(one), &end(other))
            }
            _ => {
                let switch = self.switch(subnet)?;
                for (plan, port) in ports {
                    self.cable(&(switch.clone(), &plan.role), &end(&(plan, port)))?;
                    ip(&["-n", &switch, "link", "set", &plan.role, "master", "br0"])?;
                    if plan.role == "gateway" {
                        // XDP frames reach a veth only while its receiving end polls: an XDP program there, or GRO
                        // on. Not on the other ports: they would merge what hosts send before the gateway sees it.
                        in_namespace(&switch, &["ethtool", "-K", &plan.role, "gro", "on"])?;
                    }
                }
                Ok(())
            }
        }
    }

    /// A namespace with one bridge, `br0`; its ports are named after the hosts behind them.
    fn switch(&self, subnet: Subnet) -> Result<String> {
        let namespace = self.name(&format!("switch_{}", subnet.name()));
        ip(&["netns", "add", &namespace])?;
        // A switch that speaks would be one host more.
        let silent = Host::new("switch", namespace.clone(), self.dir, Vec::new(), Vec::new());
        silent.set_sysctl_if_there("net/ipv6/conf/all/disable_ipv6", "1")?;
        let bridge = ["link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0"];
        ip(&[&["-n", namespace.as_str()][..], &bridge].concat())?;
        ip(&["-n", &namespace, "link", "set", "br0", "up"])?;
        Ok(namespace)
    }

    /// A cable between two interfaces, both made here and set up.
    fn cable(&self, one: &(String, &str), other: &(String, &str)) -> Result<()> {
        let here = ["link", "add", one.1, "mtu", &self.mtu, "netns", &one.0, "type", "veth"];
        let there = ["peer", "name", other.1, "mtu", &self.mtu, "netns", &other.0];
        ip(&[&here[..], &there].concat())?;
        ip(&["-n", &one.0, "link", "set", one.1, "up"])?;
        ip(&["-n", &other.0, "link", "set", other.1, "up"])
    }

    /// Loopback, addresses and routes.
    fn host(&self, plan: &HostPlan) -> Result<Host> {
        let in_each = |subnet: Subnet, last: u8| {
            self.families.iter().map(move |&family| subnet.address(family, last)).collect::<Vec<_>>()
        };
        let interface = |port: &Port| Interface {
            name: port.name.to_owned(),
            addresses: in_each(port.subnet, port.last),
        };
        let interfaces: Vec<_> = plan.ports.iter().map(interface).collect();
        let default = plan.default.map(|subnet| in_each(subnet, GATEWAY)).unwrap_or_default();
        let host = Host::new(&plan.role, self.name(&plan.role), self.dir, interfaces, default);
        ip(&["-n", host.namespace(), "link", "set", "lo", "up"])?;
        for interface in host.interfaces() {
            for &address in &interface.addresses {
                let length = prefix_length(Family::of(address));
                add_address(&host, &format!("{address}/{length}"), &interface.name)?;
            }
        }
        for &router in host.default_routers() {
            add_route(&host, "default", router)?;
        }
        for &(to, subnet, last) in &plan.routes {
            for &family in self.families {
                add_route(&host, &to.prefix(family), subnet.address(family, last))?;
            }
        }
        Ok(host)
    }
}

/// Further addresses of an interface, without a subnet.
fn add_to(host: &Host, addresses: &[IpAddr], interface: &str) -> Result<()> {
    let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    addresses
        .iter()
        .try_for_each(|&address| add_address(host, &format!("{address}/{}", whole(address)), interface))
}

fn add_address(host: &Host, address: &str, interface: &str) -> Result<()> {
    let mut words = vec!["-n", host.namespace(), "address", "add", address, "dev", interface];
    if address.contains(':') {
        words.push("nodad");
    }
    ip(&words)
}

fn add_route(host: &Host, to: &str, via: IpAddr) -> Result<()> {
    let family = Family::of(via).option();
    ip(&[family, "-n", host.namespace(), "route", "add", to, "via", &via.to_string()])
}

fn forward(router: &Host, families: &[Family]) -> Result<()> {
    for family in families {
        match family {
            Family::V4 => router.set_sysctl("net/ipv4/ip_forward", "1")?,
            Family::V6 => router.set_sysctl("net/ipv6/conf/all/forwarding", "1")?,
        }
    }
    Ok(())
}

/// A veth hands frames over without checksums, which no wire does, and which stay wrong once XDP rewrote them:
/// transmit offloads off. GRO on makes the end receive what XDP sends (see `Builder::join`).
fn as_real_network_cards(host: &Host) -> Result<()> {
    let words = |name| ["ethtool", "-K", name, "tx", "off", "gro", "on"];
    host.interfaces().iter().try_for_each(|interface| in_namespace(host.namespace(), &words(&interface.name)))
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
