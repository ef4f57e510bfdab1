//! Who is who in packet cases: one pool for each family and way of forwarding, and some more.
//!
//! One gateway with a side for clients and a side for backends. All clients are behind one router; each backend is a
//! neighbour of its own. Nothing of this exists but the two interfaces: hardware addresses and ways are told to the
//! program by the same calls that the controller makes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::packet::{Icmp, Mac, Packet};

/// The gateway's hardware address on the clients' side.
pub const WAN_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x01];
/// The gateway's hardware address on the backends' side.
pub const LAN_MAC: Mac = [0x02, 0, 0, 0, 0x01, 0x02];
/// The router that all clients are behind.
pub const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0x01];
/// Another router on the clients' side, which clients may move behind.
pub const OTHER_ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0x02, 0x02];

/// How the packets of a pool's flows are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Backends see the gateway.
    Snat,
    /// Backends see the client.
    Dnat,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; no two have the same.
    pub name: &'static str,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

impl Member {
    /// One of its ports.
    #[must_use]
    pub const fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// The port on the backends.
    pub backend_port: u16,
}

/// A pool with everybody around it.
#[derive(Debug, PartialEq, Eq)]
pub struct Scene {
    /// What is particular about it, and the pool's name.
    pub name: &'static str,
    /// How its packets are changed.
    pub forwarding: Forwarding,
    /// A service whose port changes on the way: 443 to 10001.
    pub web: Service,
    /// Another one, whose port stays.
    pub api: Service,
    /// First in order, and active.
    pub primary: Member,
    /// Second in order.
    pub backup: Member,
    /// Third in order.
    pub spare: Member,
    /// A client whose port is one of the usual SNAT ports.
    pub client: SocketAddr,
    /// Another client with the same port.
    pub other_client: SocketAddr,
    /// The gateway's address towards the backends.
    pub gateway: IpAddr,
    /// Addresses to use instead of it.
    pub snat_addresses: &'static [IpAddr],
}

/// IPv4, backends see the gateway.
pub static SNAT4: Scene = scene4("IPv4 snat", Forwarding::Snat, 10, ["server1", "server2", "server3"], &[]);
/// IPv4, backends see the client.
pub static DNAT4: Scene = scene4("IPv4 dnat", Forwarding::Dnat, 20, ["file1", "file2", "file3"], &[]);
/// IPv6, backends see the gateway.
pub static SNAT6: Scene =
    scene6("IPv6 snat", Forwarding::Snat, 0x10, ["server6-1", "server6-2", "server6-3"], &[]);
/// IPv6, backends see the client.
pub static DNAT6: Scene = scene6("IPv6 dnat", Forwarding::Dnat, 0x20, ["file6-1", "file6-2", "file6-3"], &[]);
/// As [`SNAT4`], and nobody's business but its own.
pub static MAIL: Scene = scene4("mail", Forwarding::Snat, 30, ["postman1", "postman2", "postman3"], &[]);
/// As [`SNAT4`], with two SNAT addresses.
pub static WIDE4: Scene =
    scene4("IPv4 wide", Forwarding::Snat, 40, ["wide1", "wide2", "wide3"], &WIDE4_ADDRESSES);
/// As [`SNAT6`], with two SNAT addresses.
pub static WIDE6: Scene =
    scene6("IPv6 wide", Forwarding::Snat, 0x40, ["wide6-1", "wide6-2", "wide6-3"], &WIDE6_ADDRESSES);

static WIDE4_ADDRESSES: [IpAddr; 2] = [lan4(2), lan4(3)];
static WIDE6_ADDRESSES: [IpAddr; 2] = [lan6(2), lan6(3)];

/// Every pool that the program is told of.
pub static POOLS: [&Scene; 7] = [&SNAT4, &DNAT4, &SNAT6, &DNAT6, &MAIL, &WIDE4, &WIDE6];

/// What a case has to hold in that holds for packets of any kind.
pub static SCENES: [&Scene; 4] = [&SNAT4, &DNAT4, &SNAT6, &DNAT6];

const fn lan4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 2, last))
}

const fn lan6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0a00, 2, 0, 0, 0, 0, last))
}

