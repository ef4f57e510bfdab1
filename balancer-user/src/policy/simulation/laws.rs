//! What must be true whatever happens.
//!
//! Written from the contract, without a look at how the policy does it; each law panics with what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use super::attempts::Attempts;
use super::replay::Replay;
use super::steps::Steps;
use crate::policy::queue::TargetId;
use crate::policy::*;

/// What the laws remember of one life.
pub(super) struct Laws {
    settings: Vec<PoolSettings>,
    routed: Vec<Option<Route>>,
    /// By pool.
    replays: Vec<Replay>,
    /// By pool.
    attempts: Vec<Attempts>,
    /// Changes that take steps and that the operator asked for.
    asked_for: BTreeSet<u64>,
    /// By pool.
    last_transition: Vec<u64>,
    in_flight: BTreeMap<TargetId, u64>,
    awaited: BTreeSet<TargetId>,
    /// Probes that were in flight while the controller stood still: their failure tells nothing.
    spoiled: BTreeSet<(TargetId, u64)>,
    down_since: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    failbacks: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    steps: Steps,
    /// What was told of each pool that isn't over.
    open: Vec<Option<Open>>,
    /// Until then the controller stood still.
    excused: Moment,
}

/// What has a beginning and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Waiting,
    AllDown,
}

impl Laws {
    pub(super) fn new(settings: &[PoolSettings], history: &History) -> Self {
        let replay =
            |(n, pool): (usize, &PoolSettings)| Replay::new(PoolIndex(n), pool.clone(), history.pools.get(n));
        // A change that was under way keeps its id.
        let last = |n: usize| {
            let pending = history.pools.get(n).and_then(|past| past.transition.as_ref());
            pending.map_or(history.last_transition, |pending| pending.id - 1)
        };
        let mut awaited = BTreeSet::new();
        for (p, pool) in settings.iter().enumerate() {
            for (b, backend) in pool.backends.iter().enumerate() {
                for (s, service) in pool.services.iter().enumerate() {
                    if !backend.disabled && !backend.cold && service.probe.is_some() {
                        let (pool, backend, service) = (PoolIndex(p), BackendIndex(b), ServiceIndex(s));
                        awaited.insert(TargetId { pool, backend, service });
                    }
                }
            }
        }
        Self {
            settings: settings.to_vec(),
            routed: vec![None; settings.len()],
            open: vec![None; settings.len()],
            replays: settings.iter().enumerate().map(replay).collect(),
            attempts: settings.iter().cloned().map(Attempts::new).collect(),
            asked_for: BTreeSet::new(),
            last_transition: (0..settings.len()).map(last).collect(),
            in_flight: BTreeMap::new(),
            awaited,
            spoiled: BTreeSet::new(),
            down_since: BTreeMap::new(),
            failbacks: BTreeMap::new(),
            steps: Steps::after(history),
            excused: Moment::ZERO,
        }
    }

    pub(super) fn excuse(&mut self, until: Moment) {
        self.excused = until;
        self.attempts.iter_mut().for_each(Attempts::interrupted);
        self.spoiled.extend(self.in_flight.iter().map(|(target, serial)| (*target, *serial)));
    }

    /// One probe in flight per target, and no more than the cap over all.
    pub(super) fn launched(&mut self, ticket: ProbeTicket) {
        let before = self.in_flight.insert(ticket.target(), ticket.serial);
        assert_eq!(before, None, "two probes of {ticket:?} at once");
        assert!(self.in_flight.len() <= MAX_IN_FLIGHT);
        self.attempts[ticket.pool.0].launched(ticket.target());
    }

    /// A client's failure was told, and its pool was like this before and after.
    pub(super) fn failed(&mut self, failure: &LiveFailure, views: Option<(PoolView, PoolView)>, now: Moment) {
        let LiveFailure { pool, backend, service, .. } = *failure;
        let Some((before, after)) = views else { return };
        let known = (self.settings[pool.0].backends.len(), self.settings[pool.0].services.len());
        if backend.0 < known.0 && service.0 < known.1 {
            self.attempts[pool.0].failed(TargetId { pool, backend, service }, &before, &after, now);
        } else {
            assert_eq!(before, after, "{failure:?} at nobody");
        }
    }

    pub(super) fn landed(&mut self, ticket: ProbeTicket, signal: &Signal, now: Moment) {
        self.attempts[ticket.pool.0].landed(ticket.target(), signal, now);
        self.forget(ticket);
        if !self.spoiled.remove(&(ticket.target(), ticket.serial)) {
            self.awaited.remove(&ticket.target());
        }
    }

