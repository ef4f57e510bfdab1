//! Answers to probes that nobody waits for any more.

use super::*;

/// A policy whose first backend was probed once; the ticket was given up.
fn given_up() -> (Policy, ProbeTicket, Moment) {
    let mut policy = Policy::new(vec![trio(Failback::Manual)], 1, History::default(), Moment::ZERO);
    let ticket = policy.poll_probe().unwrap();
    let now = Moment::ZERO + PROBE.timeout * 2 + secs(1);
    policy.handle_timeout(now);
    (policy, ticket, now)
}

#[test]
fn of_a_probe_given_up_changes_nothing() {
    let (mut policy, ticket, now) = given_up();
    policy.handle_signal(ticket, Signal::Good, now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).backends[P].health, Health::Unknown);
}

#[test]
fn does_not_revive() {
    let (mut policy, late, now) = given_up();
    let again = std::iter::from_fn(|| policy.poll_probe()).find(|t| t.backend == late.backend).unwrap();
    policy.handle_signal(again, Signal::Bad("refused".to_owned()), now);
    let down = policy.snapshot(PoolIndex(0), now);
    assert_eq!(down.backends[P].health, Health::Down);
    for at in [now + secs(1), now + FAIL_TIMEOUT, now + FAIL_TIMEOUT + secs(1)] {
        policy.handle_signal(late, Signal::Good, at);
        policy.handle_signal(again, Signal::Good, at);
        assert_ne!(policy.snapshot(PoolIndex(0), at).backends[P].health, Health::Up);
    }
}

#[test]
fn of_a_pool_that_is_gone_changes_nothing() {
    let two = vec![trio(Failback::Manual), trio(Failback::Manual)];
    let mut bigger = Policy::new(two, 1, History::default(), Moment::ZERO);
    bigger.handle_timeout(Moment::ZERO + millis(100));
    let (mut policy, _, now) = given_up();
    let before = policy.snapshot(PoolIndex(0), now);
    for ticket in std::iter::from_fn(|| bigger.poll_probe()).filter(|ticket| ticket.pool == PoolIndex(1)) {
        policy.handle_signal(ticket, Signal::Good, now);
    }
    assert_eq!(policy.snapshot(PoolIndex(0), now), before);
}
