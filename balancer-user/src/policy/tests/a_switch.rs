//! A change with hooks: in order, held on failure, never to anybody else.

use super::*;

fn hook(when: HookWhen, on_error: OnError) -> HookSettings {
    HookSettings { name: format!("{when:?}").to_lowercase(), when, on_error }
}

/// Two hooks before, one after.
pub(super) fn with_hooks() -> PoolSettings {
    let mut pool = trio(Failback::Manual);
    pool.hooks = vec![
        hook(HookWhen::Before, OnError::Hold),
        hook(HookWhen::Before, OnError::Hold),
        hook(HookWhen::After, OnError::Continue),
    ];
    pool
}

pub(super) fn hooks_run(world: &World) -> Vec<(u64, usize)> {
    let run = |(_, entry): &(Moment, Entry)| match entry {
        Entry::Hook(run) => Some((run.transition, run.step)),
        _ => None,
    };
    world.log.iter().filter_map(run).collect()
}

pub(super) fn routes(world: &World) -> Vec<Route> {
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
pub(super) fn switching(good: bool) -> World {
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
    assert!(matches!(refused, Err(Refusal::TargetLost { .. })), "{refused:?}");
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
    let cut = policy.poll_cut().unwrap();
    policy.handle_cut(cut, Moment::ZERO);
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

/// Also when nobody was active before: a backend that nobody remembers may have flows.
#[test]
fn everybodys_flows_but_the_targets_end_before_its_first_hook() {
    let mut of_nobody = World::new(vec![with_hooks()], 1);
    of_nobody.fail_over(Some("b"), false).unwrap();
    of_nobody.run(secs(1));
    for (world, id) in [(of_nobody, 1), (switching(true), 2)] {
        let before: Vec<_> = world.log.iter().map(|(_, entry)| entry).collect();
        let hook = before.iter().position(|entry| matches!(entry, Entry::Hook(_))).unwrap();
        let (pool, whose) = (PoolIndex(0), Whose::AllBut(BackendIndex(B)));
        let cut = Entry::Cut(Cut { pool, whose, transition: Some(id) });
        assert!(before[..hook].contains(&&cut), "{before:?}");
    }
}

/// [43] Flows that can't be ended: two backends at once would be worse than a pool that waits.
#[test]
fn a_cut_that_does_not_end_is_held_for_and_never_left_out() {
    let mut world = World::new(vec![with_hooks()], 1);
    world.run(secs(5));
    world.cuts_take(secs(3600));
    world.fail_over(Some("b"), false).unwrap();
    let cut = world.log.iter().find_map(|(_, entry)| match entry {
        Entry::Cut(cut) => Some(*cut),
        _ => None,
    });
    assert!(world.policy.handle_cut_trouble(cut.unwrap(), "a storm"), "it is tried again");
    world.run(secs(10) - TICK);
    assert_eq!(world.view().state, PoolState::Switching);
    world.run(TICK);
    let held = world.view().transition.and_then(|transition| transition.held);
    assert_eq!(held.as_deref(), Some("flows of other backends could not be ended within 10s: a storm"));
    assert!(world.events().any(|(_, event)| matches!(event, Event::Held { id: Some(2), .. })));
    assert!(!world.policy.handle_cut_trouble(cut.unwrap(), "a storm"), "nobody waits any more");
    let before = world.view();
    let refused = world.ask(Ask::Resume { skip: true }).unwrap_err().to_string();
    assert!(refused.contains("a storm; that can't be left out"), "{refused}");
    assert_eq!(world.view(), before);

    world.restart();
    world.run(secs(60));
    assert_eq!((world.view().state, hooks_run(&world)), (PoolState::Held, vec![]));
    world.cuts_take(secs(1));
    world.ask(Ask::Resume { skip: false }).unwrap();
    world.run(secs(5));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));
    assert_eq!(hooks_run(&world), [(2, 0), (2, 1), (2, 2)]);
}

#[test]
fn from_a_cut_that_does_not_end_there_is_a_way_back() {
    let mut world = World::new(vec![with_hooks()], 1);
    world.run(secs(5));
    world.cuts_take(secs(3600));
    world.fail_over(Some("b"), false).unwrap();
    world.run(secs(60));
    assert_eq!(world.view().state, PoolState::Held);
    world.fail_over(Some("p"), true).unwrap();
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
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
    policy.handle_cut(Cut { pool, whose: Whose::Of(b), transition: Some(1) }, Moment::ZERO);
    assert_eq!(policy.snapshot(PoolIndex(0), Moment::ZERO), before);
}

#[test]
fn to_a_lost_target_that_the_operator_skips_the_wait_for_stays_there() {
    let mut world = switching(true);
    world.set(0, B, Condition::Refusing);
    world.run(secs(60));
    assert_eq!(world.view().state, PoolState::Held);
    world.ask(Ask::Resume { skip: true }).unwrap();
    world.run(secs(300));
    let view = world.view();
    assert_eq!(
        (view.state, view.active, view.wish),
        (PoolState::Serving, Some(BackendIndex(B)), Wish::Forced)
    );
    assert_eq!(world.transitions().len(), 2);
}

/// Two active databases would be worse than a pool that waits.
#[test]
fn an_active_backend_that_left_the_configuration_is_asked_for_where_steps_hand_the_role_over() {
    for (hooks, state) in [(with_hooks().hooks, PoolState::Held), (Vec::new(), PoolState::Serving)] {
        let mut pool = trio(Failback::Manual);
        pool.hooks = hooks;
        pool.backends[P].disabled = true;
        let mut world = restarted_on(pool, P, &[]);
        world.run(secs(60));
        assert_eq!((world.view().state, hooks_run(&world)), (state, vec![]));
    }
}
