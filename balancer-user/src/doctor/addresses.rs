//! Addresses and ways: the services' addresses on this gateway, the way to each backend, and what backends send from and to.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::Unseen;
use super::finding::about;
use crate::config::{Config, Forwarding, Pool};
use crate::control::protocol::{Finding, Severity};
use crate::dataplane::neighbours::{Neighbours, Route};
use crate::dataplane::survey::Device;

/// Fewer flows at once to a port of a backend than this are soon used up: a client's closed connection keeps its port for
/// a minute.
const FEW_FLOWS: usize = 16_384;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// Names of the interfaces of the configuration.
    pub(super) attached: Vec<String>,
    /// Loopback and dummy interfaces: an address on them is as good as on any other.
    pub(super) inner: BTreeSet<String>,
    /// All addresses of this machine, with their interfaces.
    pub(super) own: Vec<(String, IpAddr)>,
    /// Of services, each once.
    pub(super) listens: BTreeSet<IpAddr>,
    pub(super) backends: Vec<Way>,
    /// Ports of each `snat` pool, for one port of a backend.
    pub(super) rooms: Vec<Room>,
    /// Those of the interfaces to `dnat` backends on which the kernel filters strictly.
    pub(super) strict: BTreeSet<String>,
}

/// The way to a backend.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) pool: String,
    pub(super) backend: String,
    pub(super) address: IpAddr,
    pub(super) is_dnat: bool,
    pub(super) route: Option<Route>,
    /// The interface that the route leaves by.
    pub(super) leaves_by: Option<String>,
    /// The next hop answers; `None`: this process may not ask.
    pub(super) answers: Option<bool>,
}

/// How many flows a pool's source addresses and ports allow.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) pool: String,
    pub(super) flows: usize,
    pub(super) max_flows: usize,
}

impl Addresses {
    pub(super) async fn look(
        config: &Config,
        devices: &[Device],
        kernel: &Neighbours,
        unseen: &mut Unseen,
    ) -> Self {
        let inner =
            devices.iter().filter(|device| device.is_loopback || device.kind.as_deref() == Some("dummy"));
        let services = config.pools.iter().flat_map(|pool| &pool.services);
        let mut found = Self {
            attached: config.gateway.interfaces.clone(),
            inner: inner.map(|device| device.name.clone()).collect(),
            own: own(unseen),
            listens: services.map(|service| service.listen.ip()).collect(),
            rooms: config.pools.iter().filter_map(|pool| room(pool, config)).collect(),
            ..Self::default()
        };
        for pool in &config.pools {
            for backend in pool.backends.iter().filter(|backend| !backend.disabled) {
                found.backends.push(way(pool, &backend.name, backend.address, devices, kernel).await);
            }
        }
        found.ask(kernel).await;
        if found.backends.iter().any(|way| way.answers.is_none() && way.route.is_some()) {
            unseen.push("whether backends answer that nobody has talked to");
        }
        let dnat = found.backends.iter().filter(|way| way.is_dnat).filter_map(|way| way.leaves_by.clone());
        found.strict = dnat.filter(|interface| is_strict(interface)).collect();
        found
    }

