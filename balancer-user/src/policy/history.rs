//! What one life of the controller leaves to the next, as plain values: who is active, what the operator wants, how far a
//! change is, who is down for how long.
//!
//! Times are what is left or has passed, never moments: those mean nothing in another life. Deliberately not here: names,
//! files, and the kernel's maps, of which the driver makes one.

use std::time::Duration;

use super::Moment;
use super::decision::{ActiveReason, Outbox};
use super::event::Event;
use super::health::Past;
use super::pool::Pool;
use super::settings::{BackendIndex, HookWhen, ServiceIndex};
use super::transition::{CUT_LIMIT, Next, Phase, Stop, Transition};
use super::view::{Admin, Wish};

/// What an earlier life left behind. The default is a first start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By pool, in the settings' order; those missing have none.
    pub pools: Vec<PoolHistory>,
    /// The last transition's id; numbers go on from here.
    pub last_transition: u64,
}

/// What an earlier life left behind of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolHistory {
    /// Where new flows go, or went before the change that is under way. Kept, unless it is disabled now.
    pub active: Option<BackendIndex>,
    /// For how long.
    pub active_for: Duration,
    /// What the operator asked for.
    pub wish: Wish,
    /// By backend, in the settings' order; those missing have none.
    pub backends: Vec<BackendHistory>,
    /// The change that was under way.
    pub transition: Option<TransitionHistory>,
    /// There was one, but who has the role is not known any more: a pool with `before` hooks waits for the operator.
    pub doubtful: bool,
}

/// What an earlier life left behind of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHistory {
    /// What the operator wants with it.
    pub admin: Admin,
    /// Its flows are cut after this.
    pub drain_left: Option<Duration>,
    /// Services whose time down, or its damping, isn't over.
    pub services: Vec<(ServiceIndex, Past)>,
}

/// A change of the active backend that was under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionHistory {
    /// Its id, which it keeps.
    pub id: u64,
    /// The active backend before.
    pub from: Option<BackendIndex>,
    /// The active backend to be.
    pub to: BackendIndex,
    /// Why.
    pub reason: ActiveReason,
    /// What was seen, in words.
    pub evidence: String,
    /// When it began, as time passed.
    pub age: Duration,
    /// The target was to be taken whatever its health.
    pub forced: bool,
    /// The target is the active one; what is left are hooks behind the switch.
    pub switched: bool,
    /// How far it was.
    pub reached: Reached,
}

/// How far a change was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The flows of the backends before were being cut.
    Cutting,
    /// That was next.
    Next(Next),
    /// This hook was started, and how it ended isn't recorded.
    Running(usize),
    /// It stood still, and why.
    Held(Stop, String),
}

impl Reached {
    /// Steps may have been taken.
    const fn is_behind_a_step(&self) -> bool {
        !matches!(self, Self::Cutting | Self::Held(Stop::Uncut, _))
    }
}

impl Pool {
    /// Takes over what is still allowed of what an earlier life left behind.
    pub(super) fn restore(&mut self, past: PoolHistory, now: Moment, out: &mut Outbox) {
        for (backend, past) in self.backends.iter_mut().zip(&past.backends) {
            backend.restore(past, now);
        }
        self.cut_the_withdrawn(out);
        let (change, orphaned) = match past.transition {
            Some(change) if self.order.contains(&change.to) => (Some(change), false),
            // Its target is gone, and steps may have given the role away.
            Some(change) => (None, !change.switched && change.reached.is_behind_a_step()),
            None => (None, false),
        };
        let switched = change.as_ref().filter(|change| change.switched).map(|change| change.to);
        let active = past.active.filter(|b| self.order.contains(b)).or(switched);
        let gone = past.active.is_some() && active.is_none();
        self.doubtful =
            self.has_hooks(HookWhen::Before) && change.is_none() && (past.doubtful || orphaned || gone);
        if active.is_none() && change.is_none() && !self.doubtful {
            return;
        }
        self.decided = true;
        self.active = active;
        self.since = now.before(past.active_for);
        self.wish = past.wish;
        self.reason = ActiveReason::Restored;
        if self.doubtful {
            let evidence = if orphaned {
                "the backend to be is gone from the configuration, after steps had been taken"
            } else if gone {
                "the active backend is gone from the configuration, or disabled there"
            } else {
                "who was active before is not known"
            };
            let evidence = evidence.to_owned();
            out.tell(Event::Held { id: None, pool: self.index, to: None, evidence });
        }
        if let Some(active) = active.filter(|active| self.backends[active.0].is_asleep()) {
            self.wake(active, false, now);
        }
        if let Some(change) = change {
            self.restore_transition(change, now, out);
        }
        self.publish(None, out);
    }

