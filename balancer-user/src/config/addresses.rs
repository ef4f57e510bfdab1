//! Addresses: where a service listens, where a backend is, and what packets to backends come from; what can be none of
//! these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::names;
use super::problem::{Fault, quoted};

const BACKEND_EXAMPLE: &str = "write the backend's own address, as in \"10.0.2.11\", or its host name";

/// `203.0.113.10:443` or `[2001:db8::10]:443`, with a port above 0.
pub(super) fn socket(written: &str) -> Result<SocketAddr, Fault> {
    const EXAMPLE: &str = "write an address and a port, as in \"203.0.113.10:443\" or \"[2001:db8::10]:443\"";
    let shown = quoted(written);
    if written.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(format!("{shown} has no port"), EXAMPLE));
    }
    let Some((host, port)) = written.rsplit_once(':') else {
        return Err(Fault::new(format!("{shown} has no port"), EXAMPLE));
    };
    let address: Option<IpAddr> = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    let Some(address) = address else {
        let why = if names::is_host(host) { "a name can't be listened on" } else { "is not an IP address" };
        return Err(Fault::new(format!("{}: {why}", quoted(host)), EXAMPLE));
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !port_has_sign(written) => Ok(SocketAddr::new(address, port)),
        Ok(_) | Err(_) => {
            Err(Fault::new(format!("{} is not a port", quoted(port)), "write a port from 1 to 65535"))
        }
    }
}

/// `u16::from_str` takes `+443`.
fn port_has_sign(written: &str) -> bool {
    written.rsplit(':').next().is_some_and(|port| port.starts_with('+'))
}

/// Where a service listens: an address of this gateway that clients can reach.
pub(super) fn listen(written: &str) -> Result<SocketAddr, Fault> {
    let listen = socket(written)?;
    match unusable(listen.ip()) {
        None => Ok(listen),
        Some(Unusable::Mapped(v4)) => Err(mapped(v4, &format!("{v4}:{}", listen.port()))),
        Some(kind) => Err(Fault::new(
            format!(
                "{} is {}: no client's packet arrives there through an interface",
                listen.ip(),
                kind.name()
            ),
            "write one of this gateway's addresses, the one that clients connect to",
        )),
    }
}

/// Where a backend is, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The address of one other machine.
    Ip(IpAddr),
    /// A host name, which is to be resolved.
    Host(String),
}

/// Where a backend is: one other machine.
pub(super) fn backend(written: &str) -> Result<Place, Fault> {
    let Ok(address) = written.parse::<IpAddr>() else {
        if written.parse::<SocketAddr>().is_ok() {
            return Err(Fault::new(
                format!("{} has a port", quoted(written)),
                "write the address alone; the port is the service's `backend_port`",
            ));
        }
        if names::is_host(written) {
            return Ok(Place::Host(written.to_owned()));
        }
        let message = format!("{} is neither an IP address nor a host name", quoted(written));
        return Err(Fault::new(message, BACKEND_EXAMPLE));
    };
    machine(address).map(Place::Ip)
}

/// The address of one other machine.
pub(super) fn machine(address: IpAddr) -> Result<IpAddr, Fault> {
    match unusable(address) {
        None => Ok(address),
        Some(Unusable::Mapped(v4)) => Err(mapped(v4, &v4.to_string())),
        Some(kind) => {
            let message = format!("{address} is {}: no backend can be reached there", kind.name());
            Err(Fault::new(message, BACKEND_EXAMPLE))
        }
    }
}

/// Why no backend can be reached at an address, whatever the machine.
pub(super) fn unreachable(address: IpAddr) -> Option<&'static str> {
    unusable(address).map(Unusable::name)
}

/// What packets to backends come from: an address of this gateway.
pub(super) fn source(written: &str) -> Result<IpAddr, Fault> {
    const EXAMPLE: &str =
        "write an address of this gateway that the backends can answer to, as in \"10.0.2.1\"";
    let Ok(address) = written.parse::<IpAddr>() else {
        if written.parse::<SocketAddr>().is_ok() {
            return Err(Fault::new(
                format!("{} has a port", quoted(written)),
                "write the address alone; the ports are those of `snat_ports`",
            ));
        }
        return Err(Fault::new(format!("{} is not an IP address", quoted(written)), EXAMPLE));
    };
    match unusable(address) {
        None => Ok(address),
        Some(Unusable::Mapped(v4)) => Err(mapped(v4, &v4.to_string())),
        Some(kind) => {
            Err(Fault::new(format!("{address} is {}: no backend can answer to it", kind.name()), EXAMPLE))
        }
    }
}

