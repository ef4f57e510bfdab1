//! What clients' own connection attempts tell, on its way to the policy: as the packet path tells it, and as looks for
//! clients that nobody answers find it. And where attempts go on, on its way to the packet path.
//!
//! Deliberately not here: what any of it means for a backend (`policy`), and how long a client is left waiting
//! (`dataplane::rescue`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer_common::abi::NextHop;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

use crate::dataplane::failures::{Attempt, What};
use crate::dataplane::flows::FlowTable;
use crate::dataplane::held::ReplayReport;
use crate::dataplane::repeats::Repeats;
use crate::dataplane::rescue::{Rescuer, Rule};
use crate::dataplane::ring::{self, Ring};
use crate::dataplane::slots::{Forwarding, PoolSlots};
use crate::policy::{BackendIndex, LiveFailure, LiveKind, Moment, PoolIndex, ServiceIndex};

use super::Daemon;
use super::steps::Done;

/// From one look to the next while handshakes are under way: a client that waits does so for this much longer at the most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A look that took long is followed by this many times as long without one: a tenth of a processor at the most.
const PAUSE: u32 = 9;
/// Without handshakes it is seen after this at the latest that there are some.
const IDLE_AT_MOST: Duration = Duration::from_secs(1);

/// Where in the configuration whoever has a slot stands.
type Places<Index> = BTreeMap<u16, (PoolIndex, Index)>;

/// Both ways of hearing of attempts, and what the packet path was last told.
pub(super) struct Live {
    failures: AsyncFd<Ring<Attempt>>,
    repeats: Repeats,
    /// Not here while it looks.
    rescuer: Option<Rescuer>,
    /// What it has to be told when it is here again.
    rules: Option<BTreeMap<u16, Rule>>,
    next_look: Option<Instant>,
    /// The last SYNs that a look found could not all come in.
    is_stuck: bool,
    /// Somebody may take attempts that nobody could.
    is_anew: bool,
    services: Places<ServiceIndex>,
    backends: Places<BackendIndex>,
    /// By pool; none: nothing was written yet.
    successors: Vec<Option<Vec<BackendIndex>>>,
}

/// What came of a look.
pub(super) struct Looked {
    rescuer: Rescuer,
    unanswered: Vec<Attempt>,
    report: ReplayReport,
    took: Duration,
}

impl Live {
    pub(super) fn new(
        failures: AsyncFd<Ring<Attempt>>,
        flows: Arc<FlowTable>,
        rules: BTreeMap<u16, Rule>,
        slots: &[PoolSlots],
    ) -> Self {
        let (services, backends) = places(slots);
        let repeats = Repeats::new(&flows);
        let rescuer = Rescuer::new(flows, repeats.clone(), rules);
        Self {
            failures,
            repeats,
            next_look: rescuer.patience().map(|_| Instant::now()),
            rescuer: Some(rescuer),
            rules: None,
            is_stuck: false,
            is_anew: false,
            services,
            backends,
            successors: vec![None; slots.len()],
        }
    }

    /// What came in once more, for whoever has more come in.
    pub(super) fn repeats(&self) -> Repeats {
        self.repeats.clone()
    }

    /// Other slots, and other rules.
    pub(super) fn succeed(&mut self, slots: &[PoolSlots], rules: BTreeMap<u16, Rule>) {
        (self.services, self.backends) = places(slots);
        self.successors = vec![None; slots.len()];
        self.rules = Some(rules);
        if let Some(rescuer) = self.rescuer.take() {
            self.returned(rescuer);
            self.next_look = Some(Instant::now());
        }
    }

    /// The rescuer is here.
    fn returned(&mut self, mut rescuer: Rescuer) {
        if let Some(rules) = self.rules.take() {
            rescuer.set_rules(rules);
        }
        self.rescuer = Some(rescuer);
    }

    /// What the packet path tells next; waits until there is something.
    pub(super) async fn heard(&mut self) -> Vec<Attempt> {
        ring::heard(&mut self.failures).await
    }

    /// When it is time to look; `None`: not before a look has ended, or never.
    pub(super) const fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Where in the configuration the service in a slot stands.
    pub(super) fn service(&self, slot: u16) -> Option<(PoolIndex, ServiceIndex)> {
        self.services.get(&slot).copied()
    }

    /// An attempt by the names of its slots. None: somebody is meant who isn't configured any more.
    fn named(&self, attempt: &Attempt) -> Option<LiveFailure> {
        let (pool, service) = self.service(attempt.service)?;
        let (of, backend) = *self.backends.get(&attempt.backend)?;
        let what = match attempt.what {
            What::Refused => LiveKind::Refused,
            What::Unreachable => LiveKind::Unreachable,
            What::Unanswered => LiveKind::Unanswered,
            What::UnansweredAgain => LiveKind::UnansweredAgain,
        };
        let failure = LiveFailure { pool, service, backend, what, flow: attempt.flow, answered: None };
        (of == pool).then_some(failure)
    }
}

