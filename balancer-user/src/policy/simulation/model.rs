//! What the contract says about one pool, as naively as can be.
//!
//! Every signal is kept for ever and read anew each time; the active backend is chosen in the contract's words. Where
//! the policy agrees with it in every life, its windows, timers and wake-ups lost nothing. Deliberately not here: hooks,
//! cold standbys, restarts, a controller that stands still, flows.

mod operator;

use std::collections::BTreeSet;
use std::time::Duration;

use super::reading::{Said, read};
use crate::policy::*;

/// One pool, fed with what its policy is fed with.
pub(super) struct Model {
    pool: PoolSettings,
    /// Whether they were good, by backend and service.
    signals: Vec<Vec<Vec<(Moment, bool)>>>,
    /// Services whose first probe has ended, by backend and service.
    answered: BTreeSet<(usize, usize)>,
    in_flight: BTreeSet<ProbeTicket>,
    /// Probes that began before their service went down.
    outdated: BTreeSet<ProbeTicket>,
    /// Clients' failures since the last one that counted, or since the backend went down; by backend.
    attempts: Vec<Vec<(Moment, u64)>>,
    /// When one of them counted last.
    counted: Vec<Option<Moment>>,
    /// By backend and service.
    said: Vec<Vec<Said>>,
    /// By backend, and since when.
    health: Vec<(Health, Moment)>,
    admin: Vec<Admin>,
    active: Option<usize>,
    since: Moment,
    state: PoolState,
    refuses: bool,
    wish: Wish,
    now: Moment,
}

impl Model {
    pub(super) fn new(pool: PoolSettings) -> Self {
        let admin = |backend: &BackendSettings| if backend.disabled { Admin::Disabled } else { Admin::Ready };
        let mut model = Self {
            signals: vec![vec![Vec::new(); pool.services.len()]; pool.backends.len()],
            answered: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            outdated: BTreeSet::new(),
            attempts: vec![Vec::new(); pool.backends.len()],
            counted: vec![None; pool.backends.len()],
            said: Vec::new(),
            health: vec![(Health::Unknown, Moment::ZERO); pool.backends.len()],
            admin: pool.backends.iter().map(admin).collect(),
            active: None,
            since: Moment::ZERO,
            state: PoolState::Starting,
            refuses: false,
            wish: Wish::Automatic,
            now: Moment::ZERO,
            pool,
        };
        model.look();
        model.decide();
        model
    }

    /// Time went on: whatever came due meanwhile happened then.
    pub(super) fn advance(&mut self, now: Moment) {
        while let Some(next) = self.next().filter(|next| *next <= now) {
            self.now = next;
            self.look();
            self.decide();
        }
        self.now = now;
        self.look();
    }

    pub(super) fn signal(&mut self, ticket: ProbeTicket, good: bool, now: Moment) {
        self.advance(now);
        self.in_flight.remove(&ticket);
        if !self.outdated.remove(&ticket) {
            let (b, s) = (ticket.backend.0, ticket.service.0);
            self.answered.insert((b, s));
            self.signals[b][s].push((now, good));
        }
        self.look();
        self.decide();
    }

    pub(super) fn launched(&mut self, ticket: ProbeTicket) {
        self.in_flight.insert(ticket);
    }

    /// One failure per `connect_timeout`, when at least two flows failed since the backend answered or a failure counted,
    /// and it answered nobody in the last 100 ms.
    pub(super) fn live(&mut self, failure: &LiveFailure, now: Moment) {
        self.advance(now);
        let (b, s) = (failure.backend.0, failure.service.0);
        let is_late = self.health[b].0 == Health::Down || self.admin[b] == Admin::Disabled;
        if self.pool.passive != Passive::Count || is_late {
            return;
        }
        if self.is_on_trial(b, s) {
            return self.tried(b, s, false);
        }
        self.attempts[b].push((now, failure.flow));
        let since = |at: &Moment| failure.answered.is_none_or(|answered| *at > answered);
        let flows: BTreeSet<_> =
            self.attempts[b].iter().filter(|(at, _)| since(at)).map(|(_, flow)| flow).collect();
        let is_quiet = failure.answered.is_none_or(|answered| now - answered >= Duration::from_millis(100));
        let is_next = self.counted[b].is_none_or(|last| now - last >= self.pool.connect_timeout);
        if flows.len() >= 2 && is_quiet && is_next {
            self.counted[b] = Some(now);
            self.attempts[b].clear();
            self.signals[b][s].push((now, false));
            self.look();
            self.decide();
        }
    }