    /// It will never land; the policy gives it up one day.
    pub(super) fn lost(&mut self, ticket: ProbeTicket) {
        self.attempts[ticket.pool.0].lost(ticket.target());
        self.forget(ticket);
    }

    fn forget(&mut self, ticket: ProbeTicket) {
        let target = ticket.target();
        if self.in_flight.get(&target) == Some(&ticket.serial) {
            self.in_flight.remove(&target);
        }
    }

    /// Replaying the decisions gives what the snapshot says (see `check`).
    pub(super) fn decided(&mut self, decision: Decision) {
        self.routed[decision.pool.0] = Some(decision.route);
        self.replays[decision.pool.0].decided(decision);
    }

    /// What is known of the probes is gone; what was decided isn't.
    pub(super) fn restarted(&mut self, history: &History, now: Moment) {
        let fresh = Self::new(&self.settings, history);
        self.in_flight.clear();
        self.spoiled.clear();
        self.awaited = fresh.awaited;
        self.excused = now;
        self.replays.iter_mut().for_each(Replay::restarted);
        self.open.fill(None);
        self.attempts.iter_mut().for_each(Attempts::interrupted);
        self.steps.restarted();
    }

    pub(super) fn cutting(&mut self, cut: Cut) {
        self.steps.cut.remove(&cut);
        let backends = (0..self.settings[cut.pool.0].backends.len()).map(BackendIndex);
        for backend in backends.filter(|b| match cut.whose {
            Whose::Of(backend) => *b == backend,
            Whose::AllBut(spared) => *b != spared,
        }) {
            self.replays[cut.pool.0].cutting(backend);
            assert_ne!(
                self.routed[cut.pool.0],
                Some(Route::To(backend)),
                "flows are cut of the backend that gets new ones"
            );
        }
    }

    pub(super) fn was_cut(&mut self, cut: Cut) {
        self.steps.cut.insert(cut);
    }

    pub(super) fn hook_started(&mut self, run: HookRun, settings: &[PoolSettings]) {
        self.steps.started(run, settings, self.routed[run.pool.0]);
    }

    pub(super) fn hook_ended(&mut self, run: HookRun, end: &HookEnd, settings: &[PoolSettings]) {
        self.steps.ended(run, end, settings);
    }

    pub(super) fn told(&mut self, event: &Event, command: Option<&Command>, now: Moment) {
        let began_by_hand = matches!(event, Event::Transition { id, .. } if self.asked_for.contains(id));
        let asked_for = command.is_some() || began_by_hand;
        self.replays.iter_mut().for_each(|replay| replay.told(event, asked_for));
        match event {
            Event::Transition { id, pool, to, reason, .. } => {
                let last = std::mem::replace(&mut self.last_transition[pool.0], *id);
                assert!(*id > last, "ids grow");
                self.steps.switched(*id, *reason, &self.settings[pool.0]);
                if asked_for {
                    // What the operator leaves for a moment may be returned to.
                    self.failbacks.retain(|(of, _), _| of != pool);
                } else if *reason == ActiveReason::Failback {
                    self.returned_by_itself(*pool, *to, now);
                } else if *reason == ActiveReason::BackendDown {
                    self.attempts[pool.0].moved(*to);
                }
                self.attempts[pool.0].switched();
            }
            Event::Health { pool, backend, from, to, .. } => {
                let key = (*pool, *backend);
                if *to == Health::Down {
                    self.attempts[pool.0].fell(*backend);
                    self.down_since.insert(key, now);
                } else if *from == Health::Down && !self.settings[pool.0].backends[backend.0].cold {
                    self.down_lasts_exactly_fail_timeout(key, now);
                }
            }
            // One that was lost in a standstill of the controller tells nothing.
            Event::ProbeLost { .. } if self.excused == now => {}
            Event::ProbeLost { pool, backend, service } => {
                let target = TargetId { pool: *pool, backend: *backend, service: *service };
                self.awaited.remove(&target);
            }
            Event::Switching { id, pool, to, reason, .. } => {
                if command.is_some() {
                    self.asked_for.insert(*id);
                } else if *reason == ActiveReason::BackendDown {
                    self.attempts[pool.0].moved(*to);
                }
            }
            Event::Held { id, .. } => id.iter().for_each(|id| self.steps.held(*id)),
            Event::Resumed { id, skip, .. } => self.steps.resumed(*id, *skip),
            Event::Hook { .. }
            | Event::Abandoned { .. }
            | Event::Admin { .. }
            | Event::Drained { .. }
            | Event::Stalled { .. } => {}
            Event::Waiting { pool, .. } => self.goes_on_from(*pool, None, Some(Open::Waiting)),
            Event::WaitingOver { pool } => self.goes_on_from(*pool, Some(Open::Waiting), None),
            Event::AllDown { pool, .. } => self.goes_on_from(*pool, None, Some(Open::AllDown)),
            Event::AllDownOver { pool } => self.goes_on_from(*pool, Some(Open::AllDown), None),
        }
    }

