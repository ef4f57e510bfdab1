//! A pool's change of its active backend, from the decision to the last hook behind it.
//!
//! The steps and their order are `transition`'s; here is what each of them means to the pool and to the driver.
//! Deliberately not here: why the pool changes (`failover`, `operator`).

use super::Moment;
use super::decision::{ActiveReason, Cut, HookRun, Outbox, Whose};
use super::event::Event;
use super::pool::Pool;
use super::settings::{BackendIndex, HookWhen, OnBackendDown};
use super::transition::{CUT_LIMIT, Input, Phase, Stop, Surroundings, Transition};
use super::view::{Admin, Wish};

/// A change of the active backend to make.
pub(super) struct Move {
    pub(super) to: BackendIndex,
    pub(super) reason: ActiveReason,
    pub(super) evidence: String,
    /// Whatever the target's health.
    pub(super) forced: bool,
    /// The flows of the one before are cut.
    pub(super) reset: bool,
}

/// What came of a [`Move`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Not,
    /// It is the active one.
    There {
        transition: u64,
    },
    /// Steps are taken first.
    UnderWay {
        transition: u64,
    },
}

impl Moved {
    /// Of the change.
    pub(super) const fn id(self) -> Option<u64> {
        match self {
            Self::Not => None,
            Self::There { transition } | Self::UnderWay { transition } => Some(transition),
        }
    }
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// Well.
    Good,
    /// It failed, and how.
    Bad(String),
    /// It was never started, and why.
    NotStarted(String),
}

impl Pool {
    /// The next hook to run now; from then on it counts as started.
    pub(super) fn next_hook(&mut self, now: Moment, out: &mut Outbox) -> Option<HookRun> {
        if self.running.is_some() {
            return None;
        }
        let transition = self.transition.as_ref()?;
        let Phase::Due(step) = transition.phase else { return None };
        let run = HookRun {
            pool: self.index,
            step,
            transition: transition.id,
            from: transition.from,
            to: transition.to,
            reason: transition.reason,
        };
        self.running = Some((run.transition, step));
        self.tell_transition(Input::Started, now, out);
        Some(run)
    }

    /// This hook was started and hasn't ended.
    pub(super) fn runs(&self, run: &HookRun) -> bool {
        self.running == Some((run.transition, run.step))
    }

    /// A hook ended.
    pub(super) fn hook_ended(&mut self, run: HookRun, end: HookEnd, now: Moment, out: &mut Outbox) {
        let (id, step) = (run.transition, run.step);
        if self.running != Some((id, step)) {
            return;
        }
        self.running = None;
        let (input, evidence) = match end {
            HookEnd::Good => (Input::Ended { good: true }, None),
            HookEnd::Bad(evidence) => (Input::Ended { good: false }, Some(evidence)),
            HookEnd::NotStarted(evidence) => (Input::NotStarted, Some(evidence)),
        };
        out.tell(Event::Hook { id, pool: self.index, step, failure: evidence.clone() });
        // Of a change that was given up for another it means nothing any more.
        if let Some(transition) = self.transition.as_mut().filter(|transition| transition.id == id) {
            transition.why = evidence;
            self.tell_transition(input, now, out);
        }
        self.reconsider(now, out);
    }

    /// No flow is left that there was when the cut was asked for: an older one says nothing to a change.
    pub(super) fn was_cut(&mut self, cut: Cut, now: Moment, out: &mut Outbox) {
        if self.transition.as_ref().is_some_and(|transition| cut.transition == Some(transition.id)) {
            self.tell_transition(Input::Cut, now, out);
        }
        self.reconsider(now, out);
    }

    /// Not all could be ended. Whether that is to be tried again: not for a change that waits for it no more.
    pub(super) fn cut_trouble(&mut self, cut: Cut, problem: &str) -> bool {
        let Some(id) = cut.transition else { return true };
        let waits = |change: &&mut Transition| change.id == id && matches!(change.phase, Phase::Cutting(_));
        self.transition.as_mut().filter(waits).map(|change| change.why = Some(problem.to_owned())).is_some()
    }

    /// Makes another backend the active one: at once, or as the end of the steps that come before.
    pub(super) fn move_to(&mut self, order: Move, now: Moment, out: &mut Outbox) -> Moved {
        if self.active == Some(order.to) {
            return Moved::Not;
        }
        self.abandon(now, out);
        let Move { to, reason, evidence, forced, reset } = order;
        let cold = self.backends[to.0].settings().cold;
        let (from, id) = (self.active, out.next_transition());
        let new = Transition {
            id,
            from,
            to,
            reason,
            evidence,
            started: now,
            forced,
            reset,
            cold,
            switched: false,
            phase: Phase::Over,
            why: None,
        };
        self.transition = Some(new);
        self.with_transition(now, out, |transition, around, now| transition.begin(around, now));
        let Some(begun) = self.transition.as_ref().filter(|transition| transition.is_holding()) else {
            return Moved::There { transition: id };
        };
        out.tell(Event::Switching {
            id,
            pool: self.index,
            from,
            to,
            reason,
            evidence: begun.evidence.clone(),
        });
        self.publish(Some(id), out);
        Moved::UnderWay { transition: id }
    }

