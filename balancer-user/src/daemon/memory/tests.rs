//! What the file says against what the maps say.

use std::net::IpAddr;

use super::*;
use crate::daemon::example::{BASE, config};
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

/// What the file says of a pool: server1 is active, and there may be a change to server2 whose first step was taken. Both
/// with their addresses.
fn remembered(active_at: Option<IpAddr>, to_at: Option<Option<IpAddr>>) -> Pool {
    let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let transition = to_at.map(|to_at| Transition {
        id: 7,
        from: Some("server1".to_owned()),
        to: "server2".to_owned(),
        to_at,
        reason: PoolReason::Operator,
        evidence: String::new(),
        started: at,
        forced: false,
        switched: false,
        hooks: vec!["before promote".to_owned()],
        reached: Reached::Next(Next::Switch),
    });
    Pool {
        name: "passwords".to_owned(),
        active: Some("server1".to_owned()),
        active_at,
        since: at,
        reason: PoolReason::Operator,
        wish: Wish::Automatic,
        backends: Vec::new(),
        transition,
        doubtful: false,
    }
}

/// Who has a role that was handed over by steps has it where he got it: another server of that name has not.
#[test]
fn a_role_that_steps_hand_over_does_not_follow_a_name_to_another_address() {
    let hook = "[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [\"/usr/bin/true\"]\n";
    let (plain, with_steps) = (config(BASE), config(&format!("{BASE}{hook}")));
    let here = |backend: usize| Some(plain.pools[0].backends[backend].address);
    let elsewhere = Some(IpAddr::from([192, 0, 2, 99]));
    let clock = Clock::start();
    let read = |config: &Config, pool: &Pool| {
        let past = of_pool(&config.pools[0], pool, Duration::ZERO, &clock);
        (past.active, past.transition.map(|change| change.id), past.doubtful)
    };
    for (pool, expected) in [
        (remembered(here(0), None), (Some(A), None, false)),
        (remembered(None, None), (Some(A), None, false)),
        (remembered(elsewhere, None), (None, None, true)),
        (remembered(here(0), Some(here(1))), (Some(A), Some(7), false)),
        (remembered(here(0), Some(elsewhere)), (Some(A), None, true)),
        (remembered(elsewhere, Some(here(1))), (None, None, true)),
    ] {
        assert_eq!(read(&with_steps, &pool), expected, "{pool:?}");
    }
    assert_eq!(read(&plain, &remembered(elsewhere, None)), (Some(A), None, false), "nothing was handed over");
}