fn mapped(v4: Ipv4Addr, instead: &str) -> Fault {
    Fault::new(format!("is {v4} written as an IPv6 address"), format!("write \"{instead}\""))
}

/// Why an address can't be that of one machine on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusable {
    Unspecified,
    Loopback,
    Multicast,
    Broadcast,
    /// Only of an IPv6 interface's own wire, and nothing without the interface's name.
    LinkLocal,
    /// IPv4 in an IPv6 coat; on the wire it is IPv4.
    Mapped(Ipv4Addr),
}

impl Unusable {
    const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::LinkLocal => "a link-local address",
            Self::Mapped(_) => "an IPv4 address in IPv6 notation",
        }
    }
}

fn unusable(address: IpAddr) -> Option<Unusable> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Some(Unusable::Mapped(v4));
    }
    // All of 0.0.0.0/8 means "this network" (RFC 1122); the kernel takes no packet for it.
    let this_network = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0);
    if address.is_unspecified() || this_network {
        Some(Unusable::Unspecified)
    } else if address.is_loopback() {
        Some(Unusable::Loopback)
    } else if address.is_multicast() {
        Some(Unusable::Multicast)
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some(Unusable::Broadcast)
    } else if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        Some(Unusable::LinkLocal)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_port_is_read() {
        for good in ["203.0.113.10:443", "10.0.0.1:65535", "[2001:db8::10]:1"] {
            assert_eq!(listen(good).map(|listen| listen.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn where_nothing_can_listen_is_refused_with_the_reason() {
        for (written, why) in [
            ("203.0.113.10", "has no port"),
            ("2001:db8::10", "has no port"),
            ("", "has no port"),
            ("203.0.113.10:0", "not a port"),
            ("203.0.113.10:65536", "not a port"),
            ("203.0.113.10:+443", "not a port"),
            ("203.0.113.10:", "not a port"),
            ("web.example.org:443", "a name can't be listened on"),
            ("203.0.113.256:443", "is not an IP address"),
            ("[203.0.113.10]:443", "is not an IP address"),
            ("2001:db8::10:443x", "is not an IP address"),
            ("0.0.0.0:443", "unspecified"),
            ("[::]:443", "unspecified"),
            ("127.0.0.1:443", "loopback"),
            ("[::1]:443", "loopback"),
            ("224.0.0.1:443", "multicast"),
            ("255.255.255.255:443", "broadcast"),
            ("[ff02::1]:443", "multicast"),
            ("[fe80::1]:443", "link-local"),
            ("[::ffff:203.0.113.10]:443", "written as an IPv6 address"),
        ] {
            let fault = listen(written).expect_err(written);
            assert!(fault.message.contains(why), "{written}: {}", fault.message);
        }
    }

    #[test]
    fn where_no_backend_can_be_is_refused_with_the_reason() {
        let ip = |address| Ok(Place::Ip(address));
        assert_eq!(backend("10.0.2.11"), ip(IpAddr::from([10, 0, 2, 11])));
        assert_eq!(backend("2001:db8:2::11"), ip(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11])));
        assert_eq!(backend("db1.example.org"), Ok(Place::Host("db1.example.org".to_owned())));
        for (written, why) in [
            ("10.0.2.11:443", "has a port"),
            ("[2001:db8::1]:443", "has a port"),
            ("10.0.2.256", "is neither an IP address nor a host name"),
            ("", "is neither an IP address nor a host name"),
            ("db1..example.org", "is neither an IP address nor a host name"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.0.0.53", "loopback"),
            ("::1", "loopback"),
            ("239.1.1.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("ff05::2", "multicast"),
            ("fe80::11", "link-local"),
            ("::ffff:10.0.2.11", "written as an IPv6 address"),
        ] {
            let fault = backend(written).expect_err(written);
            assert!(fault.message.contains(why), "{written}: {}", fault.message);
        }
    }

    #[test]
    fn what_no_backend_can_answer_to_is_refused_with_the_reason() {
        assert_eq!(source("10.0.2.1"), Ok(IpAddr::from([10, 0, 2, 1])));
        for (written, why) in [
            ("10.0.2.1:1024", "has a port"),
            ("gateway", "is not an IP address"),
            ("0.0.0.0", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("fe80::1", "link-local"),
            ("::ffff:10.0.2.1", "written as an IPv6 address"),
        ] {
            let fault = source(written).expect_err(written);
            assert!(fault.message.contains(why), "{written}: {}", fault.message);
        }
    }
}
