//! What the program has to do with a packet, from scratch: the packet that must leave is built anew from its fields,
//! and what must be counted is added to what was.

use std::net::SocketAddrV4;

use balancer_common::verdict::Reason;

use super::gateway::{Action, Counters, Outcome};
use super::scene::{GATEWAY, Given, Member, neighbour};
use crate::packet::{Packet, difference};

/// What a case expects of one packet.
#[derive(Clone, Debug)]
pub struct Expect {
    pub(super) fate: Fate,
    /// How many flows the tables gain by it.
    half_open: i64,
    established: i64,
    new_flows: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    ToBackend(Member, SnatPort),
    ToClient(SocketAddrV4),
    Passed,
    Dropped(Reason),
}

/// The gateway's port towards the backend.
#[derive(Clone, Copy, Debug)]
pub(super) enum SnatPort {
    /// The client's own.
    Kept,
    /// This one.
    Exactly(u16),
    /// One of the pool's that isn't the client's.
    Another,
}

/// The packet leaves for this backend, from the client's own port.
#[must_use]
pub fn forwarded_to(member: Member) -> Expect {
    Expect::new(Fate::ToBackend(member, SnatPort::Kept))
}

/// A backend's packet leaves for this client, as if the service had sent it.
#[must_use]
pub fn returned_to(client: SocketAddrV4) -> Expect {
    Expect::new(Fate::ToClient(client))
}

/// The kernel gets the frame as it came.
#[must_use]
pub fn passed() -> Expect {
    Expect::new(Fate::Passed)
}

/// The frame goes nowhere, unchanged.
#[must_use]
pub fn dropped(reason: Reason) -> Expect {
    Expect::new(Fate::Dropped(reason))
}

impl Expect {
    fn new(fate: Fate) -> Self {
        Self { fate, half_open: 0, established: 0, new_flows: 0 }
    }

    /// The gateway's port towards the backend is this one. It is said of packets that are forwarded to a backend.
    #[must_use]
    pub fn from_port(self, port: u16) -> Self {
        self.with_port(SnatPort::Exactly(port))
    }

    /// As [`Expect::from_port`]: one of the pool's ports, and not the client's.
    #[must_use]
    pub fn from_another_port(self) -> Self {
        self.with_port(SnatPort::Another)
    }

    fn with_port(self, port: SnatPort) -> Self {
        let Fate::ToBackend(member, _) = self.fate else {
            panic!("{:?} has no port of the gateway's", self.fate)
        };
        Self { fate: Fate::ToBackend(member, port), ..self }
    }

    /// A half-open flow begins.
    #[must_use]
    pub fn opening(self) -> Self {
        Self { half_open: self.half_open + 1, ..self }
    }

    /// The half-open flow becomes an established one.
    #[must_use]
    pub fn establishing(self) -> Self {
        Self { half_open: -1, established: 1, new_flows: 1, ..self }
    }

    /// The half-open flow is forgotten.
    #[must_use]
    pub fn forgetting_the_handshake(self) -> Self {
        Self { half_open: self.half_open - 1, ..self }
    }

    /// An established flow is forgotten.
    #[must_use]
    pub fn forgetting_the_flow(self) -> Self {
        Self { established: self.established - 1, ..self }
    }

    /// Everything that isn't as expected, one a line.
    pub(super) fn compare(
        &self,
        given: &Given,
        input: &Input,
        outcome: &Outcome,
        before: &Counters,
        after: &Counters,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        let expected = match self.translated(given, input, &outcome.frame) {
            Ok(expected) => expected,
            Err(problem) => return vec![problem],
        };
        let action = match self.fate {
            Fate::ToBackend(..) | Fate::ToClient(_) => Action::Redirect,
            Fate::Passed => Action::Pass,
            Fate::Dropped(_) => Action::Drop,
        };
        if outcome.action != action {
            differences.push(format!("{action:?} expected, {:?} seen", outcome.action));
        }
        let in_frame = difference(&expected.frame, &outcome.frame).unwrap_or_default();
        differences.extend(in_frame.lines().map(str::to_owned));
        let counters = self.counted(before, input.frame().len() as u64, &expected);
        differences.extend(counters.differences(after));
        differences
    }

