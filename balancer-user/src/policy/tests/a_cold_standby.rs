//! A standby that does not run before the hooks have started it.

use super::a_switch::with_hooks;
use super::*;

fn cold_standby() -> PoolSettings {
    let mut pool = with_hooks();
    pool.backends[B].cold = true;
    pool
}

#[test]
fn a_cold_standby_is_started_before_it_is_used_and_not_probed_before() {
    let pool = cold_standby();
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

/// Nobody had the role before it, so no steps are taken; whether it runs is seen at once.
#[test]
fn a_cold_one_that_is_taken_first_of_all_is_probed() {
    let mut pool = cold_standby();
    pool.services[0].probe = Some(ProbeSchedule { interval: secs(3600), ..PROBE });
    let others = [(P, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(pool, &others);
    world.run(secs(1));
    assert_eq!((world.active(), world.view().backends[B].health), (Some(B), Health::Up));
}

/// Every other deadline is an hour away.
#[test]
fn a_cold_one_that_is_being_started_is_probed_though_nothing_else_happens() {
    for hooks in [with_hooks().hooks, Vec::new()] {
        let mut pool = cold_standby();
        pool.hooks = hooks;
        pool.services[0].probe = Some(ProbeSchedule { interval: secs(3600), ..PROBE });
        let mut world = starting_with(pool, &[]);
        world.run(secs(1));
        world.fail_over(Some("b"), false).unwrap();
        world.run(secs(1));
        assert_eq!((world.active(), world.view().backends[B].health), (Some(B), Health::Up));
    }
}

/// Over and over it falls asleep while its probe waits for its turn.
#[test]
fn a_cold_one_that_falls_asleep_in_the_queue_takes_no_place_of_others() {
    let mut pool = cold_standby();
    pool.hooks.clear();
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let mut now = Moment::ZERO;
    for _ in 0..2 * MAX_IN_FLIGHT {
        fail_over(&mut policy, "b", now);
        now = now + PROBE.interval;
        policy.handle_timeout(now);
        while let Some(ticket) = policy.poll_probe() {
            policy.handle_signal(ticket, Signal::Good, now);
        }
        assert_eq!(policy.snapshot(PoolIndex(0), now).active, Some(BackendIndex(B)));
        now = now + PROBE.interval;
        policy.handle_timeout(now);
        fail_over(&mut policy, "p", now);
    }
}

fn fail_over(policy: &mut Policy, to: &str, now: Moment) {
    let ask = Ask::Failover { to: Some(to.to_owned()), force: true, reset: false };
    policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, now).unwrap();
    policy.poll_cut().into_iter().for_each(|cut| policy.handle_cut(cut, now));
}
