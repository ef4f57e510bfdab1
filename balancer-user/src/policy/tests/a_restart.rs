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
