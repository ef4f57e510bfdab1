//! A change with hooks: in order, held on failure, never to anybody else, and over a restart.

use super::*;

fn hook(when: HookWhen, on_error: OnError) -> HookSettings {
    HookSettings { name: format!("{when:?}").to_lowercase(), when, on_error }
}

/// Two hooks before, one after.
fn with_hooks() -> PoolSettings {
    let mut pool = trio(Failback::Manual);
    pool.hooks = vec![
        hook(HookWhen::Before, OnError::Hold),
        hook(HookWhen::Before, OnError::Hold),
        hook(HookWhen::After, OnError::Continue),
    ];
    pool
}

fn hooks_run(world: &World) -> Vec<(u64, usize)> {
    let run = |(_, entry): &(Moment, Entry)| match entry {
        Entry::Hook(run) => Some((run.transition, run.step)),
        _ => None,
    };
    world.log.iter().filter_map(run).collect()
}

fn routes(world: &World) -> Vec<Route> {
    let route = |(_, entry): &(Moment, Entry)| match entry {
        Entry::Decision(decision) => Some(decision.route),
        _ => None,
    };
    world.log.iter().filter_map(route).collect()
}

fn to(b: usize) -> Route {
    Route::To(BackendIndex(b))
}

/// Hooks of ten seconds that end well, or not.
fn switching(good: bool) -> World {
    let mut world = World::new(vec![with_hooks()], 1);
    world.run(secs(5));
    world.hooks_take(secs(10), good);
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    world
}

fn held() -> World {
    let mut world = switching(false);
    world.run(secs(10));
    assert_eq!(world.view().state, PoolState::Held);
    world
}

#[test]
fn holds_new_flows_until_its_hooks_have_run_in_order() {
    let mut world = switching(true);
    let view = world.view();
    assert_eq!(
        (view.state, view.active, world.transitions().len()),
        (PoolState::Switching, Some(BackendIndex(P)), 1)
    );
    assert_eq!(view.transition.and_then(|transition| transition.step), Some(0));
    world.run(secs(40));
    assert_eq!(hooks_run(&world), [(2, 0), (2, 1), (2, 2)]);
    assert_eq!(routes(&world), [to(P), Route::Hold, to(B)]);
    assert_eq!(world.transitions()[1], (Some(P), B, ActiveReason::BackendDown));
    assert_eq!((world.view().state, world.view().transition), (PoolState::Serving, None));
}

/// [42]
#[test]
fn a_failed_hook_is_held_for_and_nothing_runs_by_itself() {
    let mut world = held();
    world.run(secs(600));
    assert_eq!(hooks_run(&world), [(2, 0)]);
    assert_eq!(routes(&world), [to(P), Route::Hold]);
    let held = world.view().transition.and_then(|transition| transition.held);
    assert_eq!(held.as_deref(), Some("hook \"before\": exit code 1"));
}

#[test]
fn retry_runs_the_failed_hook_again_and_skip_goes_on_behind_it() {
    let mut world = held();
    world.hooks_take(millis(10), true);
    assert_eq!(
        world.ask(Ask::Resume { skip: false }),
        Ok(Accepted::Resumed { to: BackendIndex(B), transition: 2 })
    );
    world.run(secs(1));
    assert_eq!(hooks_run(&world), [(2, 0), (2, 0), (2, 1), (2, 2)]);

    let mut world = held();
    world.hooks_take(millis(10), true);
    world.ask(Ask::Resume { skip: true }).unwrap();
    world.run(secs(1));
    assert_eq!(hooks_run(&world), [(2, 0), (2, 1), (2, 2)]);
    assert_eq!(world.active(), Some(B));
}

/// [43]
#[test]
fn a_target_that_goes_down_meanwhile_is_held_for_and_never_exchanged() {
    let mut world = switching(true);
    world.set(0, B, Condition::Refusing);
    world.run(secs(60));
    assert_eq!((world.view().state, world.active()), (PoolState::Held, Some(P)));
    assert_eq!(routes(&world), [to(P), Route::Hold]);
    let refused = world.ask(Ask::Resume { skip: false });
    assert!(matches!(refused, Err(Refusal::NotEligible { .. })), "{refused:?}");
    world.set(0, B, Condition::Fine);
    world.run(secs(60));
    world.ask(Ask::Resume { skip: false }).unwrap();
    world.run(secs(60));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));
}

#[test]
fn other_commands_are_refused_while_it_is_under_way() {
    let mut world = switching(true);
    let before = world.view();
    for ask in [
        Ask::Failover { to: None, force: false, reset: false },
        Ask::Failover { to: Some("c".to_owned()), force: true, reset: false },
        Ask::Failback,
        Ask::Withdraw { backend: "c".to_owned(), how: Withdrawal::Maint, force: true },
        Ask::PutBack { backend: "c".to_owned() },
    ] {
        let refused = world.ask(ask.clone());
        assert!(matches!(refused, Err(Refusal::Switching { .. })), "{ask:?}: {refused:?}");
    }
    assert_eq!(world.ask(Ask::Resume { skip: true }), Err(Refusal::NotHeld { pool: "passwords".to_owned() }));
    assert_eq!(world.view(), before);
}

