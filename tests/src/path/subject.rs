//! Who is measured: balancer and its peers, and where each of them is.
//!
//! Each has a backend's port of its own, so that what the backend remembers of one's connections (TIME_WAIT) is in
//! nobody else's way.

use std::net::SocketAddr;

use crate::lab::Lab;

use super::direct;

/// What stands between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The product, snat.
    Balancer,
    /// The gateway's kernel routes, and nothing is translated.
    Routing,
    /// The gateway's kernel translates: DNAT, and masquerade.
    Nft,
    /// nginx with its stream module.
    Nginx,
    /// HAProxy in tcp mode.
    Haproxy,
    /// An XDP program that redirects everything and looks at nothing; no connection fits through it.
    Redirect,
    /// No gateway: a cable from the client to the backend.
    Direct,
}

impl Subject {
    /// In the order of the report's columns.
    pub const ALL: [Self; 7] =
        [Self::Balancer, Self::Routing, Self::Nft, Self::Nginx, Self::Haproxy, Self::Redirect, Self::Direct];

    /// The report's column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Routing => "routing",
            Self::Nft => "nft",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Redirect => "redirect",
            Self::Direct => "no gateway",
        }
    }

    /// Whether it hands frames on from one cable to the other.
    #[must_use]
    pub fn forwards_frames(self) -> bool {
        !matches!(self, Self::Nginx | Self::Haproxy | Self::Direct)
    }

    /// Whether a connection fits through it.
    #[must_use]
    pub fn takes_connections(self) -> bool {
        self != Self::Redirect
    }

    /// Where it sends what it takes.
    #[must_use]
    pub fn backend(self, lab: &Lab) -> SocketAddr {
        let address = if self == Self::Direct { direct::BACKEND } else { lab.backend(0).address() };
        SocketAddr::new(address, 9001 + self.number())
    }

    /// Where clients meet it.
    #[must_use]
    pub fn target(self, lab: &Lab) -> SocketAddr {
        match self {
            Self::Routing | Self::Redirect | Self::Direct => self.backend(lab),
            Self::Balancer | Self::Nft | Self::Nginx | Self::Haproxy => {
                SocketAddr::new(lab.vip(), 8001 + self.number())
            }
        }
    }

    fn number(self) -> u16 {
        self as u16
    }
}