    /// A client was answered, which decides where no probe does.
    pub(super) fn answered(&mut self, b: usize, s: usize, now: Moment) {
        self.advance(now);
        if self.is_on_trial(b, s) {
            self.tried(b, s, true);
        }
    }

    fn tried(&mut self, b: usize, s: usize, good: bool) {
        self.signals[b][s].push((self.now, good));
        self.look();
        self.decide();
    }

    fn is_on_trial(&self, b: usize, s: usize) -> bool {
        let is_probed = self.pool.services[s].probe.is_some();
        !is_probed
            && self.tries_live()
            && self.said[b].get(s).is_some_and(|said| said.health == Health::Probation)
    }

    /// The pool returns by itself, and connections tell of failures.
    fn tries_live(&self) -> bool {
        self.pool.failback != Failback::Manual && self.pool.passive == Passive::Count
    }

    pub(super) fn agree(&mut self, view: &PoolView, successors: &[BackendIndex], now: Moment) {
        self.advance(now);
        let active = self.active.filter(|_| !self.refuses).map(BackendIndex);
        let mine = (self.state, active, self.wish);
        assert_eq!((view.state, view.active, view.wish), mine, "policy and model, at {now:?}: {view:?}");
        let mine: Vec<_> = self.successors().into_iter().map(BackendIndex).collect();
        assert_eq!(successors, mine, "policy and model about who comes next, at {now:?}: {view:?}");
        if self.active.is_some() {
            assert_eq!(view.since, self.since, "policy and model about when it became active, at {now:?}");
        }
        for (b, backend) in view.backends.iter().enumerate() {
            let fails = self.said[b].iter().map(|said| said.fails).max().unwrap_or(0);
            let (health, since) = self.health[b];
            let seen = (backend.health, backend.admin, backend.fails);
            assert_eq!(
                seen,
                (health, self.admin[b], fails),
                "policy and model about backend {b}, at {now:?}"
            );
            // A time down of nothing is over before it can be seen here.
            if !self.pool.backends[b].fail_timeout.is_zero() {
                assert_eq!(backend.since, since, "policy and model about backend {b}, at {now:?}");
            }
        }
    }

    /// Reads everything anew. A backend is as well as the worst of its services; one that isn't probed says only that it
    /// fails.
    fn look(&mut self) {
        let of = |b: usize| {
            let services = self.pool.services.iter().zip(&self.signals[b]);
            let services = services.filter(|_| self.admin[b] != Admin::Disabled);
            let trial = self.tries_live().then_some(1);
            let rise = |service: &ServiceSettings| service.probe.map(|probe| probe.rise).or(trial);
            services
                .map(|(service, signals)| read(signals, &self.pool.backends[b], rise(service), self.now))
                .collect()
        };
        let said: Vec<Vec<Said>> = (0..self.pool.backends.len()).map(of).collect();
        let before = std::mem::replace(&mut self.said, said);
        for (b, said) in self.said.iter().enumerate() {
            for (s, said) in said.iter().enumerate() {
                let downs = before.get(b).and_then(|before| before.get(s)).map_or(0, |before| before.downs);
                if said.downs > downs {
                    self.attempts[b].clear();
                    let of = |ticket: &&ProbeTicket| (ticket.backend.0, ticket.service.0) == (b, s);
                    self.outdated.extend(self.in_flight.iter().filter(of));
                }
            }
            let says = said.iter().zip(&self.pool.services).filter_map(|(said, service)| {
                (service.probe.is_some() || said.health != Health::Unknown).then_some(said.health)
            });
            let worst = says.max().unwrap_or(Health::Unknown);
            if worst != self.health[b].0 {
                self.health[b] = (worst, self.now);
            }
        }
    }

    /// Who would be chosen by itself if the active one were lost, and the one chosen then, and so on.
    fn successors(&self) -> Vec<usize> {
        let mut lost: Vec<_> = self.active.into_iter().collect();
        let stays = self.pool.failover == Failover::Manual || self.wish == Wish::Forced;
        if lost.is_empty() || stays || self.refuses {
            return Vec::new();
        }
        loop {
            let others: Vec<_> = self.ready().into_iter().filter(|b| !lost.contains(b)).collect();
            let first = |health| others.iter().copied().find(|b| self.health[*b].0 == health);
            let waits = others.iter().any(|b| self.is_awaited(*b));
            match first(Health::Up).or_else(|| first(Health::Unknown).filter(|_| !waits)) {
                Some(next) => lost.push(next),
                None => return lost.split_off(1),
            }
        }
    }

