//! What a case says about one packet, and how it is held against what came out.

use std::net::SocketAddr;

use balancer_common::verdict::Reason;

use super::counters::Counters;
use super::gateway::{Action, Outcome};
use super::given::Given;
use super::model::{Arrival, Expected, Input, model};
use super::scene::{Member, Side};
use crate::packet::{Mac, Packet, difference};

/// What a case expects of one packet.
#[derive(Clone, Debug)]
pub struct Expect {
    pub(super) fate: Fate,
    /// What the packet is turned into before anything else is done to it.
    instead: Option<Box<Packet>>,
    /// Where a client's packets come from now, if not from where they always did.
    pub(super) way_back: Option<(Side, Mac)>,
    /// How many flows the tables gain by it.
    half_open: i64,
    established: i64,
    new_flows: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    ToBackend(Member, Peer),
    ToClient(SocketAddr),
    /// To the kernel; counted if there is a reason for it.
    Passed(Option<Reason>),
    Answered(Reason),
    Dropped(Reason),
}

/// Whom the backend of a snat pool sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// One of the pool's addresses with the client's own port.
    OwnPort,
    /// This.
    Exactly(SocketAddr),
    /// One of the pool's addresses with one of its ports that isn't the client's.
    AnotherPort,
}

/// The packet leaves for this backend, in snat from the client's own port.
#[must_use]
pub fn forwarded_to(member: Member) -> Expect {
    Expect::new(Fate::ToBackend(member, Peer::OwnPort))
}

/// A backend's packet leaves for this client, as if the service had sent it.
#[must_use]
pub fn returned_to(client: SocketAddr) -> Expect {
    Expect::new(Fate::ToClient(client))
}

/// The kernel gets the frame as it came.
#[must_use]
pub fn passed() -> Expect {
    Expect::new(Fate::Passed(None))
}

/// The kernel gets the frame as it came, and it is counted.
#[must_use]
pub fn passed_for(reason: Reason) -> Expect {
    Expect::new(Fate::Passed(Some(reason)))
}

/// The sender gets an answer of the gateway's: an ICMP error, or a RST for what belongs to no flow.
#[must_use]
pub fn answered(reason: Reason) -> Expect {
    Expect::new(Fate::Answered(reason))
}

/// The frame goes nowhere, unchanged.
#[must_use]
pub fn dropped(reason: Reason) -> Expect {
    Expect::new(Fate::Dropped(reason))
}

impl Expect {
    fn new(fate: Fate) -> Self {
        Self { fate, instead: None, way_back: None, half_open: 0, established: 0, new_flows: 0 }
    }

    /// In snat, the backend sees this address and port. It is said of packets that are forwarded to a backend.
    #[must_use]
    pub fn seen_as(self, peer: SocketAddr) -> Self {
        self.with_peer(Peer::Exactly(peer))
    }

    /// As [`Expect::seen_as`]: one of the pool's ports, and not the client's.
    #[must_use]
    pub fn from_another_port(self) -> Self {
        self.with_peer(Peer::AnotherPort)
    }

    fn with_peer(self, peer: Peer) -> Self {
        let Fate::ToBackend(member, _) = self.fate else {
            panic!("{:?} has no port of the gateway's", self.fate)
        };
        Self { fate: Fate::ToBackend(member, peer), ..self }
    }

    /// It isn't the packet that came in which leaves, but this one in its frame.
    #[must_use]
    pub fn instead(self, packet: Packet) -> Self {
        Self { instead: Some(Box::new(packet)), ..self }
    }

    /// The client is behind this neighbour now.
    #[must_use]
    pub fn by_way_of(self, side: Side, mac: Mac) -> Self {
        Self { way_back: Some((side, mac)), ..self }
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

    /// The reason that this packet provokes, if any.
    pub(super) fn reason(&self) -> Option<(Counter, Reason)> {
        match self.fate {
            Fate::Dropped(reason) => Some((Counter::Drops, reason)),
            Fate::Answered(reason) => Some((Counter::Answers, reason)),
            Fate::Passed(reason) => reason.map(|reason| (Counter::Passed, reason)),
            Fate::ToBackend(..) | Fate::ToClient(_) => None,
        }
    }

    /// What a packet is turned into, if it is.
    pub(super) fn instead_of(&self, input: &Input) -> Option<Box<Packet>> {
        let mut instead = self.instead.clone()?;
        if let Input::Tcp(packet) = input {
            (instead.ethernet.source, instead.ethernet.destination) =
                (packet.ethernet.source, packet.ethernet.destination);
        }
        Some(instead)
    }

    /// Everything that isn't as expected, one a line.
    pub(super) fn compare(
        &self,
        given: &Given,
        arrival: Arrival<'_>,
        outcome: &Outcome,
        before: &Counters,
        after: &Counters,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        let instead = self.instead_of(arrival.input).map(Input::Tcp);
        let arrival = Arrival { input: instead.as_ref().unwrap_or(arrival.input), ..arrival };
        let action = match self.fate {
            Fate::ToBackend(..) | Fate::ToClient(_) | Fate::Answered(_) => Action::Redirect,
            Fate::Passed(_) => Action::Pass,
            Fate::Dropped(_) => Action::Drop,
        };
        if outcome.action != action {
            differences.push(format!("{action:?} expected, {:?} seen", outcome.action));
        }
        let expected = match model(self, given, arrival, &outcome.frame) {
            Ok(expected) => expected,
            Err(problem) => {
                differences.push(problem);
                return differences;
            }
        };
        if outcome.action == action {
            // Otherwise the frame is another one, field for field, and the counters tell more.
            let in_frame = difference(&expected.frame, &outcome.frame).unwrap_or_default();
            differences.extend(in_frame.lines().map(str::to_owned));
        }
        let counters = self.counted(before, arrival.input.frame().len() as u64, &expected);
        differences.extend(counters.differences(after));
        differences
    }

    fn counted(&self, before: &Counters, bytes: u64, expected: &Expected) -> Counters {
        let mut after = before.clone();
        if let Some((counter, reason)) = self.reason() {
            *after.of(counter).entry(reason).or_default() += 1;
        }
        if let Some((listen, backend)) = expected.traffic_of {
            let service = after.services.entry(listen).or_default();
            let backend = after.backends.entry(backend.to_owned()).or_default();
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

/// What is counted by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// What went nowhere.
    Drops,
    /// What was answered by the gateway itself.
    Answers,
    /// What the kernel got for a reason that is worth counting.
    Passed,
}