    /// What begins ends, before anything else begins.
    fn goes_on_from(&mut self, pool: PoolIndex, from: Option<Open>, to: Option<Open>) {
        assert_eq!(std::mem::replace(&mut self.open[pool.0], to), from, "on the way to {to:?}");
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
        let settings = &pool.backends[backend.0];
        let down_for = now - self.down_since[&key];
        let mut allowed = vec![settings.fail_timeout];
        while allowed.last().is_some_and(|last| *last < settings.fail_timeout_max && !last.is_zero()) {
            allowed.push((*allowed.last().unwrap() * 2).min(settings.fail_timeout_max));
        }
        // With several services the backend is down for as long as any of them is.
        let excused = pool.services.len() > 1 || self.excused >= self.down_since[&key];
        assert!(
            allowed.contains(&down_for) || (excused && down_for > settings.fail_timeout),
            "{key:?} was down for {down_for:?}"
        );
    }

    pub(super) fn check(&mut self, n: usize, view: &PoolView, successors: &[BackendIndex], now: Moment) {
        self.replays[n].check(view);
        self.check_route(n, view);
        self.check_choice(n, view, now);
        let in_flight = |id: &TargetId| self.in_flight.contains_key(id);
        self.attempts[n].check(view, self.routed[n], successors, in_flight, now);
    }

    /// Replaying the decisions and the transitions gives what the snapshot says.
    fn check_route(&self, n: usize, view: &PoolView) {
        let (Some(route), false) = (self.routed[n], view.state == PoolState::Starting) else {
            assert_eq!((view.state, view.active), (PoolState::Starting, None));
            return;
        };
        let told_active = self.replays[n].active();
        let made = view.transition.as_ref().is_some_and(|change| told_active == Some(change.to));
        let holds = matches!(view.state, PoolState::Switching | PoolState::Held) && !made;
        match route {
            Route::To(to) => {
                assert_eq!((view.active, holds), (Some(to), false), "{view:?}");
                assert_eq!(
                    view.backends[to.0].admin,
                    Admin::Ready,
                    "what is out of use gets flows: {view:?}"
                );
            }
            Route::Hold => assert!(holds, "{view:?}"),
            Route::Reject => {
                let out_of_use = told_active.is_some_and(|b| view.backends[b.0].admin != Admin::Ready);
                let refuses = self.settings[n].when_all_down == WhenAllDown::Reject
                    && matches!(view.state, PoolState::AllDown | PoolState::Waiting | PoolState::Serving);
                assert!(view.active.is_none() && (out_of_use || refuses), "{view:?}");
            }
            Route::Nobody => assert_eq!((view.active, told_active), (None, None)),
        }
    }

    /// Nobody who is lost is active while another could be, unless somebody wanted that.
    fn check_choice(&self, n: usize, view: &PoolView, now: Moment) {
        let settings = &self.settings[n];
        let (Some(active), true) = (self.replays[n].active(), self.routed[n] != Some(Route::Hold)) else {
            return;
        };
        assert!(!settings.backends[active.0].disabled, "a disabled backend is active");
        let is_ready = |b: usize| view.backends[b].admin == Admin::Ready;
        let lost = !view.backends[active.0].health.may_stay() || !is_ready(active.0);
        let ready = || (0..view.backends.len()).filter(|b| is_ready(*b));
        let sleeps = |b: usize| settings.backends[b].cold && b != active.0;
        let is_up = |b: usize| {
            let health = view.backends[b].health;
            health == Health::Up || sleeps(b) && health == Health::Unknown
        };
        let unknown = self.awaited.is_empty() && ready().any(|b| view.backends[b].health == Health::Unknown);
        let another = ready().any(is_up) || unknown;
        let wanted = view.wish == Wish::Forced || view.state == PoolState::Waiting;
        // What has just been restored, or switched to, may be cold and not seen yet.
        let has_cold = settings.backends.iter().any(|backend| backend.cold);
        if lost && another && (ready().any(is_up) || !has_cold) {
            assert!(wanted, "at {now:?} pool {n} stays on a lost backend: {view:?}");
        }
        if view.state == PoolState::Waiting {
            assert_eq!(settings.failover, Failover::Manual);
        }
        if self.awaited.is_empty() && !has_cold {
            assert!(
                view.state == PoolState::Waiting || (view.state == PoolState::AllDown) == (lost && !another),
                "{view:?}"
            );
        }
    }
}