    /// Finds out which of the next hops answer.
    async fn ask(&mut self, kernel: &Neighbours) {
        let hop = |way: &Way| way.route.map(|route| (route.ifindex, route.next_hop));
        let Ok(answers) = kernel.answers(&self.backends.iter().filter_map(hop).collect()).await else {
            return;
        };
        for way in &mut self.backends {
            let asked = hop(way).filter(|hop| !answers.not_asked.contains(hop));
            way.answers = asked.map(|hop| answers.answering.contains(&hop));
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.listens.iter().flat_map(|vip| self.vip(*vip)).collect();
        findings.extend(self.backends.iter().flat_map(|way| self.way(way)));
        findings.extend(self.rooms.iter().map(Room::judge));
        findings.extend(self.filters());
        findings
    }

    fn vip(&self, vip: IpAddr) -> Vec<Finding> {
        let present = about("vip_present", Severity::Error, vip.to_string());
        let Some((interface, _)) = self.own.iter().find(|(_, address)| *address == vip) else {
            let cause = "services listen on it, and it is no address of this gateway: no client's packet arrives (on a gateway \
                         that keepalived holds in reserve that is as it must be)";
            let length = if vip.is_ipv4() { 32 } else { 128 };
            return vec![match self.front() {
                Some(front) => present.suggest(cause, &format!("ip address add {vip}/{length} dev {front}")),
                None => present.ask(cause, "add it to an interface of [gateway] interfaces"),
            }];
        };
        let placed = about("vip_interface", Severity::Warning, vip.to_string());
        let placed = if self.attached.contains(interface) || self.inner.contains(interface) {
            placed.well(format!("it is on {interface}"))
        } else {
            placed.ask(
                format!(
                    "it is on {interface}, which is not in [gateway] interfaces: packets for it that come in there are not balanced, \
                     and this machine's own TCP refuses them"
                ),
                format!("write \"{interface}\" into [gateway] interfaces, or move the address"),
            )
        };
        vec![present.well("it is an address of this gateway"), placed]
    }

    /// Where clients are, probably: the first interface that doesn't lead to backends, or the only one.
    fn front(&self) -> Option<&String> {
        let is_back = |name: &&String| self.backends.iter().any(|way| way.leaves_by.as_ref() == Some(name));
        self.attached.iter().find(|name| !is_back(name)).or(self.attached.first())
    }

    fn way(&self, way: &Way) -> Vec<Finding> {
        let Way { pool, backend, address, route, .. } = way;
        let subject = || format!("{pool}/{backend}");
        let about_route = about("route", Severity::Error, subject());
        let Some(route) = route else {
            return vec![about_route.ask(
                format!("there is no route to {address}"),
                format!("give an interface an address in its network, or: ip route add {address} via ROUTER"),
            )];
        };
        let leaves_by = way.leaves_by.as_deref().unwrap_or("an interface that is gone");
        if !self.attached.iter().any(|name| name == leaves_by) {
            return vec![about_route.ask(
                format!("the route to {address} leaves by {leaves_by}, which is not in [gateway] interfaces: packets can't go there"),
                format!("write \"{leaves_by}\" into [gateway] interfaces, or change the route: ip route get {address}"),
            )];
        }
        let mut findings = vec![about_route.well(format!("the way to {address} leaves by {leaves_by}"))];
        let about_source = about("source_address", Severity::Error, subject());
        findings.push(match route.source {
            Some(source) => about_source.well(format!("it is reached from {source}")),
            None => about_source.ask(
                format!("this gateway has no address to reach {address} from"),
                format!("give {leaves_by} one that {address} can answer to: ip address add ADDRESS/LENGTH dev {leaves_by}"),
            ),
        });
        findings.extend(way.answers.map(|answers| neighbour(&subject(), leaves_by, route.next_hop, answers)));
        if way.is_dnat {
            findings.push(way_back(way, route));
        }
        findings
    }

    /// XDP takes backends' answers before the filter; what passes it are the answers to probes.
    fn filters(&self) -> Vec<Finding> {
        let leaves_by: BTreeSet<&String> =
            self.backends.iter().filter(|way| way.is_dnat).filter_map(|way| way.leaves_by.as_ref()).collect();
        let judge = |interface: &String| {
            let about = about("rp_filter", Severity::Info, interface);
            if self.strict.contains(interface) {
                about.ill(
                    "it is strict (1): what clients are sent passes XDP before it, but a backend's answer to a probe is dropped if \
                     it comes in by another interface than the route to the backend leaves by, and then the backend seems down",
                    format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", interface.replace('.', "/")),
                )
            } else {
                about.well("answers to probes may come in by any interface")
            }
        };
        leaves_by.into_iter().map(judge).collect()
    }
}

fn neighbour(subject: &str, leaves_by: &str, next_hop: IpAddr, answers: bool) -> Finding {
    let about = about("neighbour", Severity::Warning, subject);
    if answers {
        about.well(format!("{next_hop} has a hardware address on {leaves_by}"))
    } else {
        let question = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
        about.ask(
            format!("{next_hop} does not answer {question} on {leaves_by}: nothing can be sent to it"),
            format!("start it, or look at cable, VLAN and firewall, until this tells its address: ip neighbour show to {next_hop} dev {leaves_by}"),
        )
    }
}

/// Only the backend can tell.
fn way_back(way: &Way, route: &Route) -> Finding {
    let source = route.source.map_or("this gateway".to_owned(), |source| source.to_string());
    about("dnat_return", Severity::Info, format!("{}/{}", way.pool, way.backend)).ask(
        format!("{} sees clients' addresses, so its way to clients must lead through {source}, which can't be seen from here", way.address),
        format!("on {}: `ip route get CLIENT` must say `via {source}`, else: ip route replace default via {source}", way.backend),
    )
}

impl Room {
    fn judge(&self) -> Finding {
        let Self { pool, flows, max_flows } = self;
        let severity = if *flows < FEW_FLOWS { Severity::Warning } else { Severity::Info };
        let about = about("snat_ports", severity, pool);
        let said = format!("{flows} flows at once to each port of a backend");
        if flows < max_flows {
            about.ask(
                format!(
                    "source addresses and ports allow {said}, fewer than max_flows ({max_flows}): more are refused (the kernel's own \
                     ports, net.ipv4.ip_local_port_range, are not used)"
                ),
                "if one port shall have more, write more addresses of this gateway into snat_addresses",
            )
        } else {
            about.well(said)
        }
    }
}

fn room(pool: &Pool, config: &Config) -> Option<Room> {
    let ports: usize = pool.snat_ports.iter().map(ExactSizeIterator::len).sum();
    (pool.forwarding == Forwarding::Snat).then(|| Room {
        pool: pool.name.clone(),
        flows: ports * pool.snat_addresses.len().max(1),
        max_flows: config.gateway.max_flows as usize,
    })
}

async fn way(pool: &Pool, backend: &str, address: IpAddr, devices: &[Device], kernel: &Neighbours) -> Way {
    let route = kernel.route(address).await.ok().flatten();
    let leaves_by = route.and_then(|route| devices.iter().find(|device| device.ifindex == route.ifindex));
    Way {
        pool: pool.name.clone(),
        backend: backend.to_owned(),
        address,
        is_dnat: pool.forwarding == Forwarding::Dnat,
        route,
        leaves_by: leaves_by.map(|device| device.name.clone()),
        answers: None,
    }
}

fn own(unseen: &mut Unseen) -> Vec<(String, IpAddr)> {
    let Ok(addresses) = getifaddrs() else {
        unseen.push("the addresses of this gateway");
        return Vec::new();
    };
    let with_address = |one: nix::ifaddrs::InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((one.interface_name, ip))
    };
    addresses.filter_map(with_address).collect()
}

/// What counts is the higher of all interfaces' setting and of its own.
fn is_strict(interface: &str) -> bool {
    let setting = |of: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    setting("all").max(setting(interface)) == 1
}