#[test]
fn a_held_one_can_be_given_up_for_another_by_force() {
    let mut world = held();
    let refused = world.ask(Ask::Failover { to: None, force: true, reset: false });
    assert!(matches!(refused, Err(Refusal::Held { .. })), "{refused:?}");
    world.hooks_take(millis(10), true);
    let begun = world.fail_over(Some("c"), true);
    assert_eq!(begun, Ok(Accepted::Begun { to: BackendIndex(C), transition: 3 }));
    world.run(secs(1));
    assert_eq!(hooks_run(&world), [(2, 0), (3, 0), (3, 1), (3, 2)]);
    assert_eq!(world.active(), Some(C));
}

#[test]
fn a_held_one_can_be_taken_back_to_where_it_came_from() {
    let mut world = held();
    world.set(0, P, Condition::Fine);
    world.run(secs(30));
    assert_eq!(world.view().state, PoolState::Held, "never by itself");
    assert_eq!(world.fail_over(Some("p"), true), Ok(Accepted::AlreadyActive { active: BackendIndex(P) }));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
    assert_eq!(routes(&world), [to(P), Route::Hold, to(P)]);
}

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

#[test]
fn a_hook_that_could_not_be_started_is_held_for_whatever_its_error_means() {
    let mut pool = with_hooks();
    pool.hooks[0].on_error = OnError::Continue;
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let pool = "passwords".to_owned();
    let ask = |ask| Command { pool: pool.clone(), ask };
    policy
        .handle_command(&ask(Ask::Failover { to: None, force: false, reset: false }), Moment::ZERO)
        .unwrap();
    let run = policy.poll_hook().unwrap();
    policy.handle_hook(run, HookEnd::NotStarted("the state can't be written".to_owned()), Moment::ZERO);
    assert_eq!(policy.snapshot(PoolIndex(0), Moment::ZERO).state, PoolState::Held);
}

#[test]
fn a_first_start_and_a_return_to_the_same_backend_run_none() {
    let mut pool = with_hooks();
    pool.when_all_down = WhenAllDown::Reject;
    let all = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(pool, &all);
    world.run(secs(5));
    assert_eq!((world.view().state, world.active()), (PoolState::AllDown, None));
    world.set(0, P, Condition::Fine);
    world.run(secs(30));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
    assert_eq!(hooks_run(&world), []);
    assert_eq!(routes(&world), [Route::Reject, to(P)]);
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

#[test]
fn a_hook_behind_the_switch_that_fails_holds_no_traffic_and_no_later_change() {
    let mut pool = trio(Failback::Manual);
    pool.hooks = vec![hook(HookWhen::After, OnError::Hold), hook(HookWhen::After, OnError::Hold)];
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    world.hooks_take(secs(1), false);
    world.fail_over(Some("b"), false).unwrap();
    world.run(secs(5));
    assert_eq!((world.view().state, world.active()), (PoolState::Held, Some(B)));
    assert_eq!(routes(&world), [to(P), to(B)]);
    world.set(0, B, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(world.active(), Some(P));
    assert_eq!(hooks_run(&world), [(2, 0), (3, 0)]);
}

#[test]
fn a_cold_standby_is_started_before_it_is_used_and_not_probed_before() {
    let mut pool = with_hooks();
    pool.backends[B].cold = true;
    let mut world = starting_with(pool.clone(), &[(B, Condition::Refusing)]);
    world.run(secs(60));
    assert_eq!(world.probes_of(B), []);
    world.hooks_take(secs(5), true);
    world.set(0, P, Condition::Refusing);
    world.run(secs(9));
    assert_eq!(world.probes_of(B), [], "the hooks still run");
    world.run(secs(10));
    assert_eq!((world.view().state, world.probes_of(B).len() > 5), (PoolState::Switching, true));
    world.set(0, B, Condition::Fine);
    world.run(secs(10));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));

    let mut world = starting_with(pool, &[(B, Condition::Refusing), (P, Condition::Fine)]);
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(90));
    assert_eq!(world.view().state, PoolState::Held, "it did not come up within start_timeout");
    assert_eq!(world.active(), Some(P));
}

