//! What the program has been told before the first packet of a case.

use std::ops::RangeInclusive;

use balancer_user::dataplane::slots::Retry;

use super::scene::{Forwarding, Member, POOLS, Scene, Service, Side};

/// What SNAT ports the usual pools have: the contract's default.
pub const USUAL_SNAT_PORTS: [RangeInclusive<u16>; 2] = [1024..=32767, 61000..=65535];

/// What the program has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub(super) pools: Vec<Pool>,
    pub(super) unreachable: Vec<Member>,
    pub(super) retry: Retry,
    pub(super) are_alone: bool,
    pub(super) sides: Vec<Side>,
    pub(super) max_flows: u32,
    pub(super) max_half_open: u32,
    pub(super) wan_mtu: u32,
    pub(super) lan_mtu: u32,
}

/// A pool, and who is active in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) scene: &'static Scene,
    pub(super) snat_ports: Vec<RangeInclusive<u16>>,
    pub(super) active: Option<Member>,
}

/// The pools of all scenes, with their primary active and every way resolved.
#[must_use]
pub fn usual() -> Given {
    let pool = |scene: &&'static Scene| Pool {
        scene,
        snat_ports: USUAL_SNAT_PORTS.to_vec(),
        active: Some(scene.primary),
    };
    Given {
        pools: POOLS.iter().map(pool).collect(),
        unreachable: Vec::new(),
        retry: Retry::Off,
        are_alone: false,
        sides: vec![Side::Wan, Side::Lan],
        max_flows: 64,
        max_half_open: 64,
        wan_mtu: 1500,
        lan_mtu: 1500,
    }
}

impl Given {
    /// No pool has an active backend.
    #[must_use]
    pub fn nobody_active(mut self) -> Self {
        for pool in &mut self.pools {
            pool.active = None;
        }
        self
    }

    /// There is no IPv6 service.
    #[must_use]
    pub fn without_ipv6(mut self) -> Self {
        self.pools.retain(|pool| pool.scene.is_ipv4());
        self
    }

    /// This becomes of SYNs that a backend does not take; the pool's other backends come after the active one, in order.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// No backend comes after the active one.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { are_alone: true, ..self }
    }

    /// The way to this backend isn't resolved.
    #[must_use]
    pub fn no_way_to(mut self, member: Member) -> Self {
        self.unreachable.push(member);
        self
    }

    /// The program doesn't know the interface of this side.
    #[must_use]
    pub fn unknown_interface(mut self, side: Side) -> Self {
        self.sides.retain(|known| *known != side);
        self
    }

    /// The pools have these SNAT ports and no others.
    #[must_use]
    pub fn snat_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        for pool in &mut self.pools {
            pool.snat_ports = vec![ports.clone()];
        }
        self
    }

    /// At most this many established flows.
    #[must_use]
    pub fn max_flows(self, max_flows: u32) -> Self {
        Self { max_flows, ..self }
    }

    /// At most this many handshakes under way.
    #[must_use]
    pub fn max_half_open(self, max_half_open: u32) -> Self {
        Self { max_half_open, ..self }
    }

    /// The largest IP packet on the backends' side.
    #[must_use]
    pub fn lan_mtu(self, lan_mtu: u32) -> Self {
        Self { lan_mtu, ..self }
    }

    /// The largest IP packet on the clients' side.
    #[must_use]
    pub fn wan_mtu(self, wan_mtu: u32) -> Self {
        Self { wan_mtu, ..self }
    }

    /// The pool and the service in it that listen here.
    pub(super) fn service(&self, listen: std::net::SocketAddr) -> Option<(&Pool, Service)> {
        let mut all = self.pools.iter().flat_map(|pool| pool.scene.services().map(|service| (pool, service)));
        all.find(|(_, service)| service.listen == listen)
    }

    /// The pool, the service and the backend that have this address and port.
    pub(super) fn behind(&self, offered: std::net::SocketAddr) -> Option<(&Pool, Service, Member)> {
        let (pool, member) = self.member(offered.ip())?;
        let service = pool.scene.services().into_iter().find(|it| it.backend_port == offered.port())?;
        Some((pool, service, member))
    }

    /// The backend with this address, and its pool.
    pub(super) fn member(&self, address: std::net::IpAddr) -> Option<(&Pool, Member)> {
        let mut all = self.pools.iter().flat_map(|pool| pool.scene.members().map(|member| (pool, member)));
        all.find(|(_, member)| member.address == address)
    }
}

impl Pool {
    /// Whether backends see the gateway.
    pub(super) fn is_snat(&self) -> bool {
        self.scene.forwarding == Forwarding::Snat
    }
}
