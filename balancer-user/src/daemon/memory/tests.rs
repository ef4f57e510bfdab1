//! What the file says against what the maps say.

use super::*;
use crate::dataplane::slots::Slot;

const A: BackendIndex = BackendIndex(0);
const B: BackendIndex = BackendIndex(1);

const UP_TO_7: Written = Written { last_transition: 7, is_lost: false };

/// Backends in the slots 1 and 2.
fn slots() -> PoolSlots {
    let slot = |index| Slot { index, fresh: false };
    PoolSlots { pool: slot(0), services: vec![slot(1)], backends: vec![slot(1), slot(2)] }
}

/// The change 7 from A to B ran a hook when the file was written.
fn running() -> PoolHistory {
    let transition = TransitionHistory {
        id: 7,
        from: Some(A),
        to: B,
        reason: ActiveReason::BackendDown,
        evidence: String::new(),
        age: Duration::ZERO,
        forced: false,
        switched: false,
        reached: policy::Reached::Running(0),
    };
    PoolHistory { active: Some(A), transition: Some(transition), ..PoolHistory::default() }
}

/// Who is active, the change that goes on, and whether anybody knows.
fn merged(word: ActiveWord) -> (Option<BackendIndex>, Option<u64>, bool) {
    let merged = with_maps(running(), word, &slots(), UP_TO_7);
    (merged.active, merged.transition.map(|change| change.id), merged.doubtful)
}

#[test]
fn a_change_under_way_goes_on_where_the_maps_hold_for_it_or_have_made_it() {
    assert_eq!(merged(ActiveWord::hold(0, 7)), (Some(A), Some(7), false));
    assert_eq!(merged(ActiveWord::new(2, 0, 7)), (Some(B), Some(7), false));
    assert_eq!(merged(ActiveWord::default()), (Some(A), Some(7), false), "after a reboot");
}

#[test]
fn a_change_that_was_given_up_never_comes_back() {
    assert_eq!(merged(ActiveWord::new(1, 0, 7)), (Some(A), None, false));
    assert_eq!(merged(ActiveWord::new(2, 0, 8)), (Some(B), Some(8), false), "a later one was made");
}

#[test]
fn a_file_that_is_behind_the_maps_leaves_it_to_the_operator() {
    assert_eq!(merged(ActiveWord::hold(0, 8)), (Some(A), None, true));
    let unknown = with_maps(PoolHistory::default(), ActiveWord::hold(0, 8), &slots(), UP_TO_7);
    assert!(unknown.doubtful, "nothing tells what is held for");
    let elsewhere = with_maps(PoolHistory::default(), ActiveWord::new(9, 0, 8), &slots(), UP_TO_7);
    assert!(elsewhere.doubtful, "who has the role is not in the configuration");
}

/// [42] The daemon was killed between the flip and the file.
#[test]
fn of_a_change_that_only_the_maps_know_the_hooks_behind_are_the_operators() {
    let on_a = PoolHistory { active: Some(A), ..PoolHistory::default() };
    let change = |past: &PoolHistory, word| with_maps(past.clone(), word, &slots(), UP_TO_7).transition;
    let found = change(&on_a, ActiveWord::new(2, 0, 8)).unwrap();
    assert_eq!((found.id, found.from, found.to, found.switched), (8, Some(A), B, true));
    assert!(matches!(found.reached, policy::Reached::Held(policy::Stop::Unrecorded, _)), "{found:?}");
    assert_eq!(change(&on_a, ActiveWord::new(2, 0, 7)), None, "the file knows of it, and that it is over");
    assert_eq!(change(&PoolHistory::default(), ActiveWord::new(2, 0, 8)), None, "the first decision");
    let twice = change(&on_a, ActiveWord::new(1, 0, 9)).unwrap();
    assert_eq!((twice.from, twice.to), (None, A), "there and back");
}
