//! One change of the active backend on its way: the cut, the `before` hooks, a `cold` target's start, the switch itself,
//! the `after` hooks.
//!
//! It knows steps by their numbers and nothing else: who is told what, and what a step is, is its pool's business.
//! Deliberately not here: which backend to go to (`failover`), and running a hook.

use std::time::Duration;

use super::Moment;
use super::decision::ActiveReason;
use super::settings::{BackendIndex, HookSettings, HookWhen, OnError};

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
    /// This hook failed, or nobody knows how it ended.
    Failed(usize),
    /// The target went down; that would have been next.
    Lost(Next),
    /// The cold target didn't come up in time.
    Late,
}

/// How far it is.
///
/// ```text
///   Cutting --cut--> Due(0) --started--> Running(0) --good--> Due(1) ... --> [Starting] --up--> SWITCH
///                      ^                    |                                   |                 |
///                      | retry              | failed, on_error = "hold"         | start_timeout   v
///                      '------ Held <-------'<----------------------------------'        after hooks: Due, Running
///                               | skip                                                            |
///                               '--> what comes behind it                                         v
///                                                                                                Over
/// ```
///
/// Wherever it would go on towards the switch and the target is known to fail, it is *Held* instead: never another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The flows of the backend before are being cut.
    Cutting,
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
    /// No flow of the backend before is left.
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
            Phase::Cutting | Phase::Starting(_) | Phase::Held(_) | Phase::Over => None,
        }
    }

    /// When it wants to be told that time went on.
    pub(super) const fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Starting(until) => Some(until),
            Phase::Cutting | Phase::Due(_) | Phase::Running(_) | Phase::Held(_) | Phase::Over => None,
        }
    }

    /// Begins: with the cut, if there is something to cut; with the switch, if nothing comes before it.
    pub(super) fn begin(&mut self, around: Surroundings<'_>, now: Moment) {
        let first = self.behind(None, around.hooks);
        match (first, self.from) {
            (Next::Hook(_) | Next::Start, Some(_)) => self.phase = Phase::Cutting,
            (Next::Hook(_) | Next::Start, None) | (Next::Switch, _) => self.go(first, around, now),
        }
    }

    /// What doesn't fit the phase changes nothing.
    pub(super) fn handle(&mut self, input: Input, around: Surroundings<'_>, now: Moment) {
        match (self.phase, input) {
            (Phase::Cutting, Input::Cut) => self.go(self.behind(None, around.hooks), around, now),
            (Phase::Cutting, _) => {}
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
            (Phase::Held(_), _) => {}
            (Phase::Over, _) => {}
        }
    }

    /// The switch turns out to have been made: what is left are the hooks behind it.
    pub(super) fn was_switched(&mut self, hooks: &[HookSettings]) {
        self.switched = true;
        self.follow(None, hooks);
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
mod tests {
    use super::*;

    const UNTIL: Moment = Moment::ZERO;
    const LATER: Duration = Duration::from_secs(60);

    fn hook(when: HookWhen, on_error: OnError) -> HookSettings {
        HookSettings { name: String::new(), when, on_error }
    }

    /// Two before, the second of which may fail; two after.
    fn hooks() -> Vec<HookSettings> {
        vec![
            hook(HookWhen::Before, OnError::Hold),
            hook(HookWhen::After, OnError::Continue),
            hook(HookWhen::Before, OnError::Continue),
            hook(HookWhen::After, OnError::Hold),
        ]
    }

    fn transition(phase: Phase, switched: bool) -> Transition {
        Transition {
            id: 1,
            from: Some(BackendIndex(0)),
            to: BackendIndex(1),
            reason: ActiveReason::BackendDown,
            evidence: String::new(),
            started: Moment::ZERO,
            forced: false,
            reset: false,
            cold: true,
            switched,
            phase,
            why: None,
        }
    }

    fn told(mut transition: Transition, input: Input, fine: bool) -> Transition {
        let hooks = hooks();
        let around = Surroundings { hooks: &hooks, start_timeout: LATER, target_is_fine: fine };
        transition.handle(input, around, UNTIL);
        transition
    }

    const ALL: [Input; 9] = [
        Input::Cut,
        Input::Started,
        Input::Ended { good: true },
        Input::Ended { good: false },
        Input::NotStarted,
        Input::Up,
        Input::Elapsed,
        Input::Retry,
        Input::Skip,
    ];

    /// Every phase and every input; what isn't listed changes nothing.
    #[test]
    fn every_phase_answers_every_input() {
        use Phase::{Cutting, Due, Held, Over, Running, Starting};
        let (good, bad) = (Input::Ended { good: true }, Input::Ended { good: false });
        let not = Input::NotStarted;
        let failed = |step| Held(Stop::Failed(step));
        let lost = |next| Held(Stop::Lost(next));
        let late = Held(Stop::Late);
        let until = Starting(UNTIL + LATER);
        type Row = (Phase, bool, Vec<(Input, Phase)>);
        let table: Vec<Row> = vec![
            (Cutting, false, vec![(Input::Cut, Due(0))]),
            (Due(0), false, vec![(Input::Started, Running(0))]),
            (Due(2), false, vec![(Input::Started, Running(2))]),
            (Running(0), false, vec![(good, Due(2)), (bad, failed(0)), (not, failed(0))]),
            (Running(2), false, vec![(good, until), (bad, until), (not, failed(2))]),
            (Starting(UNTIL), false, vec![(Input::Up, Due(1)), (Input::Elapsed, late)]),
            (until, false, vec![(Input::Up, Due(1))]),
            (failed(0), false, vec![(Input::Retry, Due(0)), (Input::Skip, Due(2))]),
            (failed(2), false, vec![(Input::Retry, Due(2)), (Input::Skip, until)]),
            (lost(Next::Hook(2)), false, vec![(Input::Retry, Due(2)), (Input::Skip, Due(2))]),
            (lost(Next::Start), false, vec![(Input::Retry, until), (Input::Skip, until)]),
            (lost(Next::Switch), false, vec![(Input::Retry, Due(1)), (Input::Skip, Due(1))]),
            (late, false, vec![(Input::Retry, until), (Input::Skip, Due(1))]),
            (Due(1), true, vec![(Input::Started, Running(1))]),
            (Running(1), true, vec![(good, Due(3)), (bad, Due(3)), (not, failed(1))]),
            (Due(3), true, vec![(Input::Started, Running(3))]),
            (Running(3), true, vec![(good, Over), (bad, failed(3)), (not, failed(3))]),
            (failed(1), true, vec![(Input::Retry, Due(1)), (Input::Skip, Due(3))]),
            (failed(3), true, vec![(Input::Retry, Due(3)), (Input::Skip, Over)]),
            (Over, true, vec![]),
        ];
        for (phase, switched, answers) in table {
            for input in ALL {
                let expected = answers.iter().find(|(told, _)| *told == input).map_or(phase, |(_, to)| *to);
                let after = told(transition(phase, switched), input, true);
                assert_eq!(after.phase, expected, "{phase:?} told {input:?}");
                let to_after_hooks = !switched && matches!(expected, Due(1) | Over);
                assert_eq!(after.switched, switched || to_after_hooks, "{phase:?} told {input:?}");
            }
        }
    }

    /// Nothing leads on towards the switch while the target is known to fail, but the operator's word.
    #[test]
    fn a_lost_target_holds_whatever_comes_next() {
        let phases = [
            (Phase::Cutting, Input::Cut, Next::Hook(0)),
            (Phase::Running(0), Input::Ended { good: true }, Next::Hook(2)),
            (Phase::Running(2), Input::Ended { good: true }, Next::Start),
            (Phase::Starting(UNTIL), Input::Up, Next::Switch),
            (Phase::Held(Stop::Failed(0)), Input::Retry, Next::Hook(0)),
            (Phase::Held(Stop::Failed(0)), Input::Skip, Next::Hook(2)),
            (Phase::Held(Stop::Lost(Next::Start)), Input::Retry, Next::Start),
        ];
        for (phase, input, next) in phases {
            let after = told(transition(phase, false), input, false);
            assert_eq!(after.phase, Phase::Held(Stop::Lost(next)), "{phase:?} told {input:?}");
            assert!(!after.switched);
        }
        let skipped = told(transition(Phase::Held(Stop::Lost(Next::Switch)), false), Input::Skip, false);
        assert!(skipped.switched && skipped.forced);
    }

    #[test]
    fn what_is_lost_after_the_switch_doesnt_stop_the_hooks_behind_it() {
        let after = told(transition(Phase::Running(1), true), Input::Ended { good: true }, false);
        assert_eq!(after.phase, Phase::Due(3));
    }

    #[test]
    fn it_begins_with_what_there_is_to_do() {
        let before = [hook(HookWhen::Before, OnError::Hold)];
        let after = [hook(HookWhen::After, OnError::Hold)];
        for (hooks, cold, from, phase, switched) in [
            (&before[..], false, true, Phase::Cutting, false),
            (&before[..], false, false, Phase::Due(0), false),
            (&after[..], false, true, Phase::Due(0), true),
            (&after[..], true, true, Phase::Cutting, false),
            (&[][..], true, false, Phase::Starting(UNTIL + LATER), false),
            (&[][..], false, true, Phase::Over, true),
        ] {
            let mut new = transition(Phase::Over, false);
            new.cold = cold;
            new.from = from.then_some(BackendIndex(0));
            new.begin(Surroundings { hooks, start_timeout: LATER, target_is_fine: true }, UNTIL);
            assert_eq!((new.phase, new.switched), (phase, switched), "{hooks:?} cold {cold} from {from}");
        }
    }
}
