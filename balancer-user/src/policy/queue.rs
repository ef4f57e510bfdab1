//! Whose probe starts next: the queue that all targets share, and that bounds how many probes are in flight.
//!
//! Deliberately not here: when a target is due (`schedule`), and how far starts are apart (`pacer`).

use std::collections::{BTreeMap, VecDeque};

use super::Moment;
use super::pacer::Pacer;
use super::settings::{BackendIndex, PoolIndex, ServiceIndex};

/// Probes in flight at once, over all pools: 64 handshakes cost a small machine some tens of milliseconds, and their
/// sockets stay far below the usual 1024 file descriptors.
pub const MAX_IN_FLIGHT: usize = 64;

/// One service on one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetId {
    pub(super) pool: PoolIndex,
    pub(super) backend: BackendIndex,
    pub(super) service: ServiceIndex,
}

/// One probe to run. Its outcome is handed back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeTicket {
    /// The pool.
    pub pool: PoolIndex,
    /// The backend to probe …
    pub backend: BackendIndex,
    /// … and on which service's port.
    pub service: ServiceIndex,
    pub(super) serial: u64,
}

impl ProbeTicket {
    pub(super) const fn new(target: TargetId, serial: u64) -> Self {
        Self { pool: target.pool, backend: target.backend, service: target.service, serial }
    }

    #[cfg(test)]
    pub(super) const fn target(&self) -> TargetId {
        TargetId { pool: self.pool, backend: self.backend, service: self.service }
    }
}

/// The targets whose probe is due, in the order in which they came to be: none waits for ever. Those at which a client
/// has just failed overtake the others, which have every other turn then.
#[derive(Debug)]
pub(super) struct ProbeQueue {
    waiting: VecDeque<Waiting>,
    urgent: VecDeque<TargetId>,
    /// The last turn was an urgent one's.
    overtaken: bool,
    /// By number, which no other probe ever has: whose it is may stand elsewhere in a later configuration.
    flights: BTreeMap<u64, Whose>,
    last_serial: u64,
    pacer: Pacer,
}

/// Whose probe is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Target(TargetId),
    /// One that has left the configuration; until it reports, or until then, it takes a place.
    Gone(Moment),
}

#[derive(Debug)]
struct Waiting {
    target: TargetId,
    /// Its first probe ever: the start is waiting for it.
    is_first: bool,
}

impl ProbeQueue {
    pub(super) const fn new(pacer: Pacer) -> Self {
        Self {
            waiting: VecDeque::new(),
            urgent: VecDeque::new(),
            overtaken: false,
            flights: BTreeMap::new(),
            last_serial: 0,
            pacer,
        }
    }

    pub(super) fn push(&mut self, target: TargetId, is_first: bool) {
        self.waiting.push_back(Waiting { target, is_first });
    }

    /// A client has just failed at this one.
    pub(super) fn push_urgent(&mut self, target: TargetId) {
        self.urgent.push_back(target);
    }

    /// The same, and it waits already.
    pub(super) fn overtake(&mut self, target: TargetId) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.target == target) {
            self.waiting.remove(at);
            self.urgent.push_back(target);
        }
    }

    /// The next target to probe, unless enough are in flight or it is too early.
    pub(super) fn next(&mut self, now: Moment) -> Option<TargetId> {
        if self.flights.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let may_start = self.turn_of_waiting().is_some_and(|turn| turn <= now);
        let target = if may_start && (self.overtaken || self.urgent.is_empty()) {
            let Waiting { target, is_first } = self.waiting.pop_front()?;
            if !is_first {
                self.pacer.start(now);
            }
            self.overtaken = false;
            target
        } else {
            self.overtaken = true;
            self.urgent.pop_front()?
        };
        Some(target)
    }

    /// What the next probe in flight is known by.
    pub(super) const fn next_serial(&self) -> u64 {
        self.last_serial + 1
    }

    /// The target's probe starts.
    pub(super) fn took_off(&mut self, target: TargetId) -> ProbeTicket {
        self.last_serial += 1;
        self.flights.insert(self.last_serial, Whose::Target(target));
        ProbeTicket::new(target, self.last_serial)
    }

    /// From when on the next one may start; `None`: not before something else has happened.
    pub(super) fn next_start(&self) -> Option<Moment> {
        let turn = if self.urgent.is_empty() { self.turn_of_waiting() } else { Some(Moment::ZERO) };
        turn.filter(|_| self.flights.len() < MAX_IN_FLIGHT)
    }

    fn turn_of_waiting(&self) -> Option<Moment> {
        let next = self.waiting.front()?;
        Some(if next.is_first { Moment::ZERO } else { self.pacer.next() })
    }

    /// Whose probe that is, as long as it is in flight and its target is there.
    pub(super) fn target_of(&self, serial: u64) -> Option<TargetId> {
        match self.flights.get(&serial)? {
            Whose::Target(target) => Some(*target),
            Whose::Gone(_) => None,
        }
    }

    /// It has reported.
    pub(super) fn landed(&mut self, serial: u64) {
        self.flights.remove(&serial);
    }

    /// This target's is given up.
    pub(super) fn lost(&mut self, target: TargetId) {
        self.flights.retain(|_, whose| *whose != Whose::Target(target));
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// When the first one of those whose targets are gone need not be waited for any more.
    pub(super) fn overdue(&self) -> Option<Moment> {
        let bounds = self.flights.values().filter_map(|whose| match whose {
            Whose::Gone(bound) => Some(*bound),
            Whose::Target(_) => None,
        });
        bounds.min()
    }

    /// Time went on.
    pub(super) fn give_up(&mut self, now: Moment) {
        self.flights.retain(|_, whose| !matches!(whose, Whose::Gone(bound) if *bound <= now));
    }

    /// Targets stand elsewhere. `waits` and `flies` say where, if it goes on with its place in the queue, or with its probe
    /// in flight; `bound`, until when a probe may be under way whose target doesn't.
    pub(super) fn succeed(
        &mut self,
        pacer: &Pacer,
        waits: impl Fn(TargetId) -> Option<TargetId>,
        flies: impl Fn(TargetId) -> Option<TargetId>,
        bound: impl Fn(TargetId) -> Moment,
    ) {
        self.pacer.succeed(pacer);
        let moved = |waiting: Waiting| Some(Waiting { target: waits(waiting.target)?, ..waiting });
        self.waiting = std::mem::take(&mut self.waiting).into_iter().filter_map(moved).collect();
        self.urgent = std::mem::take(&mut self.urgent).into_iter().filter_map(&waits).collect();
        for whose in self.flights.values_mut() {
            if let Whose::Target(target) = *whose {
                *whose = flies(target).map_or_else(|| Whose::Gone(bound(target)), Whose::Target);
            }
        }
    }
}