    /// Whoever has no flows any more by the operator's will: the earlier life may have ended before it had ended them.
    fn cut_the_withdrawn(&self, out: &mut Outbox) {
        for (b, backend) in self.backends() {
            let has_time = backend.admin() == Admin::Drain && backend.drained_at().is_some();
            if matches!(backend.admin(), Admin::Drain | Admin::Maint) && !has_time {
                self.cut(b, out);
            }
        }
    }

    fn restore_transition(&mut self, past: TransitionHistory, now: Moment, out: &mut Outbox) {
        let hooks = self.settings.hooks.len();
        let unknown = "the daemon ended while it ran, so its end is not known, and it may still run";
        let TransitionHistory { id, from, to, reason, evidence, age, forced, switched, reached } = past;
        let from = from.filter(|from| from.0 < self.backends.len());
        let mut why = None;
        let phase = match reached {
            Reached::Cutting => Phase::Cutting(now + CUT_LIMIT),
            // What the configuration doesn't have any more can't be run: the operator says what becomes of it.
            Reached::Next(Next::Hook(step)) if step < hooks => Phase::Due(step),
            Reached::Next(Next::Hook(step)) => {
                why = Some("the configuration has no such hook any more".to_owned());
                Phase::Held(Stop::Failed(step))
            }
            Reached::Next(Next::Start) => {
                self.wake(to, true, now);
                Phase::Starting(now + self.settings.start_timeout)
            }
            Reached::Next(Next::Switch) => Phase::Held(Stop::Lost(Next::Switch)),
            Reached::Running(step) => {
                why = Some(unknown.to_owned());
                Phase::Held(Stop::Failed(step))
            }
            Reached::Held(Stop::Unrecorded, _) if !self.has_hooks(HookWhen::After) => Phase::Over,
            Reached::Held(stop, evidence) => {
                why = Some(evidence);
                Phase::Held(stop)
            }
        };
        let mut transition = Transition {
            id,
            from,
            to,
            reason,
            evidence,
            started: now.before(age),
            forced,
            reset: false,
            cold: self.backends[to.0].settings().cold,
            switched,
            phase,
            why,
        };
        if !switched && self.active == Some(to) {
            transition.was_switched(&self.settings.hooks);
        }
        if transition.is_held() {
            let evidence = transition.why.clone().unwrap_or_default();
            out.tell(Event::Held { id: Some(id), pool: self.index, to: Some(to), evidence });
        }
        if matches!(transition.phase, Phase::Cutting(_)) {
            self.cut_before(&transition, out);
        }
        self.transition = Some(transition).filter(|transition| transition.phase != Phase::Over);
    }

    /// What a later life has to know.
    pub(super) fn history(&self, now: Moment) -> PoolHistory {
        PoolHistory {
            active: self.active,
            active_for: now - self.since,
            wish: self.wish,
            backends: self.backends.iter().map(|backend| backend.history(now)).collect(),
            transition: self.transition.as_ref().and_then(|transition| transition.history(now)),
            doubtful: self.doubtful,
        }
    }
}

impl Transition {
    fn history(&self, now: Moment) -> Option<TransitionHistory> {
        let reached = match self.phase {
            Phase::Cutting(_) => Reached::Cutting,
            Phase::Due(step) => Reached::Next(Next::Hook(step)),
            Phase::Running(step) => Reached::Running(step),
            Phase::Starting(_) => Reached::Next(Next::Start),
            Phase::Held(stop) => Reached::Held(stop, self.why.clone().unwrap_or_default()),
            Phase::Over => return None,
        };
        Some(TransitionHistory {
            id: self.id,
            from: self.from,
            to: self.to,
            reason: self.reason,
            evidence: self.evidence.clone(),
            age: now - self.started,
            forced: self.forced,
            switched: self.switched,
            reached,
        })
    }
}
