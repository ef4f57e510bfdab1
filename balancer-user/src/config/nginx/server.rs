//! `server`: where it listens, where it leads, and what nginx does on the way.
//!
//! In nginx's terms: what becomes of it here is decided by [`routes`](super::routes).

use std::ops::RangeInclusive;

use super::address::{self, Destination, Goal, HTTP_PORT, On};
use super::directive::{Directive, Place};
use super::model::{Left, Protocol, Upstream};
use crate::config::names;

/// `listen`
#[derive(Debug)]
pub(super) struct Listen {
    pub(super) place: Place,
    pub(super) text: String,
    pub(super) on: On,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) tls: bool,
    /// The server for names that no other one has.
    pub(super) is_default: bool,
    pub(super) is_udp: bool,
    /// IPv6 and IPv4 by one socket.
    pub(super) both_families: bool,
}

/// `proxy_pass`
#[derive(Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) text: String,
    /// The `location` or `if` that it stands in.
    pub(super) location: Option<String>,
    pub(super) destination: Destination,
    /// Whether nginx speaks TLS to it.
    pub(super) tls: bool,
    pub(super) trust: Trust,
}

/// What nginx asks of a backend's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// `proxy_ssl_verify on`
    pub(super) verify: bool,
    /// `proxy_ssl_name`
    pub(super) name: Option<String>,
    /// `proxy_ssl_trusted_certificate`
    pub(super) ca_file: Option<String>,
}

/// `server`
#[derive(Debug)]
pub(super) struct Server {
    pub(super) place: Place,
    pub(super) protocol: Protocol,
    pub(super) names: Vec<String>,
    pub(super) listens: Vec<Listen>,
    pub(super) targets: Vec<Target>,
    /// From plain HTTP to https.
    pub(super) redirect: Option<ToHttps>,
    pub(super) left: Vec<Left>,
}

/// What sends clients of plain HTTP to https.
#[derive(Debug)]
pub(super) struct ToHttps {
    pub(super) place: Place,
    /// The URL's, if it is the same for all.
    pub(super) host: Option<String>,
}

/// What `listen … proxy_protocol` means here.
const PROXY_PROTOCOL: &str = "DOES NOT WORK YET: clients send the PROXY protocol first, which nginx took away and \
                              backends will get now";

/// What inner blocks inherit.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// `ssl on`, of old.
    ssl: bool,
    /// `proxy_ssl on`, of `stream`.
    proxy_ssl: bool,
    trust: Trust,
}

impl Scope {
    pub(super) fn within(&self, directives: &[Directive]) -> Self {
        let mut scope = self.clone();
        for directive in directives {
            let Some(value) = directive.argument() else { continue };
            let is_on = value.eq_ignore_ascii_case("on");
            match directive.name.as_str() {
                "ssl" => scope.ssl = is_on,
                "proxy_ssl" => scope.proxy_ssl = is_on,
                "proxy_ssl_verify" | "grpc_ssl_verify" => scope.trust.verify = is_on,
                "proxy_ssl_name" | "grpc_ssl_name" => scope.trust.name = Some(value.to_owned()),
                "proxy_ssl_trusted_certificate" | "grpc_ssl_trusted_certificate" => {
                    scope.trust.ca_file = Some(value.to_owned());
                }
                _ => {}
            }
        }
        scope
    }
}

impl Server {
    /// The block; `outer`: what it inherits.
    pub(super) fn new(directive: &Directive, protocol: Protocol, outer: &Scope) -> Self {
        let scope = outer.within(directive.inner());
        let mut server = Self {
            place: directive.place.clone(),
            protocol,
            names: Vec::new(),
            listens: Vec::new(),
            targets: Vec::new(),
            redirect: None,
            left: Vec::new(),
        };
        server.read(directive.inner(), None, &scope);
        let names_no_port = !directive.inner().iter().any(|inner| inner.is("listen"));
        if names_no_port && protocol == Protocol::Http {
            server.listens.push(Listen {
                place: directive.place.clone(),
                text: "no `listen`, which is port 80".to_owned(),
                on: On::AnyV4,
                ports: HTTP_PORT..=HTTP_PORT,
                tls: scope.ssl,
                is_default: false,
                is_udp: false,
                both_families: false,
            });
        }
        server
    }

    /// Reads the directives of the block, or of a `location` within it.
    fn read(&mut self, directives: &[Directive], location: Option<&str>, scope: &Scope) {
        for directive in directives {
            match directive.name.as_str() {
                "listen" if directive.block.is_none() => match listen(directive, self.protocol, scope) {
                    Some(listen) => {
                        if directive.arguments.iter().any(|flag| flag == "proxy_protocol") {
                            self.left.push(Left::because(directive, PROXY_PROTOCOL));
                        }
                        self.listens.push(listen);
                    }
                    None => self.left.push(Left::because(directive, "nginx itself can't read it")),
                },
                "server_name" => {
                    self.names.extend(directive.arguments.iter().map(|name| name.to_ascii_lowercase()));
                    if directive.arguments != ["_"] {
                        self.left.push(Left::new(directive));
                    }
                }
                "proxy_pass" | "grpc_pass" => {
                    self.targets.extend(target(directive, self.protocol, location, scope));
                }
                "location" if directive.block.is_some() => {
                    let path = directive.arguments.join(" ");
                    let path = if path == "/" { path } else { format!("location {path}") };
                    self.read(directive.inner(), Some(&path), &scope.within(directive.inner()));
                }
                "if" => {
                    let condition = format!("if {}", directive.arguments.join(" "));
                    self.left.push(Left::new(directive));
                    self.read(directive.inner(), Some(&condition), &scope.within(directive.inner()));
                }
                name => {
                    let url = matches!(name, "return" | "rewrite").then(|| https_url(directive)).flatten();
                    if let Some(url) = url.filter(|_| self.redirect.is_none() && is_for_plain_http(location))
                    {
                        self.redirect = Some(ToHttps { place: directive.place.clone(), host: host_of(url) });
                    }
                    self.left.push(Left::new(directive));
                }
            }
        }
    }

