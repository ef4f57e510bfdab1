//! What a configuration is held against: the interfaces, addresses and ports of this network namespace, as data.
//!
//! All of it comes from system calls and `/proc/sys/net`, which answer for the calling thread's network namespace.
//! Deliberately not `/sys/class/net`: it shows the namespace in which sysfs was mounted, under `nsenter --net` the
//! wrong one.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;
use nix::sys::socket::SockaddrStorage;

const EPHEMERAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The part of the machine that a configuration speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Names of all network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Those of them whose packets have no Ethernet header, as those of tunnels and PPP.
    pub headless: BTreeSet<String>,
    /// All addresses of this machine.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports that are somebody's already.
    pub ports: KernelPorts,
}

/// Ports that flows must not leave from, as the kernel's settings are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPorts {
    /// Ports that the kernel gives to sockets of this machine (`ip_local_port_range`).
    pub ephemeral: RangeInclusive<u16>,
    /// Ports that the operator keeps for programs of this machine (`ip_local_reserved_ports`).
    pub reserved: Vec<RangeInclusive<u16>>,
}

/// The machine didn't tell about itself.
#[derive(Debug, thiserror::Error)]
pub enum SurroundingsError {
    /// A system call failed.
    #[error("can't list {what}: {source}; the machine may be out of memory or of file descriptors")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// A setting of the kernel can't be read.
    #[error("can't read {path}: {source}; is /proc mounted?")]
    Setting {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A setting of the kernel isn't made of ports.
    #[error("{path} holds {text:?}, which isn't a range of ports")]
    NotPorts {
        /// The file.
        path: &'static str,
        /// What it holds.
        text: String,
    },
}

impl Surroundings {
    /// Those of the calling thread's network namespace, now.
    pub fn read() -> Result<Self, SurroundingsError> {
        let interfaces =
            if_nameindex().map_err(|source| SurroundingsError::System { what: "the interfaces", source })?;
        let (mut addresses, mut seen, mut with_header) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for one in
            getifaddrs().map_err(|source| SurroundingsError::System { what: "the addresses", source })?
        {
            if let Some(address) = one.address {
                addresses.extend(ip(&address));
                if has_ethernet_header(&address) {
                    with_header.insert(one.interface_name.clone());
                }
            }
            seen.insert(one.interface_name);
        }
        Ok(Self {
            interfaces: interfaces.iter().map(|one| one.name().to_string_lossy().into_owned()).collect(),
            headless: seen.difference(&with_header).cloned().collect(),
            addresses,
            ports: KernelPorts::read()?,
        })
    }
}

impl KernelPorts {
    /// Those of the calling thread's network namespace.
    pub fn read() -> Result<Self, SurroundingsError> {
        Ok(Self {
            ephemeral: ports_in(EPHEMERAL_PORTS, ephemeral_ports)?,
            reserved: ports_in(RESERVED_PORTS, reserved_ports)?,
        })
    }

    /// All of them, in any order.
    pub fn all(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        std::iter::once(self.ephemeral.clone()).chain(self.reserved.iter().cloned())
    }
}

fn ports_in<T>(path: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, SurroundingsError> {
    let text = setting(path)?;
    parse(&text).ok_or(SurroundingsError::NotPorts { path, text })
}

fn setting(path: &'static str) -> Result<String, SurroundingsError> {
    std::fs::read_to_string(Path::new(path)).map_err(|source| SurroundingsError::Setting { path, source })
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Whether it is the hardware address of an interface with an Ethernet header before its packets; the loopback has one.
fn has_ethernet_header(address: &SockaddrStorage) -> bool {
    address
        .as_link_addr()
        .is_some_and(|link| [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&link.hatype()))
}

/// `32768 60999`, with a tab between them.
fn ephemeral_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// `8080,9000-9010`, or nothing.
fn reserved_ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |piece: &str| {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.trim().split(',').filter(|piece| !piece.trim().is_empty()).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_settings_are_understood() {
        assert_eq!(ephemeral_ports("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(ephemeral_ports("32768"), None);
        assert_eq!(reserved_ports("\n"), Some(vec![]));
        assert_eq!(reserved_ports("8080,9000-9010\n"), Some(vec![8080..=8080, 9000..=9010]));
        assert_eq!(reserved_ports("x\n"), None);
    }

    #[test]
    fn this_machine_tells_about_itself() {
        let here = Surroundings::read().unwrap();
        assert!(here.interfaces.contains("lo") && !here.headless.contains("lo"), "{here:?}");
        assert!(!here.ports.ephemeral.is_empty(), "{here:?}");
    }
}
