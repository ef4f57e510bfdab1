//! Who is who: the addresses of both labs, and what a test varies.
//!
//! ```text
//! clients ── router .7 ──── wan0 gateway lan0 ──── backend
//! any of     203.0.113.7    .1, VIP .10  10.0.2.1  10.0.2.11
//! 198.51.100.0/24
//! ```
//! Clients are behind a router, so that any number of them, and routers on their way, share one hardware address that the
//! gateway knows beforehand.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::packet::Mac;

/// The service's port on the VIP.
pub(super) const LISTEN_PORT: u16 = 443;
/// The service's port on the backend.
pub(super) const BACKEND_PORT: u16 = 10001;

/// Of the clients' router, the gateway's two arms and the backend; made up, in the range that nobody owns.
pub(super) const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 7];
pub(super) const WAN_MAC: Mac = [2, 0, 0, 0, 1, 1];
pub(super) const LAN_MAC: Mac = [2, 0, 0, 0, 2, 1];
pub(super) const BACKEND_MAC: Mac = [2, 0, 0, 0, 2, 11];

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// 4.
    V4,
    /// 6.
    V6,
}

/// The pool's way of forwarding, as in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// Backends see the gateway.
    Snat,
    /// Backends see the client.
    Dnat,
}

/// What to build twice.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Of everybody.
    pub family: Family,
    /// Of the one pool.
    pub forwarding: Forwarding,
    /// Of the gateway's `lan0`; its `wan0` has 1500.
    pub lan_mtu: u16,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.family, self.forwarding)
    }
}

/// Which end of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The clients' router, at `wan0`.
    Client,
    /// The backend, at `lan0`.
    Backend,
}

impl End {
    /// Across the gateway.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

impl Scene {
    /// How many conversations a pair of labs can carry before a port would come again.
    pub const CONVERSATIONS_MAX: u64 = 30_000;

    fn choose(self, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
        match self.family {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        }
    }

    /// The gateway's address at `wan0`.
    pub(super) fn wan(self) -> IpAddr {
        self.choose(Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))
    }

    /// The clients' router.
    pub(super) fn router(self) -> IpAddr {
        self.choose(Ipv4Addr::new(203, 0, 113, 7), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7))
    }

    /// The gateway's address at `lan0`, which backends see in a snat pool.
    pub(super) fn lan(self) -> IpAddr {
        self.choose(Ipv4Addr::new(10, 0, 2, 1), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1))
    }

    /// Somebody else on the backend's side, a router say.
    pub(super) fn lan_stranger(self) -> IpAddr {
        self.choose(Ipv4Addr::new(10, 0, 2, 99), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x99))
    }

    /// The backend.
    pub(super) fn backend(self) -> SocketAddr {
        let address = self.choose(Ipv4Addr::new(10, 0, 2, 11), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 11));
        SocketAddr::new(address, BACKEND_PORT)
    }

    /// The service.
    pub(super) fn listen(self) -> SocketAddr {
        let address =
            self.choose(Ipv4Addr::new(203, 0, 113, 10), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10));
        SocketAddr::new(address, LISTEN_PORT)
    }

    /// Where clients live, as a route says it.
    pub(super) fn clients(self) -> &'static str {
        match self.family {
            Family::V4 => "198.51.100.0/24",
            Family::V6 => "2001:db8:51::/64",
        }
    }

    /// One of the clients.
    pub(super) fn client(self, number: u8) -> IpAddr {
        self.choose(
            Ipv4Addr::new(198, 51, 100, number),
            Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, u16::from(number)),
        )
    }

    /// Client and port of the conversation of this number. Each has a port that no other has (up to
    /// [`Scene::CONVERSATIONS_MAX`]), and that balancer may use towards a backend: the edges of its default ranges first.
    pub(super) fn client_of(self, conversation: u64) -> SocketAddr {
        const EDGES: [u16; 4] = [1024, 32767, 61000, 65535];
        let index = conversation % Self::CONVERSATIONS_MAX;
        // 7919 and the number of ports have no divisor in common, so each port comes once.
        let spread = 1025 + (index * 7919 % Self::CONVERSATIONS_MAX) as u16;
        let port = match EDGES.get(index as usize) {
            Some(edge) => *edge,
            // Services' ports; nobody else has this one.
            None if spread == BACKEND_PORT => 62000,
            None => spread,
        };
        SocketAddr::new(self.client(1 + (index % 200) as u8), port)
    }

    /// Bits of the subnets of the gateway's arms.
    pub(super) fn subnet_bits(self) -> u8 {
        match self.family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// Bits of one address.
    pub(super) fn address_bits(self) -> u8 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}
