//! The subnets of a lab, and the addresses in them, in both families.
//!
//! The last part of an address is the same in every subnet and family, so that a trace reads alike: `.11` and `::11`
//! are the same backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The option of `ip` that means it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subnet {
    /// Clients, and the gateway's `wan0`.
    Wan,
    /// Backends, and the gateway's `lan0`.
    Lan,
    /// More backends, and the gateway's `lan1`.
    SecondLan,
    /// Clients behind a router.
    Remote,
    /// Backends behind a router.
    Rack,
}

impl Subnet {
    pub(super) const ALL: [Self; 5] = [Self::Wan, Self::Lan, Self::SecondLan, Self::Remote, Self::Rack];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
            Self::SecondLan => "lan1",
            Self::Remote => "remote",
            Self::Rack => "rack",
        }
    }

    pub(super) fn address(self, family: Family, last: u8) -> IpAddr {
        let (v4, v6) = match self {
            Self::Wan => ([203, 0, 113], [0x2001, 0xdb8, 1]),
            Self::Lan => ([10, 0, 2], [0xfd00, 2, 0]),
            Self::SecondLan => ([10, 0, 3], [0xfd00, 3, 0]),
            Self::Remote => ([198, 51, 100], [0x2001, 0xdb8, 2]),
            Self::Rack => ([10, 0, 4], [0xfd00, 4, 0]),
        };
        match family {
            Family::V4 => Ipv4Addr::new(v4[0], v4[1], v4[2], last).into(),
            Family::V6 => Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, same_digits(last)).into(),
        }
    }

    /// `ADDRESS/LENGTH` as `ip` wants it.
    pub(super) fn prefix(self, family: Family) -> String {
        format!("{}/{}", self.address(family, 0), prefix_length(family))
    }
}

pub(super) fn prefix_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// The number whose hexadecimal digits are the decimal ones of `last`: `::11` for 11.
fn same_digits(last: u8) -> u16 {
    let [hundreds, tens, ones] = [last / 100, last / 10 % 10, last % 10].map(u16::from);
    hundreds << 8 | tens << 4 | ones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_end_alike() {
        for (last, v4, v6) in [
            (1, "10.0.2.1", "fd00:2::1"),
            (11, "10.0.2.11", "fd00:2::11"),
            (201, "10.0.2.201", "fd00:2::201"),
        ] {
            assert_eq!(Subnet::Lan.address(Family::V4, last).to_string(), v4);
            assert_eq!(Subnet::Lan.address(Family::V6, last).to_string(), v6);
        }
        assert_eq!(Subnet::Remote.prefix(Family::V6), "2001:db8:2::/64");
    }
}
