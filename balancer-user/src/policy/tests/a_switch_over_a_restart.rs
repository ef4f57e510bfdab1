//! A change with hooks that the controller did not live to end.

use super::a_switch::{hooks_run, routes, switching, with_hooks};
use super::*;

/// [42, 43]
#[test]
fn a_hook_that_ran_when_the_controller_was_killed_is_held_for() {
    let mut world = switching(true);
    world.restart();
    world.run(secs(600));
    let view = world.view();
    assert_eq!((view.state, hooks_run(&world)), (PoolState::Held, vec![(2, 0)]));
    assert_eq!(view.transition.map(|transition| (transition.id, transition.step)), Some((2, Some(0))));
    world.ask(Ask::Resume { skip: true }).unwrap();
    world.run(secs(60));
    assert_eq!(hooks_run(&world), [(2, 0), (2, 1), (2, 2)]);
    assert_eq!(world.active(), Some(B));
}

#[test]
fn what_is_recorded_between_two_steps_goes_on_with_the_same_id() {
    let history = |reached| {
        let transition = TransitionHistory {
            id: 41,
            from: Some(BackendIndex(P)),
            to: BackendIndex(B),
            reason: ActiveReason::BackendDown,
            evidence: "web: refused".to_owned(),
            age: secs(7),
            forced: false,
            switched: false,
            reached,
        };
        let pool = PoolHistory {
            active: Some(BackendIndex(P)),
            transition: Some(transition),
            ..PoolHistory::default()
        };
        History { pools: vec![pool], last_transition: 41 }
    };
    for (reached, expected) in [
        (Reached::Cutting, &[(41, 0), (41, 1), (41, 2)][..]),
        (Reached::Next(Next::Hook(1)), &[(41, 1), (41, 2)]),
        (Reached::Held(Stop::Failed(1), "exit code 3".to_owned()), &[]),
        (Reached::Next(Next::Hook(9)), &[]),
    ] {
        let settings = vec![with_hooks()];
        let mut policy = Policy::new(settings, 1, history(reached.clone()), Moment::ZERO);
        let mut run = Vec::new();
        let now = Moment::ZERO + millis(50);
        let cut = policy.poll_cut();
        assert_eq!(cut.is_some(), reached == Reached::Cutting, "{reached:?}");
        cut.into_iter().for_each(|cut| policy.handle_cut(cut, now));
        while let Some(hook) = policy.poll_hook() {
            run.push((hook.transition, hook.step));
            policy.handle_hook(hook, HookEnd::Good, now);
        }
        assert_eq!(run, expected, "{reached:?}");
    }
}

/// The operator's first word, before anybody was active: its steps are not forgotten.
#[test]
fn of_nobody_before_survives_a_restart_in_the_middle() {
    let mut world = World::new(vec![with_hooks()], 1);
    world.hooks_take(secs(10), true);
    world.fail_over(Some("b"), false).unwrap();
    world.run(secs(1));
    world.restart();
    world.run(secs(60));
    assert_eq!((world.view().state, world.transitions()), (PoolState::Held, vec![]));
    world.ask(Ask::Resume { skip: true }).unwrap();
    world.run(secs(60));
    assert_eq!(world.transitions(), [(None, B, ActiveReason::Operator)]);
}

/// A change from P to B that had reached this, in a configuration without `gone`.
fn restored_without(gone: usize, reached: Reached) -> World {
    let mut pool = with_hooks();
    pool.backends[gone].disabled = true;
    let transition = TransitionHistory {
        id: 41,
        from: Some(BackendIndex(P)),
        to: BackendIndex(B),
        reason: ActiveReason::BackendDown,
        evidence: String::new(),
        age: secs(7),
        forced: false,
        switched: false,
        reached,
    };
    let past =
        PoolHistory { active: Some(BackendIndex(P)), transition: Some(transition), ..PoolHistory::default() };
    let mut world = World::after(vec![pool], 1, History { pools: vec![past], last_transition: 41 });
    world.run(secs(60));
    world
}

