//! One pool: what it consists of, what is told of it, and what becomes of its new flows.
//!
//! Deliberately not here: which backend is active (`failover`), how that changes (`switching`), what the operator asks
//! for (`operator`).

use super::Moment;
use super::backend::Backend;
use super::decision::{ActiveReason, Cut, Decision, Outbox, Route, Whose};
use super::event::Event;
use super::failover::Choice;
use super::health::Health;
use super::settings::{BackendIndex, HookWhen, PoolIndex, PoolSettings, WhenAllDown};
use super::transition::Transition;
use super::view::{Admin, PoolState, PoolView, TransitionView, Wish};

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

    pub(super) fn has_hooks(&self, when: HookWhen) -> bool {
        self.settings.hooks.iter().any(|hook| hook.when == when)
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
        out.cut(Cut { pool: self.index, whose: Whose::Of(backend), transition: None });
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
            holder: self.active,
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
    pub(super) fn route(&self) -> Option<Route> {
        if !self.decided {
            return None;
        }
        if self.is_holding() {
            return Some(Route::Hold);
        }
        let Some(active) = self.active else { return Some(Route::Nobody) };
        // Its successor is about to be known: nobody need be refused for that.
        if self.backends[active.0].admin() == Admin::Disabled && self.choose() == Choice::Wait {
            return Some(Route::Hold);
        }
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
}
