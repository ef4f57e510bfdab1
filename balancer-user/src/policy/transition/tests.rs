//! Every phase with every input.

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
    let (uncut, cutting) = (Held(Stop::Uncut), Cutting(UNTIL + CUT_LIMIT));
    let until = Starting(UNTIL + LATER);
    type Row = (Phase, bool, Vec<(Input, Phase)>);
    let table: Vec<Row> = vec![
        (Cutting(UNTIL), false, vec![(Input::Cut, Due(0)), (Input::Elapsed, uncut)]),
        (cutting, false, vec![(Input::Cut, Due(0))]),
        (uncut, false, vec![(Input::Retry, cutting)]),
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
        (Held(Stop::Unrecorded), true, vec![(Input::Retry, Due(1)), (Input::Skip, Over)]),
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
        (Phase::Cutting(UNTIL), Input::Cut, Next::Hook(0)),
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
    let cutting = Phase::Cutting(UNTIL + CUT_LIMIT);
    let before = [hook(HookWhen::Before, OnError::Hold)];
    let after = [hook(HookWhen::After, OnError::Hold)];
    for (hooks, cold, from, phase, switched) in [
        (&before[..], false, true, cutting, false),
        (&before[..], false, false, cutting, false),
        (&after[..], false, true, Phase::Due(0), true),
        (&after[..], true, true, cutting, false),
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
