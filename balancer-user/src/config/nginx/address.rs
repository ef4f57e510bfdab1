//! Where nginx listens, and where it sends to: the forms of `listen`, of `server` in an upstream, and of `proxy_pass`.
//!
//! Only how they are read; whether balancer can do the same is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::super::names;

/// What nginx takes where a `listen` of `http` or a server there names no port.
pub(super) const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A machine, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// In lower case: nginx tells no case apart.
    Name(String),
    /// `unix:` and a path.
    Unix,
}

/// `host`, `host:port` or `unix:path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

impl Endpoint {
    /// None: not one, or with a variable in it.
    pub(super) fn parse(written: &str) -> Option<Self> {
        if is_unix(written) {
            return Some(Self { host: Host::Unix, port: None });
        }
        let (host, port) = host_and_port(written)?;
        let port = match port {
            Some(port) => Some(self::port(port)?),
            None => None,
        };
        Some(Self { host: self::host(host)?, port })
    }
}

fn is_unix(written: &str) -> bool {
    written.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:"))
}

/// The host without brackets' meaning lost, and what stands behind the colon.
fn host_and_port(written: &str) -> Option<(&str, Option<&str>)> {
    if written.starts_with('[') {
        let end = written.find(']')? + 1;
        let (host, behind) = written.split_at(end);
        return match behind.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => behind.is_empty().then_some((host, None)),
        };
    }
    Some(match written.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (written, None),
    })
}

fn host(written: &str) -> Option<Host> {
    if let Some(inner) = written.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|address| Host::Ip(address.into()));
    }
    if let Ok(address) = written.parse::<Ipv4Addr>() {
        return Some(Host::Ip(address.into()));
    }
    let name = written.to_ascii_lowercase();
    names::is_host(&name).then_some(Host::Name(name))
}

fn port(written: &str) -> Option<u16> {
    let is_number = written.bytes().all(|byte| byte.is_ascii_digit());
    written.parse().ok().filter(|port| is_number && *port > 0)
}

/// `8000` or `8000-8010`.
fn ports(written: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// On which address nginx listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum On {
    /// All of IPv4.
    AnyV4,
    /// All of IPv6.
    AnyV6,
    Ip(IpAddr),
    /// What a name resolves to.
    Name,
    Unix,
}

/// The first argument of `listen`; `default_port`: where it may name none.
pub(super) fn listen(written: &str, default_port: Option<u16>) -> Option<(On, RangeInclusive<u16>)> {
    if is_unix(written) {
        return Some((On::Unix, 0..=0));
    }
    if let Some(ports) = ports(written) {
        return Some((On::AnyV4, ports));
    }
    if written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    let (host, port) = host_and_port(written)?;
    let ports = match port {
        Some(port) => ports(port)?,
        None => default_port.map(|port| port..=port)?,
    };
    let on = match (host, self::host(host)) {
        ("*", _) => On::AnyV4,
        (_, Some(Host::Ip(address))) if address.is_unspecified() => {
            if address.is_ipv4() {
                On::AnyV4
            } else {
                On::AnyV6
            }
        }
        (_, Some(Host::Ip(address))) => On::Ip(address),
        (_, Some(Host::Name(_))) => On::Name,
        (_, Some(Host::Unix) | None) => return None,
    };
    Some((on, ports))
}

/// Where `proxy_pass` leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// The name of an upstream, or a host, and the port if one is written.
    Host {
        host: String,
        port: Option<u16>,
    },
    Unix,
    /// Known only when a request comes.
    Variable,
    /// nginx refuses it.
    Wrong,
}

/// What `proxy_pass` of `http` (`https://name/path`) or `stream` (`name:port`) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) goal: Goal,
    /// nginx speaks TLS to it because of the scheme.
    pub(super) tls: bool,
    /// The port where none is written.
    pub(super) default_port: Option<u16>,
    /// What is put in place of the request's own path.
    pub(super) path: Option<String>,
}

