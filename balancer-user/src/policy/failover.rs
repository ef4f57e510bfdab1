//! Which backend of one pool is active.
//!
//! Looked at anew after each change of health, each command and each deadline; the answer depends on nothing else.
//! Deliberately not here: the steps of a change (`transition`), what the operator may ask for (`operator`), probes and
//! their timing, and anything that carries a decision out.

use super::Moment;
use super::backend::Backend;
use super::decision::{ActiveReason, Cut, Decision, Outbox, Route};
use super::event::Event;
use super::health::Health;
use super::settings::{
    BackendIndex, Failback, Failover, OnBackendDown, PoolIndex, PoolSettings, WhenAllDown,
};
use super::switching::Move;
use super::transition::{Phase, Transition};
use super::view::{Admin, PoolState, PoolView, TransitionView, Wish};

/// Where new flows should go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Take(BackendIndex),
    /// A first probe in flight will tell soon.
    Wait,
    Nobody,
}

/// How the active backend is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It isn't lost, or the operator forced it.
    Fine,
    /// It is lost, and the operator is asked where to go.
    Asking,
    /// It is lost, and nobody is eligible.
    AllDown,
}

/// One pool.
///
/// ```text
///                first decision
///   Starting ----------------------> Fine    active lost: to the first eligible, or the operator is asked (Asking)
///       |                             ^   |  auto: back to the first one up
///       |    active is up: it stays   |   |
///       |    another is eligible:     |   |  active lost, nobody eligible:
///       |    to that one              |   v  it stays, alarm
///       '--------------------------> AllDown
///         nobody eligible:
///         the first in order, alarm
/// ```
///
/// *Lost* means down or in probation, or taken out of use. An active backend that is unknown is not lost: a restored one
/// is kept until a signal says otherwise, and one with a few failures has not reached its `max_fails`.
///
/// While a change holds (see [`Transition`]) nothing of this is looked at: its target is never exchanged for another.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) index: PoolIndex,
    pub(super) settings: PoolSettings,
    pub(super) backends: Vec<Backend>,
    /// Role order: without `backup` first, each group in list order. The disabled are left out.
    pub(super) order: Vec<BackendIndex>,
    pub(super) decided: bool,
    pub(super) condition: Condition,
    pub(super) active: Option<BackendIndex>,
    pub(super) since: Moment,
    pub(super) reason: ActiveReason,
    pub(super) wish: Wish,
    pub(super) transition: Option<Transition>,
    /// A hook that was started and hasn't ended: of which change, and which. Hooks of one pool never overlap.
    pub(super) running: Option<(u64, usize)>,
    /// Nobody knows who was active, and there are steps that must not be left out.
    pub(super) doubtful: bool,
    /// What the last decision said.
    pub(super) routed: Option<Route>,
    /// Backends were woken or put to sleep: their deadlines are others.
    stirred: bool,
}