/// Who is in which slot: services, and backends.
fn places(slots: &[PoolSlots]) -> (Places<ServiceIndex>, Places<BackendIndex>) {
    let pools = || slots.iter().enumerate();
    let services = pools().flat_map(|(pool, slots)| {
        let services = slots.services.iter().enumerate();
        services.map(move |(service, slot)| (slot.index, (PoolIndex(pool), ServiceIndex(service))))
    });
    let backends = pools().flat_map(|(pool, slots)| {
        let backends = slots.backends.iter().enumerate();
        backends.map(move |(backend, slot)| (slot.index, (PoolIndex(pool), BackendIndex(backend))))
    });
    (services.collect(), backends.collect())
}

impl Daemon {
    /// Attempts have failed.
    pub(super) fn failed(&mut self, attempts: &[Attempt]) {
        for attempt in attempts {
            let Some(failure) = self.live.named(attempt) else { continue };
            let answered = self.answered(attempt.backend);
            self.policy.handle_live(LiveFailure { answered, ..failure }, self.clock.now());
        }
    }

    /// When the backend in this slot last answered a client.
    pub(super) fn answered(&self, slot: u16) -> Option<Moment> {
        let answered = self.parts.tables.answered(slot)?;
        Some(self.clock.now().before(self.flows.age(answered)))
    }

    /// Time to look for clients that nobody answers, if any may be waiting.
    pub(super) fn look(&mut self) {
        let Some(mut rescuer) = self.live.rescuer.take() else { return };
        self.live.next_look = None;
        // Before that it isn't known how programs run, and so not how anything comes in.
        let gate = (self.ready && rescuer.has_work()).then(|| self.gate());
        let Some(Ok(gate)) = gate else {
            let patience = rescuer.patience().unwrap_or(IDLE_AT_MOST).clamp(LOOK_EVERY, IDLE_AT_MOST);
            self.live.next_look = Some(Instant::now() + patience);
            self.live.rescuer = Some(rescuer);
            return;
        };
        if std::mem::take(&mut self.live.is_anew) {
            rescuer.begin_anew();
        }
        let (flows, ways, done) = (self.flows.clone(), self.ways_unseen(), self.done.0.clone());
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let found = rescuer.look();
            let report = if found.waiting.is_empty() {
                ReplayReport::default()
            } else {
                let report = gate.pass(|entrance| found.waiting.come_in(entrance));
                flows.tell_left(&found.waiting, &ways, gate.exits());
                report
            };
            let (unanswered, took) = (found.unanswered, begun.elapsed());
            // The loop has ended: nobody looks any more.
            let _ = done.blocking_send(Done::Looked(Box::new(Looked { rescuer, unanswered, report, took })));
        });
    }

    /// The ways to backends whose late answers the packet path doesn't know as such, by slot.
    fn ways_unseen(&self) -> BTreeMap<u16, NextHop> {
        let pools = self.parts.plan.iter().zip(&self.parts.slots);
        let dnat = pools.filter(|(plan, _)| plan.forwarding == Forwarding::Dnat);
        let backends = dnat.flat_map(|(_, slots)| &slots.backends);
        backends.filter_map(|slot| Some((slot.index, self.parts.tables.way(slot.index)?))).collect()
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, looked: Looked) {
        let Looked { rescuer, unanswered, report: ReplayReport { sent, failed, problem }, took } = looked;
        self.failed(&unanswered);
        if sent + failed > 0 {
            debug!(event = "rescue", sent, failed, took_ms = took.as_millis() as u64);
        }
        // Said once: it may go on for as long as clients wait.
        if let Some(problem) = problem.as_ref().filter(|_| !self.live.is_stuck) {
            warn!(event = "rescue", sent, failed, error = %problem, "clients that nobody answers have to repeat themselves");
        }
        self.live.is_stuck = problem.is_some() || (self.live.is_stuck && sent == 0);
        self.live.returned(rescuer);
        self.live.next_look = Some(Instant::now() + LOOK_EVERY.max(took * PAUSE));
    }

    /// Writes down where attempts go on, where that is something else now.
    pub(super) fn write_successors(&mut self) {
        for (pool, slots) in self.parts.slots.iter().enumerate() {
            let successors = self.policy.successors(PoolIndex(pool));
            if self.live.successors[pool].as_ref() == Some(&successors) {
                continue;
            }
            let slot = |backend: &BackendIndex| slots.backends[backend.0].index;
            let written: Vec<u16> = successors.iter().map(slot).collect();
            self.parts.tables.set_successors(slots.pool.index, &written);
            self.live.is_anew |= !written.is_empty();
            self.live.successors[pool] = Some(successors);
        }
    }
}
