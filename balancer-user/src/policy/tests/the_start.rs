//! The first decision, when nothing is known: who gets it, and for whom it waits.

use super::*;

#[test]
fn takes_the_first_backend_up_in_role_order() {
    let mut pool = trio(Failback::Manual);
    pool.backends[P].backup = true;
    let mut world = World::new(vec![pool], 1);
    world.run(secs(1));
    assert_eq!(world.transitions(), [(None, B, ActiveReason::Initial)]);
}

#[test]
fn waits_for_a_slow_primary_and_does_not_flip_through_the_backup() {
    let mut world = starting_with(trio(Failback::Manual), &[(P, Condition::Silent)]);
    world.run(millis(900));
    assert_eq!(world.view().backends[B].health, Health::Up);
    assert_eq!((world.active(), world.policy.first_round_done()), (None, false));
    world.run(millis(200));
    assert_eq!(world.transitions(), [(None, B, ActiveReason::Initial)]);
    assert!(world.policy.first_round_done());
}

#[test]
fn does_not_wait_for_those_behind_the_first_one_up() {
    let mut world = starting_with(trio(Failback::Manual), &[(B, Condition::Silent), (C, Condition::Silent)]);
    world.run(millis(10));
    assert_eq!(world.active(), Some(P));
}

#[test]
fn with_nobody_up_takes_the_first_ready_one_and_alarms_once() {
    let refusing = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut pool = trio(Failback::Manual);
    pool.backends[P].disabled = true;
    let mut world = starting_with(pool, &refusing);
    world.run(secs(60));
    assert_eq!((world.active(), world.view().state), (Some(B), PoolState::AllDown));
    assert_eq!(alarms(&world), 1);
    assert!(world.policy.first_round_done());
}

#[test]
fn with_nobody_up_prefers_one_that_is_not_known_to_fail() {
    let mut pool = trio(Failback::Manual);
    pool.backends[B].max_fails = 3;
    let refusing = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(pool, &refusing);
    world.run(millis(100));
    assert_eq!((world.active(), world.view().state), (Some(B), PoolState::Serving));
    assert_eq!((world.view().backends[B].health, world.view().backends[B].fails), (Health::Unknown, 1));
}

#[test]
fn is_not_held_up_by_a_prober_that_never_reports_or_cannot_probe() {
    for condition in [Condition::Lost, Condition::Ours] {
        let mut world = starting_with(trio(Failback::Manual), &[(P, condition)]);
        world.run(PROBE.timeout * 2 + secs(1) + millis(10));
        assert_eq!(world.active(), Some(B), "{condition:?}");
    }
}

#[test]
fn without_probes_serves_the_first_ready_backend_for_ever() {
    let mut pool = trio(Failback::Auto { delay: Duration::ZERO });
    pool.services[0].probe = None;
    let mut world = World::new(vec![pool], 1);
    assert!(world.policy.first_round_done());
    assert_eq!(world.policy.poll_timeout(), None, "nothing to wait for");
    world.run(secs(3600));
    assert_eq!((world.active(), world.view().backends[P].health), (Some(P), Health::Unknown));
}

/// Only without any probe at all is a backend unknown; else those that are probed speak for it.
#[test]
fn services_without_a_probe_do_not_count_beside_one_with() {
    let mut pool = trio(Failback::Manual);
    pool.services.push(ServiceSettings { name: "quiet".to_owned(), probe: None });
    let mut world = World::new(vec![pool], 1);
    world.run(secs(1));
    assert_eq!(world.view().backends[P].health, Health::Up);
}
