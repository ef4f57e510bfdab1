//! Which address leads to which upstream: one of nginx's `server` blocks and one of its `proxy_pass` for each.
//!
//! nginx chooses by name and path among many; here an address and port lead to one pool. What loses is said.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::addresses;
use super::super::limits::SERVICES;
use super::address::{Endpoint, Goal, Host, On};
use super::member::Member;
use super::model::{Left, Model, Protocol, Upstream};
use super::remarks::Remarks;
use super::server::{Listen, Server, Target};

/// From the ranges for documentation (RFC 5737, RFC 3849): nobody has them.
const PLACEHOLDER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PLACEHOLDER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// An address that clients connect to, and where that leads; indices into the model.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) server: usize,
    /// Of the server.
    pub(super) from: usize,
    pub(super) target: usize,
    pub(super) upstream: usize,
    pub(super) listen: SocketAddr,
    /// nginx names no address, and none was given.
    pub(super) is_placeholder: bool,
    pub(super) clients_speak_tls: bool,
    is_default: bool,
}

/// All routes, in the order of the servers. Upstreams that nginx implies are added to the model; what can't be carried
/// over is left at its server.
pub(super) fn find(model: &mut Model, vip: Option<IpAddr>, remarks: &mut Remarks) -> Vec<Route> {
    let mut wanted = Vec::new();
    for (index, server) in model.servers.iter_mut().enumerate() {
        let Some((target, upstream)) = choose(server, &mut model.upstreams, remarks) else { continue };
        for at in 0..server.listens.len() {
            if server.redirects(&server.listens[at]) {
                continue;
            }
            let family = family(&model.upstreams[upstream]);
            for (listen, is_placeholder) in places(server, at, family, vip, remarks) {
                wanted.push(Route {
                    server: index,
                    from: at,
                    target,
                    upstream,
                    listen,
                    is_placeholder,
                    clients_speak_tls: server.listens[at].tls,
                    is_default: server.listens[at].is_default,
                });
            }
        }
    }
    one_of_each_address(wanted, model, remarks)
}

/// Where two servers have the same address, nginx decides by name: the default one is kept, else the first.
fn one_of_each_address(mut wanted: Vec<Route>, model: &mut Model, remarks: &mut Remarks) -> Vec<Route> {
    wanted.sort_by_key(|route| !route.is_default);
    let mut taken: BTreeMap<SocketAddr, (usize, usize)> = BTreeMap::new();
    wanted.retain(|route| {
        let Some(&(server, upstream)) = taken.get(&route.listen) else {
            taken.insert(route.listen, (route.server, route.upstream));
            return true;
        };
        if server == route.server {
            return false;
        }
        let first = model.servers[server].place.clone();
        let loser = &mut model.servers[route.server];
        let meaning = if upstream == route.upstream {
            format!("the `server` of {first} has the address, too, and the same backends")
        } else {
            let message = format!(
                "{} leads to the `server` of {first} for all names: names aren't read, so this one is left out there",
                route.listen
            );
            remarks.push(&loser.place, &message);
            message
        };
        loser.left.push(Left {
            place: loser.place.clone(),
            text: format!("server on {}", route.listen),
            meaning: meaning.into(),
        });
        false
    });
    wanted.sort_by_key(|route| (route.server, route.from));
    wanted
}

/// The target that a server's connections go to, and its upstream.
fn choose(
    server: &mut Server,
    upstreams: &mut Vec<Upstream>,
    remarks: &mut Remarks,
) -> Option<(usize, usize)> {
    let mut found = Vec::new();
    for (index, target) in server.targets.iter().enumerate() {
        match upstream_of(target, server, upstreams) {
            Ok(upstream) => found.push((index, upstream)),
            Err(why) => {
                remarks.push(&target.place, format!("`{}` is not carried over: {why}", target.text));
                server.left.push(left(target, why));
            }
        }
    }
    let is_whole = |(target, _): &&(usize, usize)| {
        server.targets[*target].location.as_deref().is_none_or(|location| location == "/")
    };
    let chosen = found.iter().find(is_whole).or_else(|| found.first()).copied()?;
    let goes_to = &server.targets[chosen.0];
    let others = found
        .iter()
        .filter(|(target, upstream)| *upstream != chosen.1 || server.targets[*target].tls != goes_to.tls);
    for (other, _) in others {
        let target = &server.targets[*other];
        let why = format!("paths aren't read: all goes where `{}` of {} leads", goes_to.text, goes_to.place);
        remarks.push(&target.place, format!("`{}` is not carried over: {why}", target.text));
        server.left.push(left(target, why));
    }
    if let Some(path) = &goes_to.destination.path {
        let why = format!("HTTP isn't read, so the requests' own path isn't replaced by {path}");
        remarks.push(&goes_to.place, format!("`{}`: {why}", goes_to.text));
        server.left.push(left(goes_to, why));
    }
    Some(chosen)
}

fn left(target: &Target, meaning: impl Into<Cow<'static, str>>) -> Left {
    Left { place: target.place.clone(), text: target.text.clone(), meaning: meaning.into() }
}

