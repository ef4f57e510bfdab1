//! The controller's own standstill, which must not look like everybody's failure.

use super::*;

/// All are probed at once, nothing happens until `late` after the next deadline, then all report a timeout. The bound of
/// a probe is out of the way, or the probes would be given up instead.
fn stalled_by(late: Duration, intervals: &[Duration]) -> (Policy, Moment) {
    let pool = |interval: &Duration| {
        let mut pool = trio(Failback::Manual);
        let probe = ProbeSchedule { interval: *interval, timeout: secs(100_000), ..PROBE };
        pool.services[0].probe = Some(probe);
        pool
    };
    let pools = intervals.iter().map(pool).collect();
    let mut policy = Policy::new(pools, 1, History::default(), Moment::ZERO);
    policy.handle_timeout(Moment::ZERO + millis(100));
    let tickets: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).collect();
    assert_eq!(tickets.len(), 3 * intervals.len());
    let now = policy.poll_timeout().unwrap() + late;
    for ticket in tickets {
        policy.handle_signal(ticket, Signal::Bad("timeout".to_owned()), now);
    }
    (policy, now)
}

fn health_in(pool: usize, policy: &Policy, now: Moment) -> Vec<Health> {
    policy.snapshot(PoolIndex(pool), now).backends.iter().map(|backend| backend.health).collect()
}

/// [35] Two intervals are a slow controller, a tick more is one that stood still.
#[test]
fn of_more_than_two_intervals_voids_the_failures_of_that_round() {
    let interval = PROBE.interval;
    for (late, health, repeated) in
        [(interval * 2, Health::Down, 0), (interval * 2 + TICK, Health::Unknown, 3)]
    {
        let (mut policy, now) = stalled_by(late, &[interval]);
        assert_eq!(health_in(0, &policy, now), [health; 3], "{late:?}");
        assert_eq!(std::iter::from_fn(|| policy.poll_probe()).count(), repeated, "at once");
    }
}

#[test]
fn is_measured_by_each_services_own_interval() {
    let (policy, now) = stalled_by(secs(20), &[secs(2), secs(10)]);
    assert_eq!(health_in(0, &policy, now), [Health::Unknown; 3]);
    assert_eq!(health_in(1, &policy, now), [Health::Down; 3], "20 s are two of its intervals");
}

/// A backup that answered before must not become active because the primary's answer was ours to lose.
#[test]
fn leaves_the_first_decision_waiting_for_the_repetition() {
    for timeout in [PROBE.timeout, secs(60)] {
        first_answer_spoiled(timeout);
    }
}

/// With a short timeout the probe is given up, with a long one it reports.
fn first_answer_spoiled(timeout: Duration) {
    let mut pool = trio(Failback::Manual);
    pool.services[0].probe = Some(ProbeSchedule { timeout, ..PROBE });
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let primary = policy.poll_probe().unwrap();
    let mut now = policy.poll_timeout().unwrap() + secs(4) + TICK;
    policy.handle_signal(primary, Signal::Bad("timeout".to_owned()), now);
    let mut again = Vec::new();
    for _ in 0..3 {
        again.extend(std::iter::from_fn(|| policy.poll_probe()));
        now = now + millis(5);
        policy.handle_timeout(now);
    }
    for ticket in again.iter().filter(|ticket| ticket.backend != BackendIndex(P)) {
        policy.handle_signal(*ticket, Signal::Good, now);
    }
    assert_eq!(policy.snapshot(PoolIndex(0), now).active, None);
    let primary = again.iter().find(|ticket| ticket.backend == BackendIndex(P)).unwrap();
    policy.handle_signal(*primary, Signal::Good, now);
    assert_eq!(policy.snapshot(PoolIndex(0), now).active, Some(BackendIndex(P)));
}

#[test]
fn of_hours_takes_nobody_down() {
    let (mut policy, now) = stalled_by(secs(3 * 3600), &[PROBE.interval]);
    assert_eq!(health_in(0, &policy, now), [Health::Unknown; 3]);
    let stalls = std::iter::from_fn(|| policy.poll_event())
        .filter(|event| matches!(event, Event::Stalled { probes: 3, .. }));
    assert_eq!(stalls.count(), 1);
}

#[test]
fn does_not_hide_a_failure_that_is_still_there() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.freeze(secs(30));
    assert_eq!(world.active(), Some(P));
    world.run(secs(2));
    assert_eq!(world.active(), Some(B));
}

/// [38]
#[test]
fn is_not_seen_in_time_that_goes_back() {
    let mut world = manual();
    world.run(secs(5));
    let before = world.view();
    world.policy.handle_timeout(Moment::ZERO);
    assert_eq!(world.view(), before);
    assert_eq!(world.policy.poll_event(), None);
    let failover =
        Command { pool: "passwords".to_owned(), ask: Ask::Failover { to: None, force: false, reset: false } };
    world.policy.handle_command(&failover, Moment::ZERO).unwrap();
    assert_eq!(world.view().since, world.now);
}
