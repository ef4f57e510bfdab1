//! Which hosts there are, where they stand, and their addresses; `cabling.rs` makes it so.
//!
//! ```text
//! two-armed    client eth0 ──── wan0 gateway lan0 ──── switch ──── eth0 backend…
//!              203.0.113.7      .1, VIP .10   10.0.2.1             10.0.2.11, .12 …
//!
//! one-armed    client, gateway lan0 and backends on one switch:
//!              10.0.2.7, 10.0.2.1 + VIP 10.0.2.10, 10.0.2.11, .12 …
//!
//! three-armed  as two-armed, every other backend on lan1 (10.0.3.0/24)
//!
//! routed       client (198.51.100.7) ── back router front ── where the clients else are
//!              where the backends else are ── front router back ── backends (10.0.4.11 …)
//! ```
//! With IPv6 the same, in 2001:db8:1::/64 (wan), fd00:2::/64 (lan) and so on. Nothing is known beforehand: neighbours
//! are learned by ARP and neighbour discovery.

use anyhow::{Result, ensure};

use super::subnet::{Family, Subnet};

/// Last parts of addresses.
pub(super) const GATEWAY: u8 = 1;
const CLIENT_ROUTER: u8 = 5;
const BACKEND_ROUTER: u8 = 6;
const CLIENT: u8 = 7;
pub(super) const VIP: u8 = 10;
const FIRST_BACKEND: u8 = 11;
const FIRST_FURTHER_CLIENT: u8 = 101;
pub(super) const FIRST_SNAT: u8 = 201;

/// Keeps backends below the further clients, those below the SNAT addresses, and a lab cheap.
const HOSTS_MAX: usize = 64;
const SNAT_MAX: usize = 16;

/// How many interfaces the gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arms {
    One,
    Two,
    Three,
}

/// What to build; one client and two backends, IPv4, and the kernel's MTU unless told otherwise.
#[derive(Debug, Clone)]
pub struct Topology {
    arms: Arms,
    clients: usize,
    lan_clients: usize,
    backends: usize,
    has_client_router: bool,
    has_backend_router: bool,
    pub(super) is_cabled_directly: bool,
    pub(super) families: Vec<Family>,
    pub(super) mtu: u16,
    pub(super) snat_addresses: usize,
}

impl Topology {
    /// Clients on the gateway's `wan0`, backends on its `lan0`, the VIP on `wan0`.
    #[must_use]
    pub fn two_armed() -> Self {
        Self {
            arms: Arms::Two,
            clients: 1,
            lan_clients: 0,
            backends: 2,
            has_client_router: false,
            has_backend_router: false,
            is_cabled_directly: false,
            families: vec![Family::V4],
            mtu: 1500,
            snat_addresses: 0,
        }
    }

    /// Everybody on one subnet; the gateway sends packets out of the interface they came in on.
    #[must_use]
    pub fn one_armed() -> Self {
        Self { arms: Arms::One, ..Self::two_armed() }
    }

    /// As two-armed, but every other backend is on a subnet of its own, at the gateway's `lan1`.
    #[must_use]
    pub fn three_armed() -> Self {
        Self { arms: Arms::Three, ..Self::two_armed() }
    }

    /// With this many clients, 1 to 64.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// With this many further clients in the backends' subnet; they come after the others.
    #[must_use]
    pub fn lan_clients(mut self, clients: usize) -> Self {
        self.lan_clients = clients;
        self
    }

    /// With this many backends, 1 to 64.
    #[must_use]
    pub fn backends(mut self, backends: usize) -> Self {
        self.backends = backends;
        self
    }

    /// With addresses of this family alone.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// With addresses of both families; what has one address only is of IPv4.
    #[must_use]
    pub fn dual_stack(mut self) -> Self {
        self.families = vec![Family::V4, Family::V6];
        self
    }

    /// The clients behind a router.
    #[must_use]
    pub fn client_router(mut self) -> Self {
        self.has_client_router = true;
        self
    }

    /// The backends behind a router.
    #[must_use]
    pub fn backend_router(mut self) -> Self {
        self.has_backend_router = true;
        self
    }

    /// Two hosts alone in a subnet are joined by one cable, the backends' side too: for measuring, where a switch's
    /// time would count as everybody's.
    #[must_use]
    pub fn cabled_directly(mut self) -> Self {
        self.is_cabled_directly = true;
        self
    }

    /// With this MTU everywhere.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// With this many further addresses on the gateway's `lan0`, for SNAT; at most 16.
    #[must_use]
    pub fn snat_addresses(mut self, addresses: usize) -> Self {
        self.snat_addresses = addresses;
        self
    }

