//! What a controller does that finds its predecessor's active backend in the kernel.

use super::*;

/// [44]
#[test]
fn keeps_what_the_kernel_does_and_changes_nothing() {
    let mut world = restarted_on(trio(Failback::Manual), B, &[]);
    world.run(secs(60));
    assert_eq!(world.transitions(), []);
    assert_eq!((world.active(), world.view().reason), (Some(B), ActiveReason::Restored));
}

#[test]
fn leaves_the_restored_one_when_it_turns_out_to_be_down_and_numbers_go_on() {
    let mut world = restarted_on(trio(Failback::Manual), B, &[(B, Condition::Refusing)]);
    world.run(secs(1));
    assert_eq!(world.transitions(), [(Some(B), P, ActiveReason::BackendDown)]);
    assert_eq!(world.policy.history(world.now).last_transition, 42);
}

#[test]
fn waits_for_a_first_signal_before_it_takes_an_unknown_one() {
    let mut world =
        restarted_on(trio(Failback::Manual), B, &[(B, Condition::Refusing), (P, Condition::Silent)]);
    world.run(secs(2));
    assert_eq!(world.transitions(), [(Some(B), C, ActiveReason::BackendDown)]);
    assert_eq!(alarms(&world), 0, "nobody knew yet that all were down, and they weren't");
}

#[test]
fn forgets_a_restored_one_that_is_disabled_or_gone() {
    let mut pool = trio(Failback::Manual);
    pool.backends[B].disabled = true;
    for gone in [B, 17] {
        let mut world = restarted_on(pool.clone(), gone, &[]);
        world.run(secs(1));
        assert_eq!(world.transitions(), [(None, P, ActiveReason::Initial)]);
    }
}

#[test]
fn keeps_the_operators_wish() {
    let past = PoolHistory { active: Some(BackendIndex(B)), wish: Wish::Stay, ..PoolHistory::default() };
    let history = History { pools: vec![past], last_transition: 0 };
    let mut world = World::after(vec![trio(Failback::Auto { delay: Duration::ZERO })], 1, history);
    world.run(secs(60));
    assert_eq!(world.active(), Some(B));
}

#[test]
fn takes_back_what_the_configuration_had_disabled_before() {
    let mut pool = trio(Failback::Manual);
    pool.backends[P].disabled = true;
    let mut world = starting_with(pool.clone(), &[]);
    world.run(secs(5));
    let history = world.policy.history(world.now);
    pool.backends[P].disabled = false;
    let mut world = World::after(vec![pool], 1, history);
    world.run(secs(5));
    let view = world.view();
    assert_eq!((view.backends[P].admin, view.backends[P].health), (Admin::Ready, Health::Up));
}

#[test]
fn does_not_end_a_probation() {
    let mut pool = trio(Failback::Auto { delay: Duration::ZERO });
    pool.backends[P].max_fails = 3;
    pool.services[0].probe = Some(ProbeSchedule { rise: 2, ..PROBE });
    let mut world = starting_with(pool, &[(P, Condition::Refusing)]);
    while world.view().backends[P].health != Health::Probation {
        world.run(millis(1));
    }
    world.restart();
    world.run(millis(20));
    assert_eq!(world.view().backends[P].health, Health::Down, "one failure is enough");
}

/// Without probes nothing else would ever wake the pool.
#[test]
fn keeps_the_end_of_a_drain_in_a_pool_without_probes() {
    let mut pool = trio(Failback::Manual);
    pool.services[0].probe = None;
    let mut world = World::new(vec![pool], 1);
    let how = Withdrawal::Drain { deadline: Some(secs(10)) };
    world.ask(Ask::Withdraw { backend: "b".to_owned(), how, force: false }).unwrap();
    world.run(secs(4));
    world.restart();
    world.run(secs(7));
    let drained = world.events().filter(|(_, event)| matches!(event, Event::Drained { .. }));
    assert_eq!(drained.map(|(at, _)| at).collect::<Vec<_>>(), [Moment::ZERO + secs(10)]);
}