impl Destination {
    pub(super) fn parse_url(written: &str) -> Self {
        const SCHEMES: [(&str, bool); 4] =
            [("http://", false), ("https://", true), ("grpc://", false), ("grpcs://", true)];
        let scheme = SCHEMES.iter().find(|(scheme, _)| {
            written.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let (tls, rest) = scheme.map_or((false, written), |(scheme, tls)| (*tls, &written[scheme.len()..]));
        let default_port = Some(if tls { HTTPS_PORT } else { HTTP_PORT });
        if is_unix(rest) {
            return Self { goal: Goal::Unix, tls, default_port, path: None };
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = (!matches!(path, "" | "/")).then(|| path.to_owned());
        Self { goal: goal(authority), tls, default_port, path }
    }

    pub(super) fn parse_address(written: &str) -> Self {
        let goal = if is_unix(written) { Goal::Unix } else { goal(written) };
        Self { goal, tls: false, default_port: None, path: None }
    }
}

fn goal(authority: &str) -> Goal {
    if authority.contains('$') {
        return Goal::Variable;
    }
    let wanted = |(host, port): (&str, Option<&str>)| {
        let port = match port {
            Some(port) => Some(self::port(port)?),
            None => None,
        };
        (!host.is_empty()).then(|| Goal::Host { host: host.to_owned(), port })
    };
    host_and_port(authority).and_then(wanted).unwrap_or(Goal::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_has_many_forms() {
        let ip = |text: &str| On::Ip(text.parse().unwrap());
        for (written, on, ports) in [
            ("443", On::AnyV4, 443..=443),
            ("*:443", On::AnyV4, 443..=443),
            ("0.0.0.0:443", On::AnyV4, 443..=443),
            ("[::]:443", On::AnyV6, 443..=443),
            ("[::]", On::AnyV6, 80..=80),
            ("10.0.0.1", ip("10.0.0.1"), 80..=80),
            ("10.0.0.1:8443", ip("10.0.0.1"), 8443..=8443),
            ("[2001:db8::1]:443", ip("2001:db8::1"), 443..=443),
            ("10.0.0.1:8000-8010", ip("10.0.0.1"), 8000..=8010),
            ("8000-8010", On::AnyV4, 8000..=8010),
            ("localhost:80", On::Name, 80..=80),
            ("unix:/run/nginx.sock", On::Unix, 0..=0),
        ] {
            assert_eq!(listen(written, Some(80)), Some((on, ports)), "{written}");
        }
        for bad in
            ["", ":443", "0", "65536", "10.0.0.1:0", "8010-8000", "10.0.0.256:1", "[::1", "$port", "a b"]
        {
            assert_eq!(listen(bad, Some(80)), None, "{bad}");
        }
        assert_eq!(listen("10.0.0.1", None), None);
    }

    #[test]
    fn a_server_is_an_address_a_name_or_a_socket() {
        let read = |written: &str| Endpoint::parse(written).map(|endpoint| (endpoint.host, endpoint.port));
        assert_eq!(read("10.0.2.11:10001"), Some((Host::Ip([10, 0, 2, 11].into()), Some(10001))));
        assert_eq!(read("[2001:db8::1]"), Some((Host::Ip("2001:db8::1".parse().unwrap()), None)));
        assert_eq!(read("DB1.example.org"), Some((Host::Name("db1.example.org".to_owned()), None)));
        assert_eq!(read("unix:/run/app.sock"), Some((Host::Unix, None)));
        for bad in ["", ":80", "a:b", "10.0.0.256", "$host:80", "2001:db8::1", "[10.0.0.1]:80"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn proxy_pass_names_a_goal() {
        let host = |host: &str, port| Goal::Host { host: host.to_owned(), port };
        for (written, goal, tls, path) in [
            ("https://passwords", host("passwords", None), true, None),
            ("HTTP://10.0.2.11:8080/", host("10.0.2.11", Some(8080)), false, None),
            ("http://[2001:db8::1]:80/a?b", host("[2001:db8::1]", Some(80)), false, Some("/a?b")),
            ("http://app$request_uri", Goal::Variable, false, None),
            ("http://app/$1", host("app", None), false, Some("/$1")),
            ("http://unix:/run/x.sock:/", Goal::Unix, false, None),
            ("https://", Goal::Wrong, true, None),
        ] {
            let found = Destination::parse_url(written);
            let expected = (goal, tls, path.map(str::to_owned));
            assert_eq!((found.goal, found.tls, found.path), expected, "{written}");
        }
        assert_eq!(Destination::parse_address("db:5432").goal, host("db", Some(5432)));
        assert_eq!(Destination::parse_address("$backend").goal, Goal::Variable);
    }
}
