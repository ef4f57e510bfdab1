//! Who is who in packet cases, and what the program has been told before the first packet.
//!
//! One gateway with a side for clients and a side for backends. All clients are behind one router; each backend is a
//! neighbour of its own. Nothing of this exists but the two interfaces: hardware addresses and ways are told to the
//! program by the same calls that the controller makes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use balancer_user::dataplane::object::TableSizes;
use balancer_user::dataplane::slots::{BackendPlan, PoolPlan, ServicePlan};

use crate::packet::{Mac, Packet};

/// The VIP of the pool `passwords`.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A service of `passwords` whose port changes on the way: 10001 on the backends.
pub const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 443);
/// The other service of `passwords`; its port stays.
pub const API: SocketAddrV4 = SocketAddrV4::new(VIP, 8877);
/// The service of another pool, `mail`, at a VIP of its own.
pub const MAIL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 11), 993);

/// A client whose port is one of the usual SNAT ports.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 30000);
/// Another client with the same port.
pub const OTHER_CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 30000);

/// The gateway's address towards backends.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// The gateway's hardware address on the clients' side.
pub const WAN_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x01];
/// The gateway's hardware address on the backends' side.
pub const LAN_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x02];
/// The router that all clients are behind.
pub const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0x01];

/// First in order of `passwords`.
pub const PRIMARY: Member =
    Member { name: "server1", address: Ipv4Addr::new(10, 0, 2, 11), mac: [2, 0, 0, 0, 3, 1] };
/// Second in order of `passwords`.
pub const BACKUP: Member =
    Member { name: "server2", address: Ipv4Addr::new(10, 0, 2, 12), mac: [2, 0, 0, 0, 3, 2] };
/// The only backend of `mail`.
pub const POSTMAN: Member =
    Member { name: "postman", address: Ipv4Addr::new(10, 0, 2, 13), mac: [2, 0, 0, 0, 3, 3] };

/// What SNAT ports the usual pools have: the contract's default.
pub const USUAL_SNAT_PORTS: [RangeInclusive<u16>; 2] = [1024..=32767, 61000..=65535];

const PASSWORDS: &str = "passwords";

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
}

impl Member {
    /// One of its ports.
    #[must_use]
    pub const fn at(self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, port)
    }
}

/// One of the gateway's ports towards backends.
#[must_use]
pub const fn gateway(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(GATEWAY, port)
}

/// A side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards clients.
    Wan,
    /// Towards backends.
    Lan,
}

impl Side {
    /// Where a packet comes in, by its source MAC.
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        if packet.source_mac == ROUTER_MAC { Self::Wan } else { Self::Lan }
    }

    /// The gateway's hardware address there.
    #[must_use]
    pub fn mac(self) -> Mac {
        match self {
            Self::Wan => WAN_MAC,
            Self::Lan => LAN_MAC,
        }
    }

    /// Its interface in the lab.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Wan => "wan0",
            Self::Lan => "lan0",
        }
    }
}

/// On which side a host is, and who the gateway's neighbour towards it is.
pub(super) fn neighbour(host: Ipv4Addr) -> (Side, Mac) {
    let member = [PRIMARY, BACKUP, POSTMAN].into_iter().find(|member| member.address == host);
    member.map_or((Side::Wan, ROUTER_MAC), |member| (Side::Lan, member.mac))
}

/// A segment as it arrives at the gateway's interface.
#[must_use]
pub fn tcp(source: SocketAddrV4, destination: SocketAddrV4) -> Packet {
    let (side, mac) = neighbour(*source.ip());
    Packet::new(source, destination).with(|packet| {
        packet.source_mac = mac;
        packet.destination_mac = side.mac();
    })
}

/// What the program has been told.
#[derive(Clone, Debug)]
pub struct Given {
    pub(super) plan: Vec<PoolPlan>,
    pub(super) active: Option<Member>,
    pub(super) unreachable: Vec<Member>,
    pub(super) sides: Vec<Side>,
    pub(super) sizes: TableSizes,
    pub(super) lan_mtu: u32,
}

/// Pool `passwords` with [`WEB`] and [`API`] on [`PRIMARY`], which is active, and [`BACKUP`]; pool `mail` with [`MAIL`]
/// on [`POSTMAN`]; every way resolved.
#[must_use]
pub fn usual() -> Given {
    let service = |name: &str, listen, backend_port| ServicePlan { name: name.into(), listen, backend_port };
    let pool = |name: &str, services, members: &[Member]| PoolPlan {
        name: name.into(),
        snat_ports: USUAL_SNAT_PORTS.to_vec(),
        services,
        backends: members
            .iter()
            .map(|member| BackendPlan { name: member.name.into(), address: member.address })
            .collect(),
    };
    let passwords = vec![service("web", WEB, 10001), service("api", API, 8877)];
    Given {
        plan: vec![
            pool(PASSWORDS, passwords, &[PRIMARY, BACKUP]),
            pool("mail", vec![service("imaps", MAIL, 993)], &[POSTMAN]),
        ],
        active: Some(PRIMARY),
        unreachable: Vec::new(),
        sides: vec![Side::Wan, Side::Lan],
        sizes: TableSizes { max_flows: 64, max_half_open: 64 },
        lan_mtu: 1500,
    }
}

impl Given {
    /// `passwords` has no active backend.
    #[must_use]
    pub fn nobody_active(self) -> Self {
        Self { active: None, ..self }
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

    /// `passwords` has these SNAT ports and no others.
    #[must_use]
    pub fn snat_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        for pool in self.plan.iter_mut().filter(|pool| pool.name == PASSWORDS) {
            pool.snat_ports = vec![ports.clone()];
        }
        self
    }

    /// At most this many established flows.
    #[must_use]
    pub fn max_flows(mut self, max_flows: u32) -> Self {
        self.sizes.max_flows = max_flows;
        self
    }

    /// At most this many handshakes under way.
    #[must_use]
    pub fn max_half_open(mut self, max_half_open: u32) -> Self {
        self.sizes.max_half_open = max_half_open;
        self
    }

    /// The largest IP packet on the backends' side.
    #[must_use]
    pub fn lan_mtu(self, lan_mtu: u32) -> Self {
        Self { lan_mtu, ..self }
    }

    /// The pool and the service in it that listen here.
    pub(super) fn service(&self, listen: SocketAddrV4) -> Option<(&PoolPlan, &ServicePlan)> {
        let services =
            self.plan.iter().flat_map(|pool| pool.services.iter().map(move |service| (pool, service)));
        services.into_iter().find(|(_, service)| service.listen == listen)
    }

    /// The port of a service on its backends.
    pub(super) fn backend_port(&self, listen: SocketAddrV4) -> u16 {
        self.service(listen).map_or(listen.port(), |(_, service)| service.backend_port)
    }

    /// The service that a backend offers at this address and port.
    pub(super) fn service_behind(&self, offered: SocketAddrV4) -> Option<&ServicePlan> {
        let pool = self
            .plan
            .iter()
            .find(|pool| pool.backends.iter().any(|backend| backend.address == *offered.ip()))?;
        pool.services.iter().find(|service| service.backend_port == offered.port())
    }
}