    /// A change whose last steps aren't done yet makes room for another.
    pub(super) fn abandon(&mut self, now: Moment, out: &mut Outbox) {
        let Some(old) = self.transition.take() else { return };
        let evidence = match old.step().and_then(|step| self.settings.hooks.get(step)) {
            Some(hook) => format!("before the end of the hook {:?}", hook.name),
            None => String::new(),
        };
        out.tell(Event::Abandoned { id: old.id, pool: self.index, evidence });
        if old.cold && old.is_holding() {
            self.let_sleep(old.to, now, out);
        }
    }

    /// A change holds: time or its target's health may let it go on.
    pub(super) fn go_on(&mut self, now: Moment, out: &mut Outbox) {
        let Some(transition) = &self.transition else { return };
        match transition.phase {
            Phase::Starting(_) if self.backends[transition.to.0].is_up() => {
                self.tell_transition(Input::Up, now, out);
            }
            Phase::Starting(_) | Phase::Cutting(_) => self.tell_transition(Input::Elapsed, now, out),
            Phase::Due(_) | Phase::Running(_) | Phase::Held(_) | Phase::Over => {}
        }
    }

    /// Hands something to the change that is under way, and carries out what comes of it.
    pub(super) fn tell_transition(&mut self, input: Input, now: Moment, out: &mut Outbox) {
        self.with_transition(now, out, |transition, around, now| transition.handle(input, around, now));
    }

    fn with_transition(
        &mut self,
        now: Moment,
        out: &mut Outbox,
        change: impl FnOnce(&mut Transition, Surroundings<'_>, Moment),
    ) {
        let Some(mut transition) = self.transition.take() else { return };
        let (phase, switched) = (transition.phase, transition.switched);
        let around = Surroundings {
            hooks: &self.settings.hooks,
            start_timeout: self.settings.start_timeout,
            target_is_fine: self.may_stay(transition.to),
        };
        change(&mut transition, around, now);
        if transition.phase != phase {
            match transition.phase {
                Phase::Starting(_) => self.wake(transition.to, true, now),
                Phase::Held(stop) => self.hold(&mut transition, stop, now, out),
                Phase::Cutting(_) => self.cut_before(&transition, out),
                Phase::Due(_) | Phase::Running(_) | Phase::Over => {}
            }
        }
        if transition.switched && !switched {
            self.switch(&transition, now, out);
        }
        if transition.phase != Phase::Over {
            self.transition = Some(transition);
        }
    }

    /// Before a hook runs nobody may have flows any more that the hooks know nothing of, whoever that is. The target keeps
    /// its own: it has some only if the role was its all along.
    pub(super) fn cut_before(&self, transition: &Transition, out: &mut Outbox) {
        let whose = match transition.from {
            Some(from) if !self.has_hooks(HookWhen::Before) => Whose::Of(from),
            _ => Whose::AllBut(transition.to),
        };
        out.cut(Cut { pool: self.index, whose, transition: Some(transition.id) });
    }

    fn hold(&self, transition: &mut Transition, stop: Stop, now: Moment, out: &mut Outbox) {
        let to = &self.backends[transition.to.0];
        let evidence = match stop {
            Stop::Uncut => {
                let problem = transition.why.as_deref().unwrap_or("nothing is known of them yet");
                format!("flows of other backends could not be ended within {CUT_LIMIT:?}: {problem}")
            }
            Stop::Unrecorded => transition.why.clone().unwrap_or_default(),
            Stop::Failed(step) => {
                let name = self.settings.hooks.get(step).map_or("", |hook| &hook.name);
                format!("hook {name:?}: {}", transition.why.as_deref().unwrap_or("its end is not known"))
            }
            Stop::Lost(_) => {
                let evidence = to.evidence(now).unwrap_or_default();
                format!("the backend to be is {} ({evidence})", to.health().token())
            }
            Stop::Late => {
                let evidence = to.evidence(now).unwrap_or_else(|| "no good signal".to_owned());
                format!("the backend to be did not come up within start_timeout ({evidence})")
            }
        };
        transition.why = Some(evidence.clone());
        out.tell(Event::Held {
            id: Some(transition.id),
            pool: self.index,
            to: Some(transition.to),
            evidence,
        });
    }

    /// The target is the active backend from now on.
    pub(super) fn switch(&mut self, transition: &Transition, now: Moment, out: &mut Outbox) {
        let Transition { id, to, reason, ref evidence, .. } = *transition;
        let before = self.active.replace(to);
        out.tell(Event::Transition {
            id,
            pool: self.index,
            from: before,
            to,
            reason,
            evidence: evidence.clone(),
        });
        self.since = now;
        self.reason = reason;
        if transition.forced && !self.may_stay(to) {
            self.wish = Wish::Forced;
        }
        if self.backends[to.0].is_asleep() {
            self.wake(to, false, now);
        }
        self.publish(Some(id), out);
        let Some(before) = before else { return };
        let backend = &self.backends[before.0];
        let failed = !backend.health().may_stay() && self.settings.on_backend_down == OnBackendDown::Reset;
        if transition.reset || failed || backend.admin() == Admin::Maint {
            self.cut(before, out);
        }
        self.let_sleep(before, now, out);
    }
}