const fn scene4(
    name: &'static str,
    forwarding: Forwarding,
    number: u8,
    [primary, backup, spare]: [&'static str; 3],
    snat_addresses: &'static [IpAddr],
) -> Scene {
    let vip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, number));
    Scene {
        name,
        forwarding,
        web: Service { name: "web", listen: SocketAddr::new(vip, 443), backend_port: 10001 },
        api: Service { name: "api", listen: SocketAddr::new(vip, 8877), backend_port: 8877 },
        primary: Member { name: primary, address: lan4(number + 1), mac: [2, 0, 0, 4, number, 1] },
        backup: Member { name: backup, address: lan4(number + 2), mac: [2, 0, 0, 4, number, 2] },
        spare: Member { name: spare, address: lan4(number + 3), mac: [2, 0, 0, 4, number, 3] },
        client: CLIENT4,
        other_client: OTHER_CLIENT4,
        gateway: lan4(1),
        snat_addresses,
    }
}

const fn scene6(
    name: &'static str,
    forwarding: Forwarding,
    number: u8,
    [primary, backup, spare]: [&'static str; 3],
    snat_addresses: &'static [IpAddr],
) -> Scene {
    let last = number as u16;
    let vip = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, last));
    Scene {
        name,
        forwarding,
        web: Service { name: "web", listen: SocketAddr::new(vip, 443), backend_port: 10001 },
        api: Service { name: "api", listen: SocketAddr::new(vip, 8877), backend_port: 8877 },
        primary: Member { name: primary, address: lan6(last + 1), mac: [2, 0, 0, 6, number, 1] },
        backup: Member { name: backup, address: lan6(last + 2), mac: [2, 0, 0, 6, number, 2] },
        spare: Member { name: spare, address: lan6(last + 3), mac: [2, 0, 0, 6, number, 3] },
        client: CLIENT6,
        other_client: OTHER_CLIENT6,
        gateway: lan6(1),
        snat_addresses,
    }
}

const CLIENT4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 30000);
const OTHER_CLIENT4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)), 30000);
const CLIENT6: SocketAddr = client6(7);
const OTHER_CLIENT6: SocketAddr = client6(8);

const fn client6(last: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, last)), 30000)
}

impl Scene {
    /// Whether its addresses are IPv4 ones.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.web.listen.is_ipv4()
    }

    /// The address that its services listen on.
    #[must_use]
    pub fn vip(&self) -> IpAddr {
        self.web.listen.ip()
    }

    /// Its services.
    #[must_use]
    pub fn services(&self) -> [Service; 2] {
        [self.web, self.api]
    }

    /// Its backends in their order.
    #[must_use]
    pub fn members(&self) -> [Member; 3] {
        [self.primary, self.backup, self.spare]
    }

    /// A host that the cases otherwise don't know, behind the clients' router.
    #[must_use]
    pub fn stranger(&self) -> IpAddr {
        if self.is_ipv4() {
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99))
        } else {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99))
        }
    }

    /// The addresses that backends may see instead of clients'.
    pub(super) fn addresses_of_ours(&self) -> Vec<IpAddr> {
        if self.snat_addresses.is_empty() { vec![self.gateway] } else { self.snat_addresses.to_vec() }
    }
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
    /// Where a frame comes in, by its source MAC.
    #[must_use]
    pub fn of(source: Mac) -> Self {
        if [ROUTER_MAC, OTHER_ROUTER_MAC].contains(&source) { Self::Wan } else { Self::Lan }
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
pub(super) fn neighbour(host: IpAddr) -> (Side, Mac) {
    let mut members = POOLS.iter().flat_map(|scene| scene.members());
    members
        .find(|member| member.address == host)
        .map_or((Side::Wan, ROUTER_MAC), |member| (Side::Lan, member.mac))
}

/// A segment as it arrives at the gateway's interface.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Packet {
    let (side, mac) = neighbour(source.ip());
    Packet::new(source, destination).with(|packet| {
        packet.ethernet.source = mac;
        packet.ethernet.destination = side.mac();
    })
}

/// An ICMP message as it arrives at the gateway's interface.
#[must_use]
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Icmp {
    let (side, mac) = neighbour(source);
    Icmp::new(source, destination, kind, code).with(|message| {
        message.ethernet.source = mac;
        message.ethernet.destination = side.mac();
    })
}
