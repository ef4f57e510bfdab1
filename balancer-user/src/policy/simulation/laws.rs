//! What must be true whatever happens.
//!
//! Written from the contract, without a look at how the policy does it; each law panics with what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::schedule::TargetId;
use crate::policy::*;

/// What the laws remember of one life.
pub(super) struct Laws {
    settings: Vec<PoolSettings>,
    routed: Vec<Option<Route>>,
    told_active: Vec<Option<BackendIndex>>,
    /// Changes that take steps and that the operator asked for.
    asked_for: BTreeSet<u64>,
    /// The first one's id is greater.
    first_transition: u64,
    last_transition: BTreeMap<PoolIndex, u64>,
    in_flight: BTreeMap<TargetId, u64>,
    awaited: BTreeSet<TargetId>,
    down_since: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    failbacks: BTreeMap<(PoolIndex, BackendIndex), Moment>,
    steps: Steps,
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
            told_active: (0..settings.len()).map(past).collect(),
            asked_for: BTreeSet::new(),
            first_transition: history.last_transition,
            last_transition: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            awaited,
            down_since: BTreeMap::new(),
            failbacks: BTreeMap::new(),
            steps: Steps::default(),
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
        self.lost(ticket);
        self.awaited.remove(&ticket.target());
    }

    /// It will never land; the policy gives it up one day.
    pub(super) fn lost(&mut self, ticket: ProbeTicket) {
        let target = ticket.target();
        if self.in_flight.get(&target) == Some(&ticket.serial) {
            self.in_flight.remove(&target);
        }
    }

    /// Replaying the decisions gives what the snapshot says (see `check`).
    pub(super) fn decided(&mut self, decision: Decision) {
        self.routed[decision.pool.0] = Some(decision.route);
    }

    /// What is known of the probes is gone; what was decided isn't.
    pub(super) fn restarted(&mut self, history: &History, now: Moment) {
        let fresh = Self::new(&self.settings, history);
        self.in_flight.clear();
        self.awaited = fresh.awaited;
        self.excused = now;
        self.steps.restarted();
    }

    pub(super) fn cutting(&mut self, cut: Cut) {
        self.steps.cut.remove(&cut);
        assert_ne!(
            self.routed[cut.pool.0],
            Some(Route::To(cut.backend)),
            "flows are cut of the backend that gets new ones"
        );
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
        match event {
            Event::Transition { id, pool, from, to, reason, .. } => {
                let last = self.last_transition.insert(*pool, *id).unwrap_or(self.first_transition);
                assert!(*id > last, "ids grow");
                assert_eq!(
                    *from, self.told_active[pool.0],
                    "each transition starts where the last one ended"
                );
                self.told_active[pool.0] = Some(*to);
                self.steps.switched(*id, *reason, &self.settings[pool.0]);
                let asked_for = command.is_some() || self.asked_for.contains(id);
                if *reason == ActiveReason::Failback && !asked_for {
                    self.returned_by_itself(*pool, *to, now);
                }
            }
            Event::Health { pool, backend, from, to, .. } => {
                let key = (*pool, *backend);
                if *to == Health::Down {
                    self.down_since.insert(key, now);
                } else if *from == Health::Down && !self.settings[pool.0].backends[backend.0].cold {
                    self.down_lasts_exactly_fail_timeout(key, now);
                }
            }
            Event::ProbeLost { pool, backend, service } => {
                let target = TargetId { pool: *pool, backend: *backend, service: *service };
                self.awaited.remove(&target);
            }
            Event::Switching { id, .. } => {
                if command.is_some() {
                    self.asked_for.insert(*id);
                }
            }
            Event::Resumed { id, skip, .. } => self.steps.resumed(*id, *skip),
            Event::Held { .. }
            | Event::Hook { .. }
            | Event::Abandoned { .. }
            | Event::Waiting { .. }
            | Event::WaitingOver { .. }
            | Event::Admin { .. }
            | Event::Drained { .. }
            | Event::AllDown { .. }
            | Event::AllDownOver { .. }
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
        let settings = &pool.backends[backend.0];
        let down_for = now - self.down_since[&key];
        let probed = pool.services.iter().filter(|service| service.probe.is_some()).count();
        let mut allowed = vec![settings.fail_timeout];
        while allowed.last().is_some_and(|last| *last < settings.fail_timeout_max && !last.is_zero()) {
            allowed.push((*allowed.last().unwrap() * 2).min(settings.fail_timeout_max));
        }
        // With several services the backend is down for as long as any of them is.
        let excused = probed > 1 || self.excused >= self.down_since[&key];
        assert!(
            allowed.contains(&down_for) || (excused && down_for > settings.fail_timeout),
            "{key:?} was down for {down_for:?}"
        );
    }

    pub(super) fn check(&self, n: usize, view: &PoolView, now: Moment) {
        self.check_route(n, view);
        self.check_choice(n, view, now);
    }

    /// Replaying the decisions and the transitions gives what the snapshot says.
    fn check_route(&self, n: usize, view: &PoolView) {
        let (Some(route), false) = (self.routed[n], view.state == PoolState::Starting) else {
            assert_eq!((view.state, view.active), (PoolState::Starting, None));
            return;
        };
        let made = view.transition.as_ref().is_some_and(|change| self.told_active[n] == Some(change.to));
        let holds = matches!(view.state, PoolState::Switching | PoolState::Held) && !made;
        match route {
            Route::To(to) => assert_eq!((view.active, holds), (Some(to), false), "{view:?}"),
            Route::Hold => assert!(holds, "{view:?}"),
            Route::Reject => assert_eq!(view.active, None),
            Route::Nobody => assert_eq!((view.active, self.told_active[n]), (None, None)),
        }
        assert_eq!(
            self.told_active[n],
            view.active.or(self.told_active[n]),
            "replayed transitions of pool {n}"
        );
    }

    /// Nobody who is lost is active while another could be, unless somebody wanted that.
    fn check_choice(&self, n: usize, view: &PoolView, now: Moment) {
        let settings = &self.settings[n];
        let (Some(active), true) = (self.told_active[n], self.routed[n] != Some(Route::Hold)) else { return };
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

/// What the laws remember of the steps around changes.
#[derive(Default)]
struct Steps {
    /// Cuts that were done, and of which nothing else was asked since.
    cut: BTreeSet<Cut>,
    started: BTreeSet<(u64, usize)>,
    /// Before hooks that count as done.
    done: BTreeSet<(u64, usize)>,
    running: BTreeSet<PoolIndex>,
    /// The last step of each change that was started.
    last: BTreeMap<u64, usize>,
    skipped: BTreeSet<u64>,
    switched: BTreeSet<u64>,
}

impl Steps {
    fn restarted(&mut self) {
        self.running.clear();
    }

    /// In order, at most once, one at a time; those before the switch while nothing new reaches anybody and nothing old
    /// reaches the one before.
    fn started(&mut self, run: HookRun, settings: &[PoolSettings], routed: Option<Route>) {
        let key = (run.transition, run.step);
        assert!(self.started.insert(key), "{run:?} runs twice");
        assert!(self.running.insert(run.pool), "{run:?} runs beside another hook of its pool");
        let last = self.last.insert(run.transition, run.step);
        let when = |step: usize| settings[run.pool.0].hooks[step].when;
        let in_order = last.is_none_or(|last| last <= run.step || when(last) != when(run.step));
        assert!(in_order, "{run:?} runs after {last:?}");
        match when(run.step) {
            HookWhen::Before => {
                assert_eq!(routed, Some(Route::Hold), "{run:?}");
                let cut = run.from.is_none_or(|backend| self.cut.contains(&Cut { pool: run.pool, backend }));
                assert!(cut, "{run:?} runs while flows of the one before may be left");
            }
            HookWhen::After => assert!(self.switched.contains(&run.transition), "{run:?}"),
        }
    }

    fn ended(&mut self, run: HookRun, end: &HookEnd, settings: &[PoolSettings]) {
        self.running.remove(&run.pool);
        if *end == HookEnd::Good || settings[run.pool.0].hooks[run.step].on_error == OnError::Continue {
            self.done.insert((run.transition, run.step));
        }
    }

    /// The operator takes it upon himself.
    fn resumed(&mut self, id: u64, skip: bool) {
        if skip {
            self.skipped.insert(id);
        } else {
            let last = self.last.get(&id).copied();
            last.into_iter().for_each(|step| {
                self.started.remove(&(id, step));
            });
        }
    }

    /// Only with everything done that comes before.
    fn switched(&mut self, id: u64, reason: ActiveReason, pool: &PoolSettings) {
        self.switched.insert(id);
        let before = pool.hooks.iter().enumerate().filter(|(_, hook)| hook.when == HookWhen::Before);
        for (step, _) in before.filter(|_| reason != ActiveReason::Initial && !self.skipped.contains(&id)) {
            assert!(self.done.contains(&(id, step)), "{id} switched without its step {step}");
        }
    }
}
