//! What must be true of clients' own connection attempts: to whom they may go on, and that what they ask for comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::policy::queue::TargetId;
use crate::policy::*;

/// What the laws remember of one pool's attempts.
pub(super) struct Attempts {
    settings: PoolSettings,
    /// When the last input was over: whether the active backend wasn't lost, and who would come behind it.
    said: Option<(bool, Vec<BackendIndex>)>,
    /// Probes that clients' failures asked for, and by when they start.
    asked: BTreeMap<TargetId, Moment>,
    /// Those whose probe never reports: it takes its time until another one starts.
    lost: BTreeSet<TargetId>,
}

impl Attempts {
    pub(super) const fn new(settings: PoolSettings) -> Self {
        Self { settings, said: None, asked: BTreeMap::new(), lost: BTreeSet::new() }
    }

    /// What was asked for before a restart or a standstill may never come.
    pub(super) fn interrupted(&mut self) {
        self.said = None;
        self.asked.clear();
        self.lost.clear();
    }

    /// Nobody's failure is more than the pool wants it to be.
    pub(super) fn failed(&mut self, id: TargetId, before: &PoolView, after: &PoolView, now: Moment) {
        if self.settings.passive != Passive::Count {
            assert_eq!(before, after, "a client's failure is no more than a question");
        }
        let health = before.backends[id.backend.0].health;
        if health == Health::Down {
            assert_eq!(before, after, "a failure counts at a backend that is down");
        }
        let of = &self.settings.backends[id.backend.0];
        let asks = !self.lost.contains(&id)
            && self.settings.passive == Passive::Probe
            && health != Health::Down
            && !of.disabled
            && !of.cold;
        if asks && self.settings.services[id.service.0].probe.is_some() {
            self.asked.insert(id, now + self.longest_wait(id));
        }
    }

    /// Of its own `fast_interval`, and then for each of the backend's other services, as one probe of a backend that clients
    /// ask for may start per the shortest.
    fn longest_wait(&self, id: TargetId) -> Duration {
        let services = &self.settings.services;
        let fast = |service: &ServiceSettings| service.probe.map(|probe| probe.fast_interval);
        let shortest = services.iter().filter_map(fast).min().unwrap_or_default();
        let others = services.iter().filter_map(fast).skip(1).map(|_| shortest);
        fast(&services[id.service.0]).unwrap_or_default() + others.sum::<Duration>()
    }

    pub(super) fn launched(&mut self, id: TargetId) {
        self.lost.remove(&id);
        self.asked.remove(&id);
    }

    /// One that fails has answered; another one may have begun too early.
    pub(super) fn landed(&mut self, id: TargetId, signal: &Signal, now: Moment) {
        let wait = self.longest_wait(id);
        match (signal, self.asked.get_mut(&id)) {
            (Signal::Bad(_), _) => {
                self.asked.remove(&id);
            }
            (Signal::Good | Signal::Inconclusive, Some(by)) => *by = now + wait,
            (Signal::Good | Signal::Inconclusive, None) => {}
        }
    }

    /// The prober never reports.
    pub(super) fn lost(&mut self, id: TargetId) {
        self.lost.insert(id);
        self.asked.remove(&id);
    }

    pub(super) fn fell(&mut self, backend: BackendIndex) {
        self.asked.retain(|id, _| id.backend != backend);
    }

    /// By itself, as the active backend failed: to whom attempts went on already.
    pub(super) fn moved(&self, to: BackendIndex) {
        let Some((true, successors)) = &self.said else { return };
        let is_started = self.settings.backends[to.0].cold && !self.holds();
        assert!(
            successors.first() == Some(&to) || is_started && successors.is_empty(),
            "attempts went on to {successors:?}, and the pool to {to:?}"
        );
    }

    /// Another backend is the active one, and the input may go on: what was said was of the one before.
    pub(super) fn switched(&mut self) {
        self.said = None;
    }

    /// The input is over.
    pub(super) fn check(
        &mut self,
        view: &PoolView,
        route: Option<Route>,
        successors: &[BackendIndex],
        in_flight: impl Fn(&TargetId) -> bool,
        now: Moment,
    ) {
        let late = self.asked.iter().find(|(id, by)| **by < now && !in_flight(id));
        assert_eq!(late, None, "a client failed, and nobody looked, at {now:?}");
        let stays = self.settings.failover == Failover::Manual || view.wish == Wish::Forced;
        let active = match route {
            Some(Route::To(active)) if !stays => Some(active),
            _ => None,
        };
        self.check_members(view, active, successors);
        self.said = active.map(|active| (view.backends[active.0].health.may_stay(), successors.to_vec()));
    }

    /// Those up in order, and behind them unknown ones; nobody who isn't eligible, nor the active one, nor anybody where
    /// the pool would stay.
    fn check_members(&self, view: &PoolView, active: Option<BackendIndex>, successors: &[BackendIndex]) {
        let Some(active) = active else {
            assert!(
                successors.is_empty(),
                "attempts go on to {successors:?} though the pool stays: {view:?}"
            );
            return;
        };
        let mut order: Vec<_> = (0..view.backends.len()).map(BackendIndex).filter(|b| *b != active).collect();
        order.sort_by_key(|b| self.settings.backends[b.0].backup);
        let suits = |b: &BackendIndex, health: Health| {
            let sleeps = self.settings.backends[b.0].cold;
            let seen = match view.backends[b.0].health {
                Health::Unknown if sleeps => Health::Up,
                seen => seen,
            };
            view.backends[b.0].admin == Admin::Ready && seen == health
        };
        let runs = |b: &BackendIndex| self.holds() || !self.settings.backends[b.0].cold;
        let all_up: Vec<_> = order.iter().copied().filter(|b| suits(b, Health::Up)).collect();
        let up: Vec<_> = all_up.iter().copied().take_while(runs).collect();
        let unknown: Vec<_> = order.into_iter().filter(|b| suits(b, Health::Unknown)).collect();
        let behind = successors.strip_prefix(&up[..]);
        let fits = behind.is_some_and(|behind| {
            behind.is_empty() || up.len() == all_up.len() && unknown.starts_with(behind)
        });
        assert!(fits, "attempts go on to {successors:?} of {up:?} and {unknown:?}: {view:?}");
    }

    fn holds(&self) -> bool {
        self.settings.hooks.iter().any(|hook| hook.when == HookWhen::Before)
    }
}