    /// Whether all that comes in through this `listen` is only sent to https.
    pub(super) fn redirects(&self, listen: &Listen) -> bool {
        let speaks_tls_elsewhere = self.listens.iter().any(|other| other.tls);
        self.redirect.is_some() && !listen.tls && (self.targets.is_empty() || speaks_tls_elsewhere)
    }

    /// What leads to an upstream that nothing leads to, in a file without any `server`.
    pub(super) fn implied(upstream: &Upstream, on: On, port: u16, protocol: Protocol) -> Self {
        let place = &upstream.place;
        let goal = Goal::Host { host: upstream.name.clone(), port: None };
        // One line for both, as there is no other.
        let text =
            format!("no `listen` leads to `{}`: REPLACE the port, which is its servers' own", upstream.name);
        Self {
            place: place.clone(),
            protocol,
            names: Vec::new(),
            listens: vec![Listen {
                place: place.clone(),
                text: text.clone(),
                on,
                ports: port..=port,
                tls: false,
                is_default: false,
                is_udp: false,
                both_families: false,
            }],
            targets: vec![Target {
                place: place.clone(),
                text,
                location: None,
                destination: Destination { goal, tls: false, default_port: None, path: None },
                tls: false,
                trust: Trust::default(),
            }],
            redirect: None,
            left: Vec::new(),
        }
    }
}

fn listen(directive: &Directive, protocol: Protocol, scope: &Scope) -> Option<Listen> {
    let default_port = (protocol == Protocol::Http).then_some(HTTP_PORT);
    let (on, ports) = address::listen(directive.argument()?, default_port)?;
    let has = |wanted: &[&str]| directive.arguments[1..].iter().any(|flag| wanted.contains(&flag.as_str()));
    Some(Listen {
        place: directive.place.clone(),
        text: directive.shown(),
        on,
        ports,
        tls: scope.ssl || has(&["ssl"]),
        is_default: has(&["default_server", "default"]),
        is_udp: has(&["udp", "quic"]),
        both_families: has(&["ipv6only=off"]),
    })
}

fn target(
    directive: &Directive,
    protocol: Protocol,
    location: Option<&str>,
    scope: &Scope,
) -> Option<Target> {
    let written = directive.argument()?;
    let destination = match protocol {
        Protocol::Http => Destination::parse_url(written),
        Protocol::Stream => Destination::parse_address(written),
    };
    let whole = location.is_none_or(|location| location == "/");
    let text = if whole {
        directive.shown()
    } else {
        format!("{} (in {})", directive.shown(), shortened(location.unwrap_or_default()))
    };
    Some(Target {
        place: directive.place.clone(),
        text,
        location: location.map(str::to_owned),
        tls: destination.tls || protocol == Protocol::Stream && scope.proxy_ssl,
        trust: scope.trust.clone(),
        destination,
    })
}

/// Whether what stands in this `location` or `if` is for all requests, or for all without TLS.
fn is_for_plain_http(location: Option<&str>) -> bool {
    const TELLING: [&str; 3] = ["$scheme", "$https", "$server_port"];
    location.is_none_or(|location| {
        location == "/" || location.starts_with("if ") && TELLING.iter().any(|word| location.contains(word))
    })
}

/// The https URL to which it sends clients, whatever they ask for.
fn https_url(directive: &Directive) -> Option<&str> {
    const ALL_PATHS: [&str; 8] = ["^", "^/", ".*", "(.*)", "^(.*)", "^(.*)$", "^/(.*)", "^/(.*)$"];
    let is_https = |url: &String| url.to_ascii_lowercase().starts_with("https://");
    let url = match (directive.name.as_str(), directive.arguments.as_slice()) {
        ("return", [url]) => url,
        ("return", [code, url]) if code.starts_with('3') => url,
        ("rewrite", [path, url, ..]) if ALL_PATHS.contains(&path.as_str()) => url,
        _ => return None,
    };
    is_https(url).then_some(url)
}

/// The host of an https URL; none if it is one that clients say, or none at all.
fn host_of(url: &str) -> Option<String> {
    let rest = url.get("https://".len()..)?;
    let host = rest.split(['/', ':', '?', '$']).next()?.to_ascii_lowercase();
    let ends_there = !rest[host.len()..].starts_with('$') || rest[host.len()..].starts_with("$request_uri");
    (ends_there && names::is_host(&host)).then_some(host)
}

/// As much of it as a line has room for.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

impl Target {
    /// Why it can't be carried over, whatever else there is.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self.destination.goal {
            Goal::Host { .. } => None,
            Goal::Unix => {
                Some("a unix socket is on nginx's own machine: balancer's backends are other machines")
            }
            Goal::Variable => {
                Some("where it leads is known to nginx only, when a request comes (a variable)")
            }
            Goal::Wrong => Some("nginx itself can't read it"),
        }
    }
}
