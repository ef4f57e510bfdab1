//! What must be true whatever happens.
//!
//! Written from the contract, without a look at how the policy does it; each law panics with what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::schedule::TargetId;
use crate::policy::*;

/// What the laws remember of one life.
pub(super) struct Laws {
    settings: Vec<PoolSettings>,
    routed: Vec<Option<BackendIndex>>,
    told_active: Vec<Option<BackendIndex>>,
    last_transition: u64,
    in_flight: BTreeMap<TargetId, u64>,
    awaited: BTreeSet<TargetId>,
    down_since: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    failbacks: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    /// Until then the controller stood still.
    excused: Moment,
}

impl Laws {
    pub(super) fn new(settings: &[PoolSettings], history: &History) -> Self {
        let past = |n: usize| {
            let active = history.pools.get(n)?.active?;
            settings[n].backends.get(active.0).filter(|backend| !backend.disabled).map(|_| active)
        };
        let mut awaited = BTreeSet::new();
        for (p, pool) in settings.iter().enumerate() {
            for (b, backend) in pool.backends.iter().enumerate() {
                for (s, service) in pool.services.iter().enumerate() {
                    if !backend.disabled && service.probe.is_some() {
                        let (pool, backend, service) = (PoolIndex(p), BackendIndex(b), ServiceIndex(s));
                        awaited.insert(TargetId { pool, backend, service });
                    }
                }
            }
        }
        Self {
            settings: settings.to_vec(),
            routed: vec![None; settings.len()],
            told_active: (0..settings.len()).map(past).collect(),
            last_transition: history.last_transition,
            in_flight: BTreeMap::new(),
            awaited,
            down_since: BTreeMap::new(),
            failbacks: BTreeMap::new(),
            excused: Moment::ZERO,
        }
    }

    pub(super) fn excuse(&mut self, until: Moment) {
        self.excused = until;
    }

    /// One probe in flight per target, and no more than the cap over all.
    pub(super) fn launched(&mut self, ticket: ProbeTicket) {
        let before = self.in_flight.insert(ticket.target(), ticket.serial);
        assert_eq!(before, None, "two probes of {ticket:?} at once");
        assert!(self.in_flight.len() <= MAX_IN_FLIGHT);
    }

    pub(super) fn landed(&mut self, ticket: ProbeTicket) {
        let target = ticket.target();
        if self.in_flight.get(&target) == Some(&ticket.serial) {
            self.in_flight.remove(&target);
        }
        self.awaited.remove(&target);
    }

    /// Replaying the decisions gives what the snapshot says (see `check`).
    pub(super) fn decided(&mut self, decision: Decision) {
        self.routed[decision.pool.0] = decision.active;
    }

    pub(super) fn told(&mut self, event: &Event, command: Option<&Command>, now: Moment) {
        match event {
            Event::Transition { id, pool, from, to, reason, .. } => {
                assert_eq!(*id, self.last_transition + 1, "ids grow by one");
                self.last_transition = *id;
                assert_eq!(
                    *from, self.told_active[pool.0],
                    "each transition starts where the last one ended"
                );
                self.told_active[pool.0] = Some(*to);
                if *reason == ActiveReason::Failback && command.is_none() {
                    self.returned_by_itself(*pool, *to, now);
                }
            }
            Event::Health { pool, backend, from, to, .. } => {
                let key = (*pool, *backend);
                if *to == Health::Down {
                    self.down_since.insert(key, now);
                } else if *from == Health::Down {
                    self.down_lasts_exactly_fail_timeout(key, now);
                }
            }
            Event::AllDown { .. }
            | Event::AllDownOver { .. }
            | Event::ProbeLost { .. }
            | Event::Stalled { .. } => {}
        }
    }

    fn returned_by_itself(&mut self, pool: PoolIndex, to: BackendIndex, now: Moment) {
        let settings = &self.settings[pool.0];
        assert_ne!(settings.failback, Failback::Manual, "manual never returns by itself");
        if let Some(last) = self.failbacks.insert((pool, to), now) {
            assert!(now - last >= settings.backends[to.0].fail_timeout, "flapping took the pool with it");
        }
    }

    fn down_lasts_exactly_fail_timeout(&self, key: (PoolIndex, BackendIndex), now: Moment) {
        let (pool, backend) = key;
        let pool = &self.settings[pool.0];
        let fail_timeout = pool.backends[backend.0].fail_timeout;
        let down_for = now - self.down_since[&key];
        let probed = pool.services.iter().filter(|service| service.probe.is_some()).count();
        // With several services the backend is down for as long as any of them is.
        let excused = probed > 1 || self.excused >= self.down_since[&key] + fail_timeout;
        assert!(
            down_for == fail_timeout || (excused && down_for > fail_timeout),
            "{key:?} was down for {down_for:?}"
        );
    }

    pub(super) fn check(&self, policy: &Policy, now: Moment) {
        for (n, settings) in self.settings.iter().enumerate() {
            let pool = PoolIndex(n);
            let view = policy.snapshot(pool, now);
            assert_eq!(self.routed[n], view.active, "replayed decisions of pool {n}");
            assert_eq!(
                self.told_active[n],
                view.active.or(self.told_active[n]),
                "replayed transitions of pool {n}"
            );
            assert_eq!(view.state == PoolState::Starting, view.active.is_none());
            let Some(active) = view.active else { continue };
            assert!(!settings.backends[active.0].disabled, "a disabled backend is active");
            let lost = !view.backends[active.0].health.may_stay();
            let ready = || view.backends.iter().filter(|backend| backend.admin == Admin::Ready);
            let unknown = self.awaited.is_empty() && ready().any(|backend| backend.health == Health::Unknown);
            let another = ready().any(|backend| backend.health == Health::Up) || unknown;
            if lost && another {
                assert_eq!(view.wish, Wish::Forced, "at {now:?} pool {n} stays on a lost backend: {view:?}");
            }
            if self.awaited.is_empty() {
                assert_eq!(view.state == PoolState::AllDown, lost && !another, "{view:?}");
            }
        }
    }
}
