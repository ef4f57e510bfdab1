//! Whose probe starts next: the queue that all targets share, and that bounds how many probes are in flight.
//!
//! Deliberately not here: when a target is due (`schedule`), and how far starts are apart (`pacer`).

use std::collections::VecDeque;

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
    in_flight: usize,
    pacer: Pacer,
}

#[derive(Debug)]
struct Waiting {
    target: TargetId,
    /// Its first probe ever: the start is waiting for it.
    is_first: bool,
}

impl ProbeQueue {
    pub(super) const fn new(pacer: Pacer) -> Self {
        Self { waiting: VecDeque::new(), urgent: VecDeque::new(), overtaken: false, in_flight: 0, pacer }
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
    pub(super) fn launch(&mut self, now: Moment) -> Option<TargetId> {
        if self.in_flight >= MAX_IN_FLIGHT {
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
        self.in_flight += 1;
        Some(target)
    }

    /// From when on the next one may start; `None`: not before something else has happened.
    pub(super) fn next_start(&self) -> Option<Moment> {
        let turn = if self.urgent.is_empty() { self.turn_of_waiting() } else { Some(Moment::ZERO) };
        turn.filter(|_| self.in_flight < MAX_IN_FLIGHT)
    }

    fn turn_of_waiting(&self) -> Option<Moment> {
        let next = self.waiting.front()?;
        Some(if next.is_first { Moment::ZERO } else { self.pacer.next() })
    }

    /// One in flight ended.
    pub(super) const fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}
