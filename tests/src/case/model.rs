//! What the program has to do with a packet, from scratch: the packet that must leave is built anew from its fields.

use std::net::{IpAddr, SocketAddr};

use super::answer;
use super::expect::{Expect, Fate, Peer};
use super::given::{Given, Pool};
use super::scene::{Member, Service, Side, neighbour};
use crate::packet::{ETHERNET_BYTES, Ethernet, Icmp, Ip, Mac, Packet};

/// What goes into the program.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Tcp(Box<Packet>),
    Icmp(Box<Icmp>),
    Raw(Vec<u8>),
}

impl Input {
    pub(super) fn frame(&self) -> Vec<u8> {
        match self {
            Self::Tcp(packet) => packet.to_frame(),
            Self::Icmp(message) => message.to_frame(),
            Self::Raw(frame) => frame.clone(),
        }
    }
}

/// What comes in, and where.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) input: &'a Input,
    pub(super) through: Side,
}

/// What must come out.
pub(super) struct Expected {
    pub(super) frame: Vec<u8>,
    /// The service and the backend's name.
    pub(super) traffic_of: Option<(SocketAddr, &'static str)>,
}

/// The frame that must come out of `arrival`, and whose traffic it is. What the model can't know (a SNAT port that the
/// program chooses) is taken from what was `seen`.
pub(super) fn model(
    expect: &Expect,
    given: &Given,
    arrival: Arrival<'_>,
    seen: &[u8],
) -> Result<Expected, String> {
    let unchanged = |input: &Input| Expected { frame: input.frame(), traffic_of: None };
    match (expect.fate, arrival.input) {
        (Fate::Passed(_) | Fate::Dropped(_), input) => Ok(unchanged(input)),
        (Fate::Answered(reason), Input::Tcp(packet)) => {
            let frame = answer::to(packet, reason, given, arrival.through)?;
            Ok(Expected { frame, traffic_of: None })
        }
        (Fate::ToBackend(member, peer), Input::Tcp(packet)) => to_backend(given, packet, member, peer, seen),
        (Fate::ToClient(client), Input::Tcp(packet)) => to_client(given, packet, client, expect.way_back),
        (Fate::ToBackend(member, peer), Input::Icmp(message)) => {
            error_to_backend(given, message, member, peer)
        }
        (Fate::ToClient(client), Input::Icmp(message)) => error_to_client(given, message, client),
        (fate, _) => Err(format!("{fate:?} can't be expected of this frame")),
    }
}

fn to_backend(
    given: &Given,
    packet: &Packet,
    member: Member,
    peer: Peer,
    seen: &[u8],
) -> Result<Expected, String> {
    let (pool, service) = service(given, packet.destination)?;
    let source = if pool.is_snat() { seen_source(pool, packet, peer, seen)? } else { packet.source };
    let packet = packet.clone().with(|packet| {
        packet.source = source;
        packet.destination = member.at(service.backend_port);
        leave(&mut packet.ethernet, &mut packet.ip, neighbour(member.address));
    });
    Ok(Expected { frame: packet.to_frame(), traffic_of: Some((service.listen, member.name)) })
}

/// Whom the backend sees; what the program was free to choose must be one of the pool's addresses and ports.
fn seen_source(pool: &Pool, packet: &Packet, peer: Peer, seen: &[u8]) -> Result<SocketAddr, String> {
    let own = packet.source.port();
    if let Peer::Exactly(peer) = peer {
        return Ok(peer);
    }
    let addresses = pool.scene.addresses_of_ours();
    let (address, port) = source_in(packet, seen).ok_or("the frame has no source")?;
    if !addresses.contains(&address) {
        return Err(format!("source {address} is none of {addresses:?}"));
    }
    match peer {
        Peer::AnotherPort => {
            if port == own || !pool.snat_ports.iter().any(|range| range.contains(&port)) {
                return Err(format!("source port {port} is {own}, or none of {:?}", pool.snat_ports));
            }
            Ok(SocketAddr::new(address, port))
        }
        Peer::OwnPort | Peer::Exactly(_) => Ok(SocketAddr::new(address, own)),
    }
}

/// The source that stands in a frame of the same shape as this packet's.
fn source_in(packet: &Packet, frame: &[u8]) -> Option<(IpAddr, u16)> {
    let at = ETHERNET_BYTES + 4 * packet.ethernet.tags.len();
    let address = match packet.source.ip() {
        IpAddr::V4(_) => IpAddr::from(<[u8; 4]>::try_from(frame.get(at + 12..at + 16)?).ok()?),
        IpAddr::V6(_) => IpAddr::from(<[u8; 16]>::try_from(frame.get(at + 8..at + 24)?).ok()?),
    };
    let port = at + packet.ip_length() - packet.tcp_length();
    let port = <[u8; 2]>::try_from(frame.get(port..port + 2)?).ok()?;
    Some((address, u16::from_be_bytes(port)))
}

fn to_client(
    given: &Given,
    packet: &Packet,
    client: SocketAddr,
    way_back: Option<(Side, Mac)>,
) -> Result<Expected, String> {
    let (_, service, member) = behind(given, packet.source)?;
    let packet = packet.clone().with(|packet| {
        packet.source = service.listen;
        packet.destination = client;
        let way = way_back.unwrap_or_else(|| neighbour(client.ip()));
        leave(&mut packet.ethernet, &mut packet.ip, way);
    });
    Ok(Expected { frame: packet.to_frame(), traffic_of: Some((service.listen, member.name)) })
}

/// An error in the clients' network about what the service sent: its backend must recognise what it sent itself.
fn error_to_backend(given: &Given, error: &Icmp, member: Member, peer: Peer) -> Result<Expected, String> {
    let quoted = error.quoted().ok_or("only errors about packets can be expected to go on")?;
    let (pool, service) = service(given, quoted.source)?;
    let client = quoted.destination;
    let peer = match peer {
        _ if !pool.is_snat() => client,
        Peer::OwnPort => SocketAddr::new(pool.scene.addresses_of_ours()[0], client.port()),
        Peer::Exactly(peer) => peer,
        Peer::AnotherPort => return Err("an error says nothing new about ports".into()),
    };
    let error = error.clone().with(|error| {
        if pool.is_snat() {
            error.source = peer.ip();
        }
        error.destination = member.address;
        leave(&mut error.ethernet, &mut error.ip, neighbour(member.address));
    });
    let error = error.quoting(|quoted| {
        quoted.source = member.at(service.backend_port);
        quoted.destination = peer;
    });
    Ok(Expected { frame: error.to_frame(), traffic_of: Some((service.listen, member.name)) })
}

/// An error in the backends' network about what the client sent.
fn error_to_client(given: &Given, error: &Icmp, client: SocketAddr) -> Result<Expected, String> {
    let quoted = error.quoted().ok_or("only errors about packets can be expected to go on")?;
    let (_, service, member) = behind(given, quoted.destination)?;
    let error = error.clone().with(|error| {
        error.source = service.listen.ip();
        error.destination = client.ip();
        leave(&mut error.ethernet, &mut error.ip, neighbour(client.ip()));
    });
    let error = error.quoting(|quoted| {
        quoted.source = client;
        quoted.destination = service.listen;
    });
    Ok(Expected { frame: error.to_frame(), traffic_of: Some((service.listen, member.name)) })
}

fn service(given: &Given, listen: SocketAddr) -> Result<(&Pool, Service), String> {
    given.service(listen).ok_or_else(|| format!("{listen} is no service"))
}

fn behind(given: &Given, offered: SocketAddr) -> Result<(&Pool, Service, Member), String> {
    given.behind(offered).ok_or_else(|| format!("{offered} is no backend's"))
}

/// What every packet that goes on has changed: the frame's addresses, and one hop less.
fn leave(ethernet: &mut Ethernet, ip: &mut Ip, (side, next_hop): (Side, Mac)) {
    ethernet.source = side.mac();
    ethernet.destination = next_hop;
    ip.ttl = ip.ttl.saturating_sub(1);
}