    /// Where everybody stands.
    pub(super) fn plan(&self) -> Result<Plan> {
        for (count, what) in [(self.clients, "clients"), (self.backends, "backends")] {
            ensure!((1..=HOSTS_MAX).contains(&count), "a lab has 1 to {HOSTS_MAX} {what}, not {count}");
        }
        ensure!(self.clients + self.lan_clients <= HOSTS_MAX, "a lab has at most {HOSTS_MAX} clients in all");
        ensure!(self.snat_addresses <= SNAT_MAX, "a lab has at most {SNAT_MAX} SNAT addresses");
        ensure!(
            self.arms != Arms::Three || !self.has_backend_router,
            "a lab with three arms has no router before its backends"
        );
        let front = if self.arms == Arms::One { Subnet::Lan } else { Subnet::Wan };
        let mut gateway = HostPlan::new("gateway", &[]);
        if self.arms != Arms::One {
            gateway.ports.push(Port::new("wan0", Subnet::Wan, GATEWAY));
        }
        gateway.ports.push(Port::new("lan0", Subnet::Lan, GATEWAY));
        if self.arms == Arms::Three {
            gateway.ports.push(Port::new("lan1", Subnet::SecondLan, GATEWAY));
        }
        let mut routers = Vec::new();
        for (is_there, role, outside, last, inside) in [
            (self.has_client_router, "client_router", front, CLIENT_ROUTER, Subnet::Remote),
            (self.has_backend_router, "backend_router", Subnet::Lan, BACKEND_ROUTER, Subnet::Rack),
        ] {
            if is_there {
                let ports = [Port::new("front", outside, last), Port::new("back", inside, GATEWAY)];
                routers.push(HostPlan::new(role, &ports).routed_by(outside));
                gateway.routes.push((inside, outside, last));
            }
        }
        Ok(Plan { gateway, clients: self.client_plans(front), backends: self.backend_plans(), routers })
    }

    fn client_plans(&self, front: Subnet) -> Vec<HostPlan> {
        let subnet = if self.has_client_router { Subnet::Remote } else { front };
        let client = |index: usize| {
            let last = if index == 0 { CLIENT } else { nth(FIRST_FURTHER_CLIENT, index - 1) };
            let subnet = if index < self.clients { subnet } else { Subnet::Lan };
            HostPlan::new(&format!("client{index}"), &[Port::new("eth0", subnet, last)]).routed_by(subnet)
        };
        (0..self.clients + self.lan_clients).map(client).collect()
    }

    fn backend_plans(&self) -> Vec<HostPlan> {
        let backend = |index: usize| {
            let subnet = match self.arms {
                Arms::Three if index % 2 == 1 => Subnet::SecondLan,
                _ if self.has_backend_router => Subnet::Rack,
                _ => Subnet::Lan,
            };
            let port = Port::new("eth0", subnet, nth(FIRST_BACKEND, index));
            HostPlan::new(&format!("backend{index}"), &[port]).routed_by(subnet)
        };
        (0..self.backends).map(backend).collect()
    }
}

/// Where everybody stands.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) gateway: HostPlan,
    pub(super) clients: Vec<HostPlan>,
    pub(super) backends: Vec<HostPlan>,
    pub(super) routers: Vec<HostPlan>,
}

#[derive(Debug)]
pub(super) struct HostPlan {
    pub(super) role: String,
    pub(super) ports: Vec<Port>,
    /// In which subnet its default route's router is, as number 1.
    pub(super) default: Option<Subnet>,
    /// Further routes: to a subnet, by way of a host in another one.
    pub(super) routes: Vec<(Subnet, Subnet, u8)>,
}

impl HostPlan {
    fn new(role: &str, ports: &[Port]) -> Self {
        Self { role: role.to_owned(), ports: ports.to_vec(), default: None, routes: Vec::new() }
    }

    /// As on real servers. It also makes the gateway, not a missing route, what keeps the sides apart.
    fn routed_by(mut self, subnet: Subnet) -> Self {
        self.default = Some(subnet);
        self
    }
}

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) subnet: Subnet,
    pub(super) last: u8,
}

impl Port {
    fn new(name: &'static str, subnet: Subnet, last: u8) -> Self {
        Self { name, subnet, last }
    }
}

/// The last part `index` after `first`; the limits above keep it in range.
pub(super) fn nth(first: u8, index: usize) -> u8 {
    u8::try_from(index).map_or(first, |index| first.saturating_add(index))
}
