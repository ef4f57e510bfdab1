//! One change of the active backend on its way: the cut, the `before` hooks, a `cold` target's start, the switch itself,
//! the `after` hooks.
//!
//! It knows steps by their numbers and nothing else: who is told what, and what a step is, is its pool's business.
//! Deliberately not here: which backend to go to (`failover`), and running a hook.

use std::time::Duration;

use super::Moment;
use super::decision::ActiveReason;
use super::settings::{BackendIndex, HookSettings, HookWhen, OnError};

/// How long a change waits for the end of old flows: some hundred times as long as that takes. What holds it up for longer
/// is not over by itself.
pub(super) const CUT_LIMIT: Duration = Duration::from_secs(10);

/// What is done next, once nothing is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// This hook is run.
    Hook(usize),
    /// The cold target has to come up.
    Start,
    /// The target becomes the active one.
    Switch,
}

/// Why a change stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Old flows did not end in time. There is no going on with them: they would be two backends' at once.
    Uncut,
    /// This hook failed, or nobody knows how it ended.
    Failed(usize),
    /// The target went down; that would have been next.
    Lost(Next),
    /// The cold target didn't come up in time.
    Late,
    /// The switch was made, and whether hooks behind it have run was not written down.
    Unrecorded,
}

/// How far it is.
///
/// ```text
///   Cutting --cut--> Due(0) --started--> Running(0) --good--> Due(1) ... --> [Starting] --up--> SWITCH
///      | ^             ^                    |                                   |                 |
///      | | retry       | retry              | failed, on_error = "hold"         | start_timeout   v
///      | '-----.       '------ Held <-------'<----------------------------------'        after hooks: Due, Running
///      '---> Held               | skip                                                            |
///   CUT_LIMIT                   '--> what comes behind it                                         v
///                                                                                                Over
/// ```
///
/// Wherever it would go on towards the switch and the target is known to fail, it is *Held* instead: never another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The flows of the backends before are being cut, and are to have ended before this moment.
    Cutting(Moment),
    /// This hook is to be started.
    Due(usize),
    /// This hook was started; its end isn't known.
    Running(usize),
    /// The cold target is to come up before this moment.
    Starting(Moment),
    /// Waits for the operator.
    Held(Stop),
    /// Everything is done.
    Over,
}

/// What a transition is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// No flow of the backends before is left.
    Cut,
    /// The hook that was due is being started.
    Started,
    /// The hook that ran ended, well or not.
    Ended { good: bool },
    /// It could not be started after all.
    NotStarted,
    /// The cold target is up.
    Up,
    /// Time went on.
    Elapsed,
    /// The operator: once more.
    Retry,
    /// The operator: go on without it.
    Skip,
}

/// One change of a pool's active backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) id: u64,
    pub(super) from: Option<BackendIndex>,
    pub(super) to: BackendIndex,
    pub(super) reason: ActiveReason,
    pub(super) evidence: String,
    pub(super) started: Moment,
    /// The target is taken whatever its health.
    pub(super) forced: bool,
    /// The flows of the backend before are to be cut.
    pub(super) reset: bool,
    /// The target doesn't run before it is started.
    pub(super) cold: bool,
    /// The target is the active one.
    pub(super) switched: bool,
    pub(super) phase: Phase,
    /// What stopped it, for people.
    pub(super) why: Option<String>,
}

/// What a transition has to know of its pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) hooks: &'a [HookSettings],
    pub(super) start_timeout: Duration,
    /// The target isn't known to fail.
    pub(super) target_is_fine: bool,
}