/// The upstream of this name, or the one that nginx implies.
fn upstream_of(
    target: &Target,
    server: &Server,
    upstreams: &mut Vec<Upstream>,
) -> Result<usize, &'static str> {
    if let Some(obstacle) = target.obstacle() {
        return Err(obstacle);
    }
    let Goal::Host { host, port } = &target.destination.goal else {
        return Err("nginx itself can't read it");
    };
    let has_name = |upstream: &Upstream| {
        !upstream.is_implied
            && upstream.protocol.is_none_or(|protocol| protocol == server.protocol)
            && upstream.name.eq_ignore_ascii_case(host)
    };
    if let Some(at) = upstreams.iter().position(has_name) {
        return Ok(at);
    }
    let endpoint = Endpoint::parse(host).ok_or("no `upstream` has this name, and it is no host")?;
    let port = port.or(target.destination.default_port).ok_or("it names no port")?;
    let endpoint = Endpoint { port: Some(port), ..endpoint };
    let is_same = |upstream: &Upstream| {
        upstream.is_implied
            && upstream.members.first().is_some_and(|member| member.endpoint.as_ref() == Some(&endpoint))
    };
    if let Some(at) = upstreams.iter().position(is_same) {
        return Ok(at);
    }
    let name = server.names.iter().find(|name| !name.contains(['*', '~', '$']) && *name != "_");
    let member = Member::new(target.place.clone(), target.text.clone(), Some(endpoint), server.protocol);
    upstreams.push(Upstream {
        name: name.unwrap_or(host).clone(),
        protocol: Some(server.protocol),
        place: target.place.clone(),
        members: vec![member],
        left: Vec::new(),
        is_implied: true,
    });
    Ok(upstreams.len() - 1)
}

/// The family of the addresses of an upstream, which a pool has one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Of the first server that is given by its address; none: by names only.
fn family(upstream: &Upstream) -> Option<Family> {
    upstream.members.iter().find_map(|member| match member.endpoint.as_ref()?.host {
        Host::Ip(address) => Some(Family::of(address)),
        Host::Name(_) | Host::Unix => None,
    })
}

/// The addresses of one `listen`, each with whether it is a placeholder; else the line is left at the server.
fn places(
    server: &mut Server,
    at: usize,
    family: Option<Family>,
    vip: Option<IpAddr>,
    remarks: &mut Remarks,
) -> Vec<(SocketAddr, bool)> {
    let listen = &server.listens[at];
    let found = if listen.is_udp {
        Err("only TCP is balanced: what speaks UDP (QUIC, too) needs nginx or a rule of its own".into())
    } else if listen.ports.len() > SERVICES {
        Err(format!("{} ports are more than a pool may have, {SERVICES}", listen.ports.len()).into())
    } else {
        listen.ports.clone().map(|port| place(listen, port, family, vip)).collect()
    };
    found.unwrap_or_else(|why: Cow<'static, str>| {
        remarks.push(&listen.place, format!("`{}` is not carried over: {why}", listen.text));
        let (place, text) = (listen.place.clone(), listen.text.clone());
        server.left.push(Left { place, text, meaning: why });
        Vec::new()
    })
}

/// Where a service listens for one port of a `listen`, and whether that is a placeholder.
pub(super) fn place(
    listen: &Listen,
    port: u16,
    family: Option<Family>,
    vip: Option<IpAddr>,
) -> Result<(SocketAddr, bool), Cow<'static, str>> {
    let wanted = family.or(vip.map(Family::of)).unwrap_or(Family::V4);
    match listen.on {
        On::Unix => Err("a unix socket is for programs on nginx's own machine".into()),
        On::Name => Err("a name can't be listened on: write the address, and lead it to the pool".into()),
        On::Ip(address) => {
            let address = SocketAddr::new(address, port);
            match addresses::listen(&address.to_string()) {
                Err(fault) => Err(fault.message.into()),
                Ok(address) if family.is_some_and(|family| family != Family::of(address.ip())) => {
                    Err("its backends are of the other IP family, and nothing is translated".into())
                }
                Ok(address) => Ok((address, false)),
            }
        }
        On::AnyV6 if wanted == Family::V4 && !listen.both_families => {
            Err("IPv6 isn't translated to IPv4: IPv6 clients need IPv6 backends, in a pool of their own"
                .into())
        }
        On::AnyV4 | On::AnyV6 => match (vip, wanted) {
            (Some(vip), _) if Family::of(vip) == wanted => Ok((SocketAddr::new(vip, port), false)),
            (Some(_), _) => Err("--vip is of the other IP family than its backends".into()),
            (None, Family::V4) => Ok((SocketAddr::new(PLACEHOLDER_V4.into(), port), true)),
            (None, Family::V6) if listen.on == On::AnyV6 => {
                Ok((SocketAddr::new(PLACEHOLDER_V6.into(), port), true))
            }
            (None, Family::V6) => Err("IPv4 isn't translated to IPv6, which its backends have".into()),
        },
    }
}

/// For a file of upstreams without any `server`: each is listened for at the port of its own servers.
pub(super) fn imply_servers(model: &mut Model) {
    if !model.servers.is_empty() {
        return;
    }
    for upstream in &model.upstreams {
        let Some(port) = upstream.members.iter().find_map(|member| member.port) else { continue };
        let on = if family(upstream) == Some(Family::V6) { On::AnyV6 } else { On::AnyV4 };
        let protocol = upstream.protocol.unwrap_or(Protocol::Http);
        model.servers.push(Server::implied(upstream, on, port, protocol));
    }
}