#[test]
fn to_a_backend_that_is_gone_is_the_operators_to_end_once_steps_were_taken() {
    let world = restored_without(B, Reached::Cutting);
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));

    let mut world = restored_without(B, Reached::Next(Next::Hook(1)));
    assert_eq!((world.view().state, routes(&world)), (PoolState::Held, vec![Route::Hold]));
    world.restart();
    world.run(secs(60));
    assert_eq!(world.view().state, PoolState::Held);
    assert!(matches!(world.fail_over(Some("p"), false), Err(Refusal::Doubtful { .. })));
    world.fail_over(Some("p"), true).unwrap();
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
    let whose = Whose::AllBut(BackendIndex(P));
    let others = Entry::Cut(Cut { pool: PoolIndex(0), whose, transition: None });
    assert!(world.log.iter().any(|(_, entry)| *entry == others), "nobody knows who else was active");
}

#[test]
fn from_a_backend_that_is_gone_goes_on() {
    for reached in [Reached::Cutting, Reached::Next(Next::Hook(0))] {
        let world = restored_without(P, reached);
        assert_eq!(hooks_run(&world), [(41, 0), (41, 1), (41, 2)]);
        assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));
    }
    let world = restored_without(P, Reached::Running(0));
    assert_eq!((world.view().state, world.transitions()), (PoolState::Held, vec![]));
}

#[test]
fn without_a_record_of_who_was_active_the_operator_says_it() {
    let doubtful = PoolHistory { doubtful: true, ..PoolHistory::default() };
    let history = History { pools: vec![doubtful], last_transition: 0 };
    let mut world = World::after(vec![with_hooks()], 1, history.clone());
    world.run(secs(60));
    assert_eq!((world.view().state, world.transitions()), (PoolState::Held, vec![]));
    assert_eq!(routes(&world), [Route::Hold]);
    let refused = world.fail_over(Some("b"), false);
    assert!(matches!(refused, Err(Refusal::Doubtful { .. })), "{refused:?}");
    world.fail_over(Some("b"), true).unwrap();
    world.run(secs(5));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));

    let mut plain = World::after(vec![trio(Failback::Manual)], 1, history);
    plain.run(secs(5));
    assert_eq!(reasons(&plain), [ActiveReason::Initial], "without hooks nothing can go wrong");
}

/// [42] At most once: what may have run never runs by itself, and holds up no traffic.
#[test]
fn hooks_behind_a_switch_that_was_not_written_down_are_the_operators() {
    let found = |hooks: Vec<HookSettings>| {
        let pool = PoolSettings { hooks, ..with_hooks() };
        let transition = TransitionHistory {
            id: 41,
            from: Some(BackendIndex(P)),
            to: BackendIndex(B),
            reason: ActiveReason::Restored,
            evidence: String::new(),
            age: Duration::ZERO,
            forced: false,
            switched: true,
            reached: Reached::Held(Stop::Unrecorded, "not written down".to_owned()),
        };
        let active = Some(BackendIndex(B));
        let past = PoolHistory { active, transition: Some(transition), ..PoolHistory::default() };
        let mut world = World::after(vec![pool], 1, History { pools: vec![past], last_transition: 41 });
        world.run(secs(60));
        world
    };
    for (skip, run) in [(false, &[(41, 2)][..]), (true, &[])] {
        let mut world = found(with_hooks().hooks);
        assert_eq!((world.view().state, hooks_run(&world)), (PoolState::Held, vec![]));
        assert_eq!(routes(&world), [Route::To(BackendIndex(B))]);
        assert!(world.events().any(|(_, event)| matches!(event, Event::Held { id: Some(41), .. })));
        world.ask(Ask::Resume { skip }).unwrap();
        world.run(secs(5));
        assert_eq!((world.view().state, hooks_run(&world)), (PoolState::Serving, run.to_vec()));
    }
    let mut before = with_hooks().hooks;
    before.truncate(2);
    assert_eq!(found(before).view().state, PoolState::Serving, "there are none behind the switch");
}