impl Transition {
    /// Nothing new may reach any backend: it hasn't come to the switch.
    pub(super) const fn is_holding(&self) -> bool {
        !self.switched
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held(_))
    }

    /// The hook that is due, runs or failed.
    pub(super) const fn step(&self) -> Option<usize> {
        match self.phase {
            Phase::Due(step) | Phase::Running(step) | Phase::Held(Stop::Failed(step)) => Some(step),
            Phase::Held(Stop::Lost(Next::Hook(step))) => Some(step),
            Phase::Cutting(_) | Phase::Starting(_) | Phase::Held(_) | Phase::Over => None,
        }
    }

    /// When it wants to be told that time went on.
    pub(super) const fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Cutting(until) | Phase::Starting(until) => Some(until),
            Phase::Due(_) | Phase::Running(_) | Phase::Held(_) | Phase::Over => None,
        }
    }

    /// Begins: with the cut, if there may be something to cut; with the switch, if nothing comes before it. Before hooks
    /// there always may be: flows of a backend that nobody remembers.
    pub(super) fn begin(&mut self, around: Surroundings<'_>, now: Moment) {
        let first = self.behind(None, around.hooks);
        match (first, self.from) {
            (Next::Hook(_), _) | (Next::Start, Some(_)) => self.cut(now),
            (Next::Start, None) | (Next::Switch, _) => self.go(first, around, now),
        }
    }

    /// What doesn't fit the phase changes nothing.
    pub(super) fn handle(&mut self, input: Input, around: Surroundings<'_>, now: Moment) {
        match (self.phase, input) {
            (Phase::Cutting(_), Input::Cut) => self.go(self.behind(None, around.hooks), around, now),
            (Phase::Cutting(until), Input::Elapsed) if until <= now => self.stop(Stop::Uncut),
            (Phase::Cutting(_), _) => {}
            (Phase::Due(step), Input::Started) => self.phase = Phase::Running(step),
            (Phase::Due(_), _) => {}
            (Phase::Running(step), Input::Ended { good }) => {
                let goes_on =
                    good || around.hooks.get(step).is_none_or(|hook| hook.on_error == OnError::Continue);
                if goes_on { self.leave(step, around, now) } else { self.stop(Stop::Failed(step)) }
            }
            (Phase::Running(step), Input::NotStarted) => self.stop(Stop::Failed(step)),
            (Phase::Running(_), _) => {}
            (Phase::Starting(_), Input::Up) => self.go(Next::Switch, around, now),
            (Phase::Starting(until), Input::Elapsed) if until <= now => self.stop(Stop::Late),
            (Phase::Starting(_), _) => {}
            (Phase::Held(Stop::Uncut), Input::Retry) => self.cut(now),
            (Phase::Held(Stop::Failed(step)), Input::Retry) => self.go(Next::Hook(step), around, now),
            (Phase::Held(Stop::Failed(step)), Input::Skip) => self.leave(step, around, now),
            (Phase::Held(Stop::Lost(next)), Input::Retry) => self.go(next, around, now),
            (Phase::Held(Stop::Lost(next)), Input::Skip) => {
                self.forced = true;
                self.go(next, around, now);
            }
            (Phase::Held(Stop::Late), Input::Retry) => self.go(Next::Start, around, now),
            (Phase::Held(Stop::Late), Input::Skip) => {
                self.forced = true;
                self.go(Next::Switch, around, now);
            }
            (Phase::Held(Stop::Unrecorded), Input::Retry) => self.follow(None, around.hooks),
            (Phase::Held(Stop::Unrecorded), Input::Skip) => self.phase = Phase::Over,
            (Phase::Held(_), _) => {}
            (Phase::Over, _) => {}
        }
    }

    /// The switch turns out to have been made: what is left are the hooks behind it.
    pub(super) fn was_switched(&mut self, hooks: &[HookSettings]) {
        self.switched = true;
        self.follow(None, hooks);
    }

    fn cut(&mut self, now: Moment) {
        self.why = None;
        self.phase = Phase::Cutting(now + CUT_LIMIT);
    }

    fn stop(&mut self, stop: Stop) {
        self.phase = Phase::Held(stop);
    }

    /// The hook is done with.
    fn leave(&mut self, step: usize, around: Surroundings<'_>, now: Moment) {
        if self.switched {
            self.follow(Some(step), around.hooks);
        } else {
            self.go(self.behind(Some(step), around.hooks), around, now);
        }
    }

    fn go(&mut self, next: Next, around: Surroundings<'_>, now: Moment) {
        self.why = None;
        if !self.switched && !self.forced && !around.target_is_fine {
            self.stop(Stop::Lost(next));
            return;
        }
        match next {
            Next::Hook(step) => self.phase = Phase::Due(step),
            Next::Start => self.phase = Phase::Starting(now + around.start_timeout),
            Next::Switch => {
                self.switched = true;
                self.follow(None, around.hooks);
            }
        }
    }

    /// What comes before the switch behind this hook.
    fn behind(&self, step: Option<usize>, hooks: &[HookSettings]) -> Next {
        match next_hook(hooks, HookWhen::Before, step) {
            Some(hook) => Next::Hook(hook),
            None if self.cold => Next::Start,
            None => Next::Switch,
        }
    }

    /// What comes after the switch behind this hook.
    fn follow(&mut self, step: Option<usize>, hooks: &[HookSettings]) {
        self.why = None;
        self.phase = next_hook(hooks, HookWhen::After, step).map_or(Phase::Over, Phase::Due);
    }
}

/// The next hook of that kind behind this one.
fn next_hook(hooks: &[HookSettings], when: HookWhen, behind: Option<usize>) -> Option<usize> {
    let from = behind.map_or(0, |step| step + 1);
    hooks.iter().enumerate().skip(from).find(|(_, hook)| hook.when == when).map(|(step, _)| step)
}

#[cfg(test)]
mod tests;