impl Pool {
    pub(super) fn new(index: PoolIndex, settings: PoolSettings, backends: Vec<Backend>, now: Moment) -> Self {
        let mut order: Vec<_> =
            (0..backends.len()).map(BackendIndex).filter(|b| !backends[b.0].settings().disabled).collect();
        order.sort_by_key(|b| backends[b.0].settings().backup);
        Self {
            index,
            settings,
            backends,
            order,
            decided: false,
            condition: Condition::Fine,
            active: None,
            since: now,
            reason: ActiveReason::Initial,
            wish: Wish::Automatic,
            transition: None,
            running: None,
            doubtful: false,
            routed: None,
            stirred: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = (BackendIndex, &Backend)> {
        self.backends.iter().enumerate().map(|(n, backend)| (BackendIndex(n), backend))
    }

    pub(super) fn backend(&mut self, backend: BackendIndex) -> Option<&mut Backend> {
        self.backends.get_mut(backend.0)
    }

    pub(super) const fn is_decided(&self) -> bool {
        self.decided
    }

    /// Whether backends were woken or put to sleep since this was asked.
    pub(super) const fn take_stirred(&mut self) -> bool {
        std::mem::replace(&mut self.stirred, false)
    }

    /// A cold backend is probed from now on.
    pub(super) fn wake(&mut self, b: BackendIndex, starting: bool, now: Moment) {
        self.backends[b.0].wake(starting, now);
        self.stirred = true;
    }

    /// A backend that is a standby now isn't probed any more if it is a cold one.
    pub(super) fn let_sleep(&mut self, b: BackendIndex, now: Moment, out: &mut Outbox) {
        self.backends[b.0].let_sleep();
        self.stirred = true;
        self.tell_health(b, now, out);
    }

    /// New flows are kept: a change hasn't come to its switch, or nobody knows who was active.
    pub(super) fn is_holding(&self) -> bool {
        self.doubtful || self.transition.as_ref().is_some_and(Transition::is_holding)
    }

    /// One of a backend's services, or time, said something.
    pub(super) fn refresh(&mut self, b: BackendIndex, now: Moment, out: &mut Outbox) {
        let fell = self.tell_health(b, now, out) == Some(Health::Down);
        self.reconsider(now, out);
        // What it still has from before the pool moved away.
        let left = self.decided && !self.is_holding() && self.active != Some(b);
        if fell && left && self.settings.on_backend_down == OnBackendDown::Reset {
            self.cut(b, out);
        }
    }

    /// Looks at a backend's services anew, and tells its health if that is another one.
    pub(super) fn tell_health(&mut self, b: BackendIndex, now: Moment, out: &mut Outbox) -> Option<Health> {
        let backend = &mut self.backends[b.0];
        let from = backend.refresh(now)?;
        let (to, reason) = (backend.health(), backend.evidence(now));
        out.tell(Event::Health { pool: self.index, backend: b, from, to, reason });
        Some(to)
    }

    /// What is left of a backend's flows is ended; nothing waits for it.
    pub(super) fn cut(&self, backend: BackendIndex, out: &mut Outbox) {
        out.cut(Cut { pool: self.index, backend, transition: None });
    }

    /// Makes the decision that the present asks for, if it is another one.
    pub(super) fn reconsider(&mut self, now: Moment, out: &mut Outbox) {
        if !self.decided {
            self.decide_first(now, out);
        } else if self.is_holding() {
            self.go_on(now, out);
        } else {
            match self.active {
                Some(active) if self.may_stay(active) => self.keep(active, now, out),
                Some(active) if self.wish == Wish::Forced && self.backends[active.0].is_ready() => {
                    if self.choose() == Choice::Nobody { self.alarm(now, out) } else { self.serve(out) }
                }
                Some(active) => self.replace(active, now, out),
                None => self.appoint(now, out),
            }
        }
        self.end_drains(now, out);
        self.publish(None, out);
    }

    /// When [`Self::reconsider`] is wanted though nothing happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let failback = self.failback_due().map(|(_, due)| due);
        let step = self.transition.as_ref().and_then(Transition::deadline);
        let drains = self.backends.iter().filter_map(Backend::drained_at);
        failback.into_iter().chain(step).chain(drains).min()
    }

    /// When the pool returns by itself, and where to.
    ///
    /// Only ever to the first backend in order that is up, and not before it has been up for the delay. A flapping backend
    /// can't take the pool with it more than once per its `fail_timeout` (failure class 37): to be returned to it must
    /// have been left, and what is left is down for that long, or the operator's doing and not returned to. Never to a
    /// cold standby: nobody knows whether it would come up.
    fn failback_due(&self) -> Option<(BackendIndex, Moment)> {
        let Failback::Auto { delay } = self.settings.failback else { return None };
        let settled = self.decided && self.condition == Condition::Fine && self.transition.is_none();
        if !settled || self.doubtful || self.wish != Wish::Automatic {
            return None;
        }
        let is_up = |b: &&BackendIndex| self.backends[b.0].is_up();
        let first = self.order.iter().take_while(|b| Some(**b) != self.active).find(is_up)?;
        Some((*first, self.backends[first.0].since() + delay))
    }

    pub(super) fn view(&self, now: Moment) -> PoolView {
        let transition = self.transition.as_ref().map(|transition| TransitionView {
            id: transition.id,
            from: transition.from,
            to: transition.to,
            reason: transition.reason,
            step: transition.step(),
            started: transition.started,
            held: transition.why.clone().filter(|_| transition.is_held()),
        });
        PoolView {
            state: self.state(),
            active: self.active.filter(|_| self.routed != Some(Route::Reject)),
            since: self.since,
            reason: self.reason,
            wish: self.wish,
            backends: self.backends.iter().map(|backend| backend.view(now)).collect(),
            transition,
        }
    }

    fn state(&self) -> PoolState {
        let transition = self.transition.as_ref();
        match self.condition {
            _ if !self.decided => PoolState::Starting,
            _ if self.is_holding() => {
                let is_under_way = transition.is_some_and(|transition| !transition.is_held());
                if is_under_way { PoolState::Switching } else { PoolState::Held }
            }
            Condition::AllDown => PoolState::AllDown,
            Condition::Asking => PoolState::Waiting,
            // A hook behind the switch failed: traffic goes on, and the hooks behind it wait.
            Condition::Fine if transition.is_some_and(Transition::is_held) => PoolState::Held,
            Condition::Fine => PoolState::Serving,
        }
    }

    /// What becomes of new flows now.
    fn route(&self) -> Option<Route> {
        if !self.decided {
            return None;
        }
        if self.is_holding() {
            return Some(Route::Hold);
        }
        let Some(active) = self.active else { return Some(Route::Nobody) };
        let rejects = self.condition == Condition::AllDown
            && self.settings.when_all_down == WhenAllDown::Reject
            && self.wish != Wish::Forced
            // A pool that asks where to go goes on with what it did before it knew of somewhere.
            || self.condition == Condition::Asking && self.routed == Some(Route::Reject)
            || !self.backends[active.0].is_ready();
        Some(if rejects { Route::Reject } else { Route::To(active) })
    }

    /// Tells the driver what becomes of new flows, if that is something else now.
    pub(super) fn publish(&mut self, transition: Option<u64>, out: &mut Outbox) {
        let route = self.route();
        if let Some(route) = route.filter(|_| route != self.routed) {
            out.decide(Decision { pool: self.index, route, transition });
            self.routed = Some(route);
        }
    }

    pub(super) fn may_stay(&self, b: BackendIndex) -> bool {
        self.backends[b.0].is_ready() && self.backends[b.0].health().may_stay()
    }

    fn counts_as_up(&self, b: BackendIndex) -> bool {
        self.backends[b.0].counts_as_up()
    }

    /// Up; when none is up, unknown.
    pub(super) fn is_eligible(&self, b: BackendIndex) -> bool {
        let backend = &self.backends[b.0];
        let none_up = || !self.order.iter().any(|b| self.counts_as_up(*b));
        backend.counts_as_up() || (backend.is_ready() && backend.health() == Health::Unknown && none_up())
    }

    /// The first eligible backend in order. The unknown are taken only when no first probe can still find one up.
    pub(super) fn choose(&self) -> Choice {
        if let Some(up) = self.order.iter().find(|b| self.counts_as_up(**b)) {
            return Choice::Take(*up);
        }
        if self.order.iter().any(|b| self.backends[b.0].is_awaited()) {
            return Choice::Wait;
        }
        self.order.iter().find(|b| self.is_eligible(**b)).map_or(Choice::Nobody, |b| Choice::Take(*b))
    }

    /// The first decision waits for the backends that come before the first one up, so that a start doesn't flip through
    /// the backup because it answered faster.
    fn decide_first(&mut self, now: Moment, out: &mut Outbox) {
        let settled = |b: &&BackendIndex| self.backends[b.0].is_awaited() || self.counts_as_up(**b);
        if self.order.iter().find(settled).is_some_and(|b| !self.counts_as_up(*b)) {
            return;
        }
        self.appoint(now, out);
    }

    /// Nobody is active. With nobody eligible it is the first that may be used at all, and all is down.
    fn appoint(&mut self, now: Moment, out: &mut Outbox) {
        match self.choose() {
            Choice::Wait => {}
            Choice::Take(first) => {
                self.serve(out);
                let evidence = format!("first in order that is {}", self.backends[first.0].health().token());
                self.take_first(first, evidence, now, out);
            }
            Choice::Nobody => {
                let ready = self.order.iter().copied().find(|b| self.backends[b.0].is_ready());
                match ready {
                    Some(first) => {
                        let evidence = "no backend is up; first in order".to_owned();
                        self.take_first(first, evidence, now, out);
                    }
                    None => self.decided = true,
                }
                self.alarm(now, out);
            }
        }
    }

    /// Without hooks: there is nobody to take the role from.
    fn take_first(&mut self, first: BackendIndex, evidence: String, now: Moment, out: &mut Outbox) {
        self.decided = true;
        let id = out.next_transition();
        let transition = Transition {
            id,
            from: None,
            to: first,
            reason: ActiveReason::Initial,
            evidence,
            started: now,
            forced: true,
            reset: false,
            cold: false,
            switched: true,
            phase: Phase::Over,
            why: None,
        };
        self.switch(&transition, now, out);
    }

    /// The active backend isn't lost.
    fn keep(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        if self.wish == Wish::Forced && self.backends[active.0].is_up() {
            self.wish = Wish::Stay;
        }
        self.serve(out);
        if let Some((to, due)) = self.failback_due()
            && due <= now
        {
            let up_for = now - self.backends[to.0].since();
            let evidence = format!("first in order, up for {up_for:?}");
            let reason = ActiveReason::Failback;
            self.move_to(Move { to, reason, evidence, forced: false, reset: false }, now, out);
        }
    }

    /// The active backend is lost.
    fn replace(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        self.wish = Wish::Automatic;
        match self.choose() {
            Choice::Wait => {}
            Choice::Nobody => self.alarm(now, out),
            Choice::Take(to) => {
                let (reason, evidence) = self.why_lost(active, now);
                if self.settings.failover == Failover::Manual && reason == ActiveReason::BackendDown {
                    self.ask(active, to, evidence, out);
                    return;
                }
                self.serve(out);
                self.move_to(Move { to, reason, evidence, forced: false, reset: false }, now, out);
            }
        }
    }

    pub(super) fn why_lost(&self, b: BackendIndex, now: Moment) -> (ActiveReason, String) {
        match self.backends[b.0].admin() {
            Admin::Drain => (ActiveReason::Drain, "drained by the operator".to_owned()),
            Admin::Maint => (ActiveReason::Maint, "taken into maintenance by the operator".to_owned()),
            Admin::Ready | Admin::Disabled => {
                (ActiveReason::BackendDown, self.backends[b.0].evidence(now).unwrap_or_default())
            }
        }
    }

    fn end_drains(&mut self, now: Moment, out: &mut Outbox) {
        for (b, backend) in self.backends.iter_mut().enumerate() {
            if backend.drained_at().is_some_and(|at| at <= now) {
                backend.set_admin(Admin::Drain, None);
                out.tell(Event::Drained { pool: self.index, backend: BackendIndex(b) });
                out.cut(Cut { pool: self.index, backend: BackendIndex(b), transition: None });
            }
        }
    }

    fn serve(&mut self, out: &mut Outbox) {
        match self.condition {
            Condition::Fine => {}
            Condition::Asking => out.tell(Event::WaitingOver { pool: self.index }),
            Condition::AllDown => out.tell(Event::AllDownOver { pool: self.index }),
        }
        self.condition = Condition::Fine;
    }

    fn ask(&mut self, active: BackendIndex, to: BackendIndex, evidence: String, out: &mut Outbox) {
        if self.condition != Condition::Asking {
            out.tell(Event::Waiting { pool: self.index, active, to, evidence });
        }
        self.condition = Condition::Asking;
    }

    fn alarm(&mut self, now: Moment, out: &mut Outbox) {
        if self.condition != Condition::AllDown {
            let evidence = self.active.and_then(|active| self.backends[active.0].evidence(now));
            out.tell(Event::AllDown {
                pool: self.index,
                active: self.active,
                evidence: evidence.unwrap_or_default(),
            });
        }
        self.condition = Condition::AllDown;
    }
}
