//! What the contract says about one pool, as naively as can be.
//!
//! Every signal is kept for ever and read anew each time; the active backend is chosen in the contract's words. Where
//! the policy agrees with it in every life, its windows, timers and wake-ups lost nothing. Deliberately not here: hooks,
//! cold standbys, restarts, a controller that stands still, flows.

use super::reading::{Said, read};
use crate::policy::*;

/// One pool, fed with what its policy is fed with.
pub(super) struct Model {
    pool: PoolSettings,
    /// Whether they were good, by backend and service.
    signals: Vec<Vec<Vec<(Moment, bool)>>>,
    /// By backend and probed service.
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
        self.signals[ticket.backend.0][ticket.service.0].push((now, good));
        self.look();
        self.decide();
    }

    /// Says whether it is accepted.
    pub(super) fn command(&mut self, ask: &Ask, now: Moment) -> bool {
        self.advance(now);
        let accepted = match ask {
            Ask::Failover { to: Some(to), force, .. } => self.fail_over_to(self.named(to), *force),
            Ask::Failover { to: None, force, .. } => {
                self.next_after_active(*force).is_some_and(|to| self.fail_over_to(to, *force))
            }
            Ask::Failback => self.fail_back(),
            Ask::Withdraw { backend, how: Withdrawal::Drain { .. }, force } => {
                self.withdraw(self.named(backend), Admin::Drain, *force)
            }
            Ask::Withdraw { backend, how: Withdrawal::Maint, force } => {
                self.withdraw(self.named(backend), Admin::Maint, *force)
            }
            Ask::PutBack { backend } => {
                let b = self.named(backend);
                let may = self.admin[b] != Admin::Disabled;
                if may {
                    self.admin[b] = Admin::Ready;
                }
                may
            }
            // Without hooks nothing is ever held.
            Ask::Resume { .. } => false,
        };
        if accepted {
            self.decide();
        }
        accepted
    }

    pub(super) fn agree(&mut self, view: &PoolView, now: Moment) {
        self.advance(now);
        let active = self.active.filter(|_| !self.refuses).map(BackendIndex);
        let mine = (self.state, active, self.wish);
        assert_eq!((view.state, view.active, view.wish), mine, "policy and model, at {now:?}: {view:?}");
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

    fn named(&self, name: &str) -> usize {
        self.pool.backends.iter().position(|backend| backend.name == name).unwrap()
    }

    /// Reads everything anew. A backend is as well as the worst of its services.
    fn look(&mut self) {
        let services = self.pool.services.iter().enumerate();
        let probed: Vec<_> = services.filter_map(|(s, service)| Some((s, service.probe?.rise))).collect();
        let of = |b: usize| {
            let probed = probed.iter().filter(|_| self.admin[b] != Admin::Disabled);
            probed
                .map(|(service, rise)| {
                    read(&self.signals[b][*service], &self.pool.backends[b], *rise, self.now)
                })
                .collect()
        };
        self.said = (0..self.pool.backends.len()).map(of).collect();
        for (said, health) in self.said.iter().zip(&mut self.health) {
            let worst = said.iter().map(|said| said.health).max().unwrap_or(Health::Unknown);
            if worst != health.0 {
                *health = (worst, self.now);
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
        let mut probed = self.pool.services.iter().zip(&self.signals[b]).filter(|(s, _)| s.probe.is_some());
        self.health[b].0 == Health::Unknown && probed.any(|(_, signals)| signals.is_empty())
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

    /// The next after the active one, wrapping; by force whatever its health.
    fn next_after_active(&self, force: bool) -> Option<usize> {
        let order = self.order();
        let start = order.iter().position(|b| Some(*b) == self.active).map_or(0, |at| at + 1);
        let others =
            || (0..order.len()).map(|n| order[(start + n) % order.len()]).filter(|b| Some(*b) != self.active);
        let next = others().find(|b| self.eligible().contains(b));
        next.or_else(|| others().find(|b| force && self.admin[*b] == Admin::Ready))
    }

    fn fail_over_to(&mut self, b: usize, force: bool) -> bool {
        let fails = self.is_failing(b);
        if self.admin[b] != Admin::Ready || (fails && !force && self.active != Some(b)) {
            return false;
        }
        if !fails || force {
            self.wish = if fails { Wish::Forced } else { Wish::Stay };
        }
        self.begin(b);
        true
    }

    fn fail_back(&mut self) -> bool {
        let first = self.eligible().first().copied();
        first.into_iter().for_each(|first| {
            self.wish = Wish::Automatic;
            self.begin(first);
        });
        first.is_some()
    }

    /// On the active backend a failover comes first.
    fn withdraw(&mut self, b: usize, admin: Admin, force: bool) -> bool {
        let next = if self.active == Some(b) { self.next_after_active(force) } else { None };
        let refused = self.active == Some(b) && next.is_none() && !force;
        if refused || self.admin[b] == Admin::Disabled {
            return false;
        }
        self.admin[b] = admin;
        if let Some(next) = next {
            self.wish = if self.is_failing(next) { Wish::Forced } else { Wish::Automatic };
            self.begin(next);
        }
        true
    }

    /// The operator's word needs no first signal.
    fn begin(&mut self, b: usize) {
        self.move_to(b);
        self.state = if self.state == PoolState::Starting { PoolState::Serving } else { self.state };
    }
}
