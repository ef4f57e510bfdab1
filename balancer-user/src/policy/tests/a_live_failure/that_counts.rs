//! With `passive = "count"`: as a failed probe does, if it can't be a forgery or a packet lost on the way.

use super::*;

#[test]
fn is_one_failure_of_its_service_and_says_so() {
    let mut world = rarely_probed(Passive::Count, 1);
    world.fail(failed(&world, 1, None));
    assert_eq!(world.active(), Some(P), "one flow alone says nothing");
    world.fail(failed(&world, 2, None));
    assert_eq!(world.active(), Some(B));
    assert_eq!(world.view().backends[P].health, Health::Down);
    let told: Vec<_> = world
        .events()
        .filter_map(|(_, event)| match event {
            Event::Health { to: Health::Down, reason, .. } => reason.clone(),
            Event::Transition { evidence, reason: ActiveReason::BackendDown, .. } => Some(evidence.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["web: live traffic: connection refused, 2 flows"; 2]);
}

/// When in ms, by which flow, and how long ago the backend had answered.
type Attempt = (u64, u64, Option<Duration>);

#[test]
fn needs_two_flows_and_a_backend_that_answers_nobody() {
    let ms = |n| Some(millis(n));
    let table: &[(&str, &[Attempt], usize)] = &[
        ("one flow, however often", &[(0, 1, None), (50, 1, None), (400, 1, None)], 0),
        ("two flows", &[(0, 1, None), (1, 2, None)], 1),
        ("two at once", &[(0, 1, None), (0, 2, None)], 1),
        ("long apart", &[(0, 1, None), (20_000, 2, None)], 1),
        ("answered just now", &[(0, 1, ms(99)), (0, 2, ms(99))], 0),
        ("answered a tick less than 100 ms ago", &[(0, 1, ms(50)), (49, 2, ms(99))], 0),
        ("answered 100 ms ago", &[(0, 1, ms(50)), (50, 2, ms(100))], 1),
        ("answered between them", &[(0, 1, None), (200, 2, ms(150))], 0),
        ("answered when the first failed", &[(0, 1, None), (200, 2, ms(200))], 0),
        ("answered between, and two behind", &[(0, 1, None), (200, 2, ms(150)), (210, 3, ms(160))], 1),
        ("a third one that is one of two", &[(0, 1, ms(10)), (10, 2, ms(20)), (150, 1, ms(160))], 1),
        ("an answer to come", &[(0, 1, None), (1, 2, ms(0))], 0),
        ("four flows at once", &[(0, 1, None), (0, 2, None), (0, 3, None), (0, 4, None)], 1),
        ("a tick too early", &[(0, 1, None), (0, 2, None), (0, 3, None), (299, 4, None)], 1),
        ("a connect_timeout later", &[(0, 1, None), (0, 2, None), (0, 3, None), (300, 4, None)], 2),
        ("only one since then", &[(0, 1, None), (0, 2, None), (300, 3, None), (600, 3, None)], 1),
    ];
    for (what, script, counted) in table {
        let mut world = set_up(Passive::Count, |pool| {
            let probe = ProbeSchedule { interval: secs(30), fast_interval: secs(30), ..PROBE };
            pool.services[0].probe = Some(probe);
            pool.backends[P] = BackendSettings { max_fails: 100, fail_timeout: secs(60), ..backend("p") };
        });
        let start = world.now;
        for (at, flow, quiet_for) in *script {
            world.run(start + millis(*at) - world.now);
            world.fail(failed(&world, *flow, *quiet_for));
        }
        assert_eq!(world.view().backends[P].fails, *counted, "{what}");
    }
}

#[test]
fn fills_the_window_together_with_probes() {
    let mut world = rarely_probed(Passive::Count, 2);
    (1..=2).for_each(|flow| world.fail(failed(&world, flow, None)));
    assert_eq!((world.active(), world.view().backends[P].fails), (Some(P), 1));
    world.set(0, P, Condition::Refusing);
    world.run(PROBE.fast_interval + millis(5));
    assert_eq!(world.active(), Some(B), "a suspect is asked soon");
}

#[test]
fn of_a_backend_that_is_down_changes_nothing() {
    let mut world = rarely_probed(Passive::Count, 1);
    world.fail(failed(&world, 1, None));
    world.set(0, P, Condition::Silent);
    (2..=3).for_each(|flow| world.fail(failed(&world, flow, None)));
    let until = world.now + FAIL_TIMEOUT;
    for flow in 4..100 {
        world.run(millis(100));
        world.fail(failed(&world, flow, None));
    }
    assert_eq!((world.view().backends[P].health, world.view().backends[P].fails), (Health::Down, 1));
    // Nor is anything of that remembered.
    world.run(until - world.now);
    assert_eq!(world.view().backends[P].health, Health::Probation);
    world.fail(failed(&world, 100, None));
    assert_eq!(world.view().backends[P].health, Health::Probation);
    world.fail(failed(&world, 101, None));
    assert_eq!(world.view().backends[P].health, Health::Down, "as a failed probe would");
}

/// Nobody may be able to answer such a client.
#[test]
fn counts_against_the_first_backend_of_an_attempt_alone() {
    let mut world = set_up(Passive::Count, |_| ());
    let again = |flow| LiveFailure { what: LiveKind::UnansweredAgain, ..failed(&world, flow, None) };
    let failures = [again(1), again(2), again(3)];
    failures.into_iter().for_each(|failure| world.fail(failure));
    assert_eq!((world.active(), world.view().backends[P].fails), (Some(P), 0));
}

#[test]
fn is_forgotten_when_its_backend_goes_down() {
    let mut world = set_up(Passive::Count, |_| ());
    world.fail(failed(&world, 1, None));
    world.set(0, P, Condition::Refusing);
    while world.view().backends[P].health != Health::Down {
        world.run(millis(100));
    }
    world.fail(failed(&world, 2, None));
    world.set(0, P, Condition::Silent);
    world.run(world.view().backends[P].since + FAIL_TIMEOUT - world.now);
    world.fail(failed(&world, 3, None));
    assert_eq!(world.view().backends[P].health, Health::Probation);
}

#[test]
fn lets_no_probe_start_that_waited_for_its_turn() {
    let (mut policy, mut now) = crowded(Passive::Count);
    (1..=2).for_each(|flow| policy.handle_live(of_pool(59, flow), now));
    let health = |policy: &Policy, now| policy.snapshot(PoolIndex(59), now).backends[P].health;
    assert_eq!(health(&policy, now), Health::Down);
    for _ in 0..100 {
        while let Some(ticket) = policy.poll_probe() {
            assert!((ticket.pool.0, ticket.backend.0) != (59, P), "{ticket:?} at {now:?}");
            policy.handle_signal(ticket, Signal::Good, now);
        }
        now = now + millis(5);
        policy.handle_timeout(now);
    }
    assert_eq!(health(&policy, now), Health::Down);
}

/// A probe that began before the backend went down doesn't revive it, nor does it delay the end of its time down.
#[test]
fn outdates_the_probe_in_flight() {
    for condition in [Condition::Fine, Condition::Silent, Condition::Lost] {
        let mut world = set_up(Passive::Count, |pool| {
            pool.backends[P].fail_timeout = millis(1);
            pool.backends[P].fail_timeout_max = millis(1);
        });
        world.set(0, P, condition);
        while world.probes_of(P).last() != Some(&world.now) {
            world.run(TICK.max(world.policy.poll_timeout().unwrap() - world.now));
        }
        (1..=2).for_each(|flow| world.fail(failed(&world, flow, None)));
        world.set(0, P, Condition::Lost);
        assert_eq!(world.view().backends[P].health, Health::Down);
        world.run(millis(1));
        assert_eq!(world.view().backends[P].health, Health::Probation, "{condition:?}");
        world.run(secs(2));
        assert_eq!(world.view().backends[P].health, Health::Probation, "{condition:?}");
    }
}

#[test]
fn tells_of_a_service_that_is_not_probed() {
    let mut world = set_up(Passive::Count, |pool| pool.services[0].probe = None);
    assert_eq!(world.view().backends[P].health, Health::Unknown);
    (1..=2).for_each(|flow| world.fail(failed(&world, flow, None)));
    assert_eq!((world.active(), world.view().backends[P].health), (Some(B), Health::Down));
    world.run(FAIL_TIMEOUT - TICK);
    assert_eq!(world.view().backends[P].health, Health::Down);
    world.run(TICK);
    let view = &world.view().backends[P];
    assert_eq!((view.health, view.fails, view.reason.as_deref()), (Health::Unknown, 0, None));
    assert_eq!(world.active(), Some(B));
}

/// What nobody asks for doesn't make the backend unknown.
#[test]
fn of_a_service_that_is_not_probed_counts_beside_one_that_is() {
    let mut world = set_up(Passive::Count, |pool| {
        pool.services.push(ServiceSettings { name: "sync".to_owned(), probe: None });
    });
    assert_eq!(world.view().backends[P].health, Health::Up);
    let failed = |flow| LiveFailure { service: ServiceIndex(1), ..failed(&world, flow, None) };
    let failures = [failed(1), failed(2)];
    failures.into_iter().for_each(|failure| world.fail(failure));
    let view = &world.view().backends[P];
    assert_eq!(view.reason.as_deref(), Some("sync: live traffic: connection refused, 2 flows"));
    assert_eq!((world.active(), view.health), (Some(B), Health::Down));
    world.run(FAIL_TIMEOUT);
    assert_eq!(world.view().backends[P].health, Health::Up);
    assert_eq!(world.view().backends[P].reason, None);
}