    /// The frame that must come out, and whose traffic it is.
    fn translated(&self, given: &Given, input: &Input, seen: &[u8]) -> Result<Expected, String> {
        let (packet, change) = match (self.fate, input) {
            (Fate::Passed | Fate::Dropped(_), _) => {
                return Ok(Expected { frame: input.frame(), traffic_of: None });
            }
            (_, Input::Raw(_)) => return Err("only TCP packets can be expected to go on".into()),
            (Fate::ToBackend(member, snat), Input::Tcp(packet)) => {
                (packet, to_backend(given, packet, member, snat, seen)?)
            }
            (Fate::ToClient(client), Input::Tcp(packet)) => (packet, to_client(given, packet, client)?),
        };
        let (out, mac) = neighbour(*change.next_hop.ip());
        let packet = packet.as_ref().clone().with(|packet| {
            packet.source_mac = out.mac();
            packet.destination_mac = mac;
            packet.source = change.source;
            packet.destination = change.next_hop;
            packet.ttl = packet.ttl.saturating_sub(1);
        });
        Ok(Expected { frame: packet.to_frame(), traffic_of: Some((change.service, change.backend)) })
    }

    fn counted(&self, before: &Counters, bytes: u64, expected: &Expected) -> Counters {
        let mut after = before.clone();
        if let Fate::Dropped(reason) = self.fate {
            *after.drops.entry(reason).or_default() += 1;
        }
        if let Some((service, backend)) = &expected.traffic_of {
            let service = after.services.entry(*service).or_default();
            let backend = after.backends.entry(backend.clone()).or_default();
            for traffic in [service, backend] {
                traffic.packets += 1;
                traffic.bytes += bytes;
                traffic.new_flows += self.new_flows;
            }
        }
        after.half_open_entries = after.half_open_entries.saturating_add_signed(2 * self.half_open as isize);
        after.established_entries =
            after.established_entries.saturating_add_signed(2 * self.established as isize);
        after
    }
}

/// What goes into the program.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Tcp(Box<Packet>),
    Raw(Vec<u8>),
}

impl Input {
    pub(super) fn frame(&self) -> Vec<u8> {
        match self {
            Self::Tcp(packet) => packet.to_frame(),
            Self::Raw(frame) => frame.clone(),
        }
    }
}

struct Expected {
    frame: Vec<u8>,
    /// The service and the backend's name.
    traffic_of: Option<(SocketAddrV4, String)>,
}

/// A packet's new addresses, and whose traffic it is.
struct Change {
    source: SocketAddrV4,
    next_hop: SocketAddrV4,
    service: SocketAddrV4,
    backend: String,
}

fn to_backend(
    given: &Given,
    packet: &Packet,
    member: Member,
    snat: SnatPort,
    seen: &[u8],
) -> Result<Change, String> {
    let (pool, service) =
        given.service(packet.destination).ok_or(format!("{} is no service", packet.destination))?;
    let own = packet.source.port();
    let port = match snat {
        SnatPort::Kept => own,
        SnatPort::Exactly(port) => port,
        SnatPort::Another => {
            let at = 34 + packet.ip_options.len();
            let port = seen.get(at..at + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
            if port == own || !pool.snat_ports.iter().any(|range| range.contains(&port)) {
                return Err(format!("source port {port} is {own}, or none of {:?}", pool.snat_ports));
            }
            port
        }
    };
    Ok(Change {
        source: SocketAddrV4::new(GATEWAY, port),
        next_hop: member.at(service.backend_port),
        service: service.listen,
        backend: member.name.to_owned(),
    })
}

fn to_client(given: &Given, packet: &Packet, client: SocketAddrV4) -> Result<Change, String> {
    let service = given.service_behind(packet.source).ok_or(format!("{} is no backend's", packet.source))?;
    let backend = given
        .plan
        .iter()
        .flat_map(|pool| &pool.backends)
        .find(|backend| backend.address == *packet.source.ip())
        .ok_or("no such backend")?;
    Ok(Change {
        source: service.listen,
        next_hop: client,
        service: service.listen,
        backend: backend.name.clone(),
    })
}

impl Counters {
    /// Each counter that `seen` has otherwise.
    fn differences(&self, seen: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: String, expected: String, seen: String| {
            if expected != seen {
                differences.push(format!("{what}: {expected} expected, {seen} seen"));
            }
        };
        for (reason, count) in &self.drops {
            let other = seen.drops.get(reason).copied().unwrap_or(0);
            compare(format!("drops {}", reason.name()), count.to_string(), other.to_string());
        }
        for (listen, traffic) in &self.services {
            let other = seen.services.get(listen).copied().unwrap_or_default();
            compare(format!("service {listen}"), format!("{traffic:?}"), format!("{other:?}"));
        }
        for (name, traffic) in &self.backends {
            let other = seen.backends.get(name).copied().unwrap_or_default();
            compare(format!("backend {name}"), format!("{traffic:?}"), format!("{other:?}"));
        }
        compare(
            "entries of handshakes".into(),
            self.half_open_entries.to_string(),
            seen.half_open_entries.to_string(),
        );
        compare(
            "entries of flows".into(),
            self.established_entries.to_string(),
            seen.established_entries.to_string(),
        );
        differences
    }
}
