//! `failover` by hand: its target, its force, its refusals.

use super::*;

#[test]
fn goes_round_in_role_order() {
    let mut world = manual();
    world.run(secs(5));
    let visited: Vec<_> = (0..4)
        .map(|_| {
            world.fail_over(None, false).unwrap();
            world.active().unwrap()
        })
        .collect();
    assert_eq!(visited, [B, C, P, B]);
}

#[test]
fn is_told_when_it_is_there_already() {
    let mut world = manual();
    world.run(secs(5));
    assert_eq!(world.fail_over(Some("p"), false), Ok(Accepted::AlreadyActive { active: BackendIndex(P) }));
    assert_eq!(reasons(&world), [ActiveReason::Initial]);
}

#[test]
fn is_refused_with_a_reason_and_nothing_changes() {
    let mut pool = trio(Failback::Manual);
    pool.backends[C].disabled = true;
    let mut world = starting_with(pool, &[(B, Condition::Refusing)]);
    world.run(secs(1));
    let before = world.view();
    let lost = world.command(&Command { pool: "no\nsuch".to_owned(), ask: Ask::Failback });
    let refusals = [
        (lost, "there is no pool \"no\\nsuch\""),
        (world.fail_over(Some("d"), true), "has no backend \"d\"; it has: p, b, c"),
        (world.fail_over(Some("c"), true), "is disabled in the configuration"),
        (world.fail_over(Some("b"), false), "backend \"b\" of pool \"passwords\" is down (web: refused)"),
        (world.fail_over(None, false), "no other backend of pool \"passwords\" is eligible"),
    ];
    for (refusal, sentence) in refusals {
        let said = refusal.unwrap_err().to_string();
        assert!(said.contains(sentence), "{said}");
    }
    assert_eq!(world.view(), before);
}

#[test]
fn stays_where_it_forced_the_pool_until_that_was_up_once() {
    let mut world =
        starting_with(trio(Failback::Auto { delay: Duration::ZERO }), &[(B, Condition::Refusing)]);
    world.run(secs(5));
    world.fail_over(Some("b"), true).unwrap();
    world.run(secs(60));
    assert_eq!(
        (world.active(), world.view().wish, world.view().state),
        (Some(B), Wish::Forced, PoolState::Serving)
    );
    world.set(0, B, Condition::Fine);
    world.run(secs(60));
    assert_eq!((world.active(), world.view().wish), (Some(B), Wish::Stay));
    world.set(0, B, Condition::Refusing);
    world.run(secs(5));
    assert_eq!(world.active(), Some(P));
}

#[test]
fn may_force_the_next_one_when_no_other_is_eligible() {
    let mut world =
        starting_with(trio(Failback::Manual), &[(B, Condition::Refusing), (C, Condition::Refusing)]);
    world.run(secs(5));
    world.fail_over(None, true).unwrap();
    assert_eq!((world.active(), world.view().wish), (Some(B), Wish::Forced));
}

#[test]
fn decides_even_before_the_first_signal() {
    let mut world = starting_with(trio(Failback::Manual), &[(P, Condition::Silent)]);
    world.fail_over(Some("c"), false).unwrap();
    world.run(secs(5));
    assert_eq!(world.transitions(), [(None, C, ActiveReason::Operator)]);
}

#[test]
fn does_not_hold_the_pool_on_a_lost_backend_without_force() {
    let refusing = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(trio(Failback::Manual), &refusing);
    world.run(secs(1));
    assert_eq!(world.fail_over(Some("p"), false), Ok(Accepted::AlreadyActive { active: BackendIndex(P) }));
    world.set(0, C, Condition::Fine);
    world.run(secs(15));
    assert_eq!(world.active(), Some(C));
}

#[test]
fn is_not_sent_to_an_unknown_backend_while_one_is_up_unless_it_is_named() {
    let mut world = starting_with(trio(Failback::Manual), &[(B, Condition::Ours), (C, Condition::Refusing)]);
    world.run(secs(1));
    assert_eq!(world.fail_over(None, false), Err(Refusal::NoOther { pool: "passwords".to_owned() }));
    assert!(matches!(world.fail_over(Some("b"), false), Ok(Accepted::Moved { .. })));
}

#[test]
fn sends_flows_to_what_it_forces_even_if_the_pool_would_refuse_them() {
    let mut pool = trio(Failback::Manual);
    pool.when_all_down = WhenAllDown::Reject;
    let refusing = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(pool, &refusing);
    world.run(secs(5));
    assert_eq!((world.active(), world.view().state), (None, PoolState::AllDown));
    world.fail_over(Some("b"), true).unwrap();
    world.run(secs(30));
    assert_eq!((world.active(), world.view().state), (Some(B), PoolState::AllDown));
}