/// The end of a cut that was asked for before the backend had new flows says nothing about those.
#[test]
fn an_older_cut_of_the_same_backend_lets_no_hook_run() {
    let mut policy = Policy::new(vec![with_hooks()], 1, History::default(), Moment::ZERO);
    let ask = |policy: &mut Policy, ask| {
        policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, Moment::ZERO).unwrap()
    };
    let to = |name: &str| Ask::Failover { to: Some(name.to_owned()), force: false, reset: false };
    let finish = |policy: &mut Policy| {
        std::iter::from_fn(|| policy.poll_cut())
            .last()
            .into_iter()
            .for_each(|cut| policy.handle_cut(cut, Moment::ZERO));
        while let Some(run) = policy.poll_hook() {
            policy.handle_hook(run, HookEnd::Good, Moment::ZERO);
        }
    };
    ask(&mut policy, to("p"));
    finish(&mut policy);
    ask(&mut policy, Ask::Withdraw { backend: "b".to_owned(), how: Withdrawal::Maint, force: false });
    let older = policy.poll_cut().unwrap();
    ask(&mut policy, Ask::PutBack { backend: "b".to_owned() });
    ask(&mut policy, to("b"));
    finish(&mut policy);
    ask(&mut policy, to("c"));
    let newer = policy.poll_cut().unwrap();
    policy.handle_cut(older, Moment::ZERO);
    assert_eq!(policy.poll_hook(), None);
    policy.handle_cut(newer, Moment::ZERO);
    assert!(policy.poll_hook().is_some());
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
fn back_to_a_backend_that_was_drained_for_it_is_possible() {
    let mut world = World::new(vec![with_hooks()], 1);
    world.run(secs(5));
    world.hooks_take(secs(1), false);
    let how = Withdrawal::Drain { deadline: None };
    world.ask(Ask::Withdraw { backend: "p".to_owned(), how, force: false }).unwrap();
    world.run(secs(5));
    assert_eq!(world.view().state, PoolState::Held);
    world.ask(Ask::PutBack { backend: "p".to_owned() }).unwrap();
    assert_eq!(world.view().state, PoolState::Held, "that alone ends nothing");
    world.fail_over(Some("p"), true).unwrap();
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
}

#[test]
fn what_belongs_to_a_pool_that_is_gone_changes_nothing() {
    let mut policy = Policy::new(vec![with_hooks()], 1, History::default(), Moment::ZERO);
    let before = policy.snapshot(PoolIndex(0), Moment::ZERO);
    let (pool, b) = (PoolIndex(7), BackendIndex(B));
    let run = HookRun { pool, step: 0, transition: 1, from: None, to: b, reason: ActiveReason::Operator };
    policy.handle_hook(run, HookEnd::Good, Moment::ZERO);
    policy.handle_cut(Cut { pool, backend: b, transition: Some(1) }, Moment::ZERO);
    assert_eq!(policy.snapshot(PoolIndex(0), Moment::ZERO), before);
}

fn cold_standby() -> PoolSettings {
    let mut pool = with_hooks();
    pool.backends[B].cold = true;
    pool
}

/// It never came up, the controller was restarted, and the operator took it all the same.
#[test]
fn a_cold_one_that_is_taken_unseen_after_a_restart_is_probed() {
    let mut world = starting_with(cold_standby(), &[(B, Condition::Refusing)]);
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(90));
    assert_eq!(world.view().state, PoolState::Held);
    world.restart();
    world.run(secs(5));
    world.ask(Ask::Resume { skip: true }).unwrap();
    assert_eq!(world.active(), Some(B));
    world.run(secs(5));
    assert_eq!(world.active(), Some(C), "it is seen to fail");
}

/// What a probe from before its last sleep sees says nothing about whether the hooks started it.
#[test]
fn a_cold_one_is_not_up_by_an_answer_to_an_older_probe() {
    let mut pool = trio(Failback::Manual);
    pool.backends[B].cold = true;
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let mut now = Moment::ZERO;
    let fail_over = |policy: &mut Policy, to: &str, now| {
        let ask = Ask::Failover { to: Some(to.to_owned()), force: true, reset: false };
        policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, now).unwrap();
        policy.poll_cut().into_iter().for_each(|cut| policy.handle_cut(cut, now));
    };
    let probe = |policy: &mut Policy, now| {
        policy.handle_timeout(now);
        let mut probes = std::iter::from_fn(|| policy.poll_probe());
        probes.find(|ticket| ticket.backend == BackendIndex(B)).unwrap()
    };
    fail_over(&mut policy, "b", now);
    now = now + millis(50);
    let first = probe(&mut policy, now);
    policy.handle_signal(first, Signal::Good, now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).active, Some(BackendIndex(B)));
    now = now + PROBE.interval;
    let older = probe(&mut policy, now);
    fail_over(&mut policy, "p", now);
    fail_over(&mut policy, "b", now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).state, PoolState::Switching);
    policy.handle_signal(older, Signal::Good, now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).state, PoolState::Switching);
    now = now + secs(1);
    let newer = probe(&mut policy, now);
    policy.handle_signal(newer, Signal::Good, now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).active, Some(BackendIndex(B)));
}
