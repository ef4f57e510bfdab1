//! What must be true of every change: it has a cause, a target that may be one, an event, and the cuts that belong to it.
//!
//! The events are replayed, and what they add up to must be what the snapshots say.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::*;

/// One pool as its events tell it.
pub(super) struct Replay {
    pool: PoolIndex,
    settings: PoolSettings,
    /// By backend; empty until the first snapshot of a life.
    seen: Vec<(Health, Admin)>,
    active: Option<BackendIndex>,
    /// Changes that were told to be under way or made, and where to.
    begun: BTreeMap<u64, BackendIndex>,
    /// Changes that decisions named and no event has told yet.
    unexplained: BTreeSet<u64>,
    /// Backends whose flows the last input cut.
    cut: BTreeSet<BackendIndex>,
}

impl Replay {
    pub(super) fn new(pool: PoolIndex, settings: PoolSettings, past: Option<&PoolHistory>) -> Self {
        let kept = |b: &BackendIndex| settings.backends.get(b.0).is_some_and(|backend| !backend.disabled);
        let pending = past.and_then(|past| past.transition.as_ref());
        Self {
            pool,
            seen: Vec::new(),
            active: past.and_then(|past| past.active).filter(kept),
            begun: pending.map(|change| (change.id, change.to)).into_iter().collect(),
            unexplained: BTreeSet::new(),
            cut: BTreeSet::new(),
            settings,
        }
    }

    /// Health is only known anew by the next snapshot.
    pub(super) fn restarted(&mut self) {
        self.seen.clear();
    }

    pub(super) const fn active(&self) -> Option<BackendIndex> {
        self.active
    }

    pub(super) fn decided(&mut self, decision: Decision) {
        self.unexplained.extend(decision.transition);
    }

    pub(super) fn cutting(&mut self, backend: BackendIndex) {
        self.cut.insert(backend);
    }

    /// `asked_for`: by the operator.
    pub(super) fn told(&mut self, event: &Event, asked_for: bool) {
        match event {
            Event::Health { pool, backend, from, to, .. } if *pool == self.pool => {
                if let Some((health, _)) = self.seen.get_mut(backend.0) {
                    assert_eq!(std::mem::replace(health, *to), *from, "{event:?}");
                }
            }
            Event::Admin { pool, backend, from, to, .. } if *pool == self.pool => {
                if let Some((_, admin)) = self.seen.get_mut(backend.0) {
                    assert_eq!(std::mem::replace(admin, *to), *from, "{event:?}");
                }
                assert!(*to != Admin::Maint || self.cut.contains(backend), "flows are left: {event:?}");
            }
            Event::Drained { pool, backend, .. } if *pool == self.pool => {
                assert!(self.cut.contains(backend), "flows are left: {event:?}");
            }
            Event::Switching { pool, id, from, to, reason, .. } if *pool == self.pool => {
                assert_eq!(*from, self.active, "{event:?}");
                self.judge(*to, *reason, asked_for);
                self.unexplained.remove(id);
                assert_eq!(self.begun.insert(*id, *to), None, "{event:?} twice");
            }
            Event::Transition { pool, id, from, to, reason, .. } if *pool == self.pool => {
                assert_eq!(*from, self.active, "each transition starts where the last one ended: {event:?}");
                match self.begun.insert(*id, *to) {
                    Some(begun) => assert_eq!(begun, *to, "the target was exchanged: {event:?}"),
                    None => self.judge(*to, *reason, asked_for),
                }
                self.unexplained.remove(id);
                self.cuts_what_failed(*from, event);
                self.active = Some(*to);
            }
            _ => {}
        }
    }

    fn cuts_what_failed(&self, from: Option<BackendIndex>, event: &Event) {
        let Some((from, (health, _))) = from.and_then(|from| Some((from, self.seen.get(from.0)?))) else {
            return;
        };
        if !health.may_stay() && self.settings.on_backend_down == OnBackendDown::Reset {
            assert!(self.cut.contains(&from), "flows of a failed backend are left: {event:?}");
        }
    }

    /// The input is over: replayed events and snapshot are one.
    pub(super) fn check(&mut self, view: &PoolView) {
        let shown: Vec<_> = view.backends.iter().map(|backend| (backend.health, backend.admin)).collect();
        assert!(self.seen.is_empty() || self.seen == shown, "events say {:?}: {view:?}", self.seen);
        self.seen = shown;
        self.cut.clear();
        assert_eq!(self.unexplained, BTreeSet::new(), "decisions about changes that no event tells");
        assert_eq!(self.active, view.active.or(self.active), "replayed transitions of {:?}", self.pool);
    }

    /// Nobody changes by itself without a cause, nor to anybody who isn't eligible while one is.
    fn judge(&self, to: BackendIndex, reason: ActiveReason, asked_for: bool) {
        if asked_for || self.seen.is_empty() {
            return;
        }
        let from = self.active.map(|from| self.seen[from.0]);
        let has_cause = match reason {
            ActiveReason::Initial => self.active.is_none(),
            ActiveReason::BackendDown => {
                from.is_some_and(|(health, admin)| !health.may_stay() && admin == Admin::Ready)
                    && self.settings.failover == Failover::Auto
            }
            ActiveReason::Failback => {
                self.settings.failback != Failback::Manual && self.seen[to.0].0 == Health::Up
            }
            ActiveReason::Drain => from.is_some_and(|(_, admin)| admin == Admin::Drain),
            ActiveReason::Maint => from.is_some_and(|(_, admin)| admin == Admin::Maint),
            ActiveReason::Operator | ActiveReason::Config | ActiveReason::Restored => false,
        };
        assert!(has_cause, "{:?} from {:?} to {to:?}: {reason:?} of {:?}", self.pool, self.active, self.seen);
        let nobody = !(0..self.seen.len()).any(|b| self.is_eligible(b));
        let is_left = reason == ActiveReason::Initial && nobody && self.seen[to.0].1 == Admin::Ready;
        assert!(self.is_eligible(to.0) || is_left, "{:?} to {to:?} of {:?}", self.pool, self.seen);
    }

    fn is_eligible(&self, b: usize) -> bool {
        let is_ready = |b: usize| self.seen[b].1 == Admin::Ready;
        let sleeps = |b: usize| self.settings.backends[b].cold && self.active != Some(BackendIndex(b));
        let is_up = |b: usize| match self.seen[b].0 {
            Health::Up => is_ready(b),
            Health::Unknown => is_ready(b) && sleeps(b),
            Health::Probation | Health::Down => false,
        };
        let nobody_up = || !(0..self.seen.len()).any(is_up);
        is_up(b) || (is_ready(b) && self.seen[b].0 == Health::Unknown && nobody_up())
    }
}