    /// When something comes due by itself: a time down is over, or it is time to return.
    fn next(&self) -> Option<Moment> {
        let downs = self.said.iter().flatten().map(|said| said.until);
        let returns = match self.pool.failback {
            Failback::Auto { delay } => self.eligible().first().map(|first| self.health[*first].1 + delay),
            Failback::Manual => None,
        };
        downs.chain(returns).filter(|at| *at > self.now).min()
    }

    /// Without `backup` first, each group in list order.
    fn order(&self) -> Vec<usize> {
        let group =
            |backup| (0..self.pool.backends.len()).filter(move |b| self.pool.backends[*b].backup == backup);
        group(false).chain(group(true)).collect()
    }

    fn ready(&self) -> Vec<usize> {
        self.order().into_iter().filter(|b| self.admin[*b] == Admin::Ready).collect()
    }

    /// `ready`, and up; then, when none is up, unknown ones.
    fn eligible(&self) -> Vec<usize> {
        let that_are = |health| self.ready().into_iter().filter(move |b| self.health[*b].0 == health);
        let up: Vec<_> = that_are(Health::Up).collect();
        if up.is_empty() { that_are(Health::Unknown).collect() } else { up }
    }

    /// Its first signals are still to come, and may make it up.
    fn is_awaited(&self, b: usize) -> bool {
        let mut probed = (0..self.pool.services.len()).filter(|s| self.pool.services[*s].probe.is_some());
        self.health[b].0 == Health::Unknown && probed.any(|s| !self.answered.contains(&(b, s)))
    }

    /// Down, in probation or taken out of use.
    fn is_lost(&self, b: usize) -> bool {
        self.admin[b] != Admin::Ready || self.is_failing(b)
    }

    fn is_failing(&self, b: usize) -> bool {
        matches!(self.health[b].0, Health::Down | Health::Probation)
    }

    fn move_to(&mut self, b: usize) {
        if self.active != Some(b) {
            (self.active, self.since) = (Some(b), self.now);
        }
    }

    fn decide(&mut self) {
        let eligible = self.eligible();
        let first = eligible.first().copied();
        let first_up = first.filter(|first| self.health[*first].0 == Health::Up);
        // An unknown one is taken only when no first signal can make another one up.
        let waits = first_up.is_none() && self.ready().into_iter().any(|b| self.is_awaited(b));
        match self.active {
            None => {
                let before = self.ready().into_iter().take_while(|b| Some(*b) != first_up);
                let is_start = self.state == PoolState::Starting;
                if waits || is_start && before.into_iter().any(|b| self.is_awaited(b)) {
                    return;
                }
                let taken = first.or_else(|| self.ready().first().copied());
                taken.into_iter().for_each(|b| self.move_to(b));
                self.state = if first.is_some() { PoolState::Serving } else { PoolState::AllDown };
            }
            Some(active) if !self.is_lost(active) => {
                self.state = PoolState::Serving;
                if self.wish == Wish::Forced && self.health[active].0 == Health::Up {
                    self.wish = Wish::Stay;
                }
                self.return_if_due(active, first_up);
            }
            Some(active) if self.wish == Wish::Forced && self.admin[active] == Admin::Ready => {
                let nobody = first.is_none() && !waits;
                self.state = if nobody { PoolState::AllDown } else { PoolState::Serving };
            }
            Some(active) => {
                self.wish = Wish::Automatic;
                match first {
                    _ if waits => {}
                    None => self.state = PoolState::AllDown,
                    Some(_)
                        if self.pool.failover == Failover::Manual && self.admin[active] == Admin::Ready =>
                    {
                        self.state = PoolState::Waiting;
                    }
                    Some(first) => {
                        self.move_to(first);
                        self.state = PoolState::Serving;
                    }
                }
            }
        }
        let rejects = self.pool.when_all_down == WhenAllDown::Reject && self.wish != Wish::Forced;
        self.refuses = self.active.is_some_and(|active| self.admin[active] != Admin::Ready)
            || match self.state {
                PoolState::AllDown => rejects,
                // As before it asked.
                PoolState::Waiting => self.refuses,
                _ => false,
            };
    }

    /// To the first eligible in order, up for the delay without interruption.
    fn return_if_due(&mut self, active: usize, first_up: Option<usize>) {
        let Failback::Auto { delay } = self.pool.failback else { return };
        let Some(first) = first_up.filter(|_| self.wish == Wish::Automatic) else { return };
        let comes_before = self.order().into_iter().find(|b| [first, active].contains(b)) == Some(first);
        if comes_before && self.now - self.health[first].1 >= delay {
            self.move_to(first);
        }
    }
}
