//! Failover: when, where to, and what happens when there is nowhere to go.

use super::*;

/// [33, 44]
#[test]
fn moves_to_the_first_eligible_and_manual_never_returns_by_itself() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(world.active(), Some(B));
    world.set(0, P, Condition::Fine);
    world.run(secs(3600));
    assert_eq!(world.view().backends[P].health, Health::Up);
    assert_eq!(reasons(&world), [ActiveReason::Initial, ActiveReason::BackendDown]);
}

#[test]
fn says_what_was_seen_last() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    let evidence = world.events().find_map(|(_, event)| match event {
        Event::Transition { reason: ActiveReason::BackendDown, evidence, .. } => Some(evidence.clone()),
        _ => None,
    });
    assert_eq!(evidence.as_deref(), Some("web: refused"));
    assert_eq!(world.view().backends[P].reason.as_deref(), Some("web: refused"));
}

/// The number: interval 500 ms, timeout 500 ms, `max_fails` 1, killed or silenced at any point of the cycle:
/// the others have the flows within 1.25 s.
#[test]
fn is_answered_within_an_interval_and_a_timeout() {
    for seed in 0..200 {
        let mut pool = trio(Failback::Manual);
        let probe = ProbeSchedule { interval: millis(500), timeout: millis(500), ..PROBE };
        pool.services[0].probe = Some(probe);
        let mut world = World::new(vec![pool], seed);
        world.run(secs(3) + millis(seed * 7));
        let killed = world.now;
        world.set(0, P, if seed % 2 == 0 { Condition::Silent } else { Condition::Refusing });
        world.run(secs(2));
        let (moved, _) = world
            .events()
            .find(|(at, event)| *at > killed && matches!(event, Event::Transition { .. }))
            .unwrap();
        assert!(moved - killed <= millis(1000), "seed {seed}: {:?}", moved - killed);
    }
}

#[test]
fn below_max_fails_moves_nothing_and_is_looked_at_faster() {
    let mut pool = trio(Failback::Manual);
    pool.backends[P].max_fails = 3;
    let mut world = World::new(vec![pool], 1);
    world.run(secs(10));
    world.set(0, P, Condition::Refusing);
    let from = world.now;
    world.run(secs(5));
    assert_eq!(world.active(), Some(B));
    let probes: Vec<_> = world.probes_of(P).into_iter().filter(|at| *at >= from).collect();
    assert_eq!(probes.len(), 3, "{probes:?}");
    assert!(probes.windows(2).all(|pair| pair[1] - pair[0] <= PROBE.fast_interval));
}

/// [47]
#[test]
fn of_one_service_moves_all_services_in_one_decision() {
    let mut pool = trio(Failback::Manual);
    pool.services.push(service("sync"));
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    let sick = |world: &World| world.policy.snapshot(PoolIndex(0), world.now).backends[P].health;
    assert_eq!(sick(&world), Health::Up);
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    let decisions = world.log.iter().filter(|(_, entry)| matches!(entry, Entry::Decision(_))).count();
    assert_eq!((world.active(), decisions), (Some(B), 2));
}

/// The other one stumbled once, which is no explanation.
#[test]
fn of_one_service_alone_takes_the_backend_down_and_explains_it() {
    let mut pool = trio(Failback::Manual);
    pool.services.push(service("sync"));
    pool.backends[P].max_fails = 2;
    let mut stumbled = false;
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let mut now = Moment::ZERO;
    for _ in 0..12 {
        while let Some(ticket) = policy.poll_probe() {
            let signal = match (ticket.backend, ticket.service) {
                (BackendIndex(P), ServiceIndex(1)) => Signal::Bad("refused".to_owned()),
                (BackendIndex(P), _) if !std::mem::replace(&mut stumbled, true) => {
                    Signal::Bad("slow".to_owned())
                }
                _ => Signal::Good,
            };
            policy.handle_signal(ticket, signal, now);
        }
        now = policy.poll_timeout().unwrap();
        policy.handle_timeout(now);
    }
    let view = policy.snapshot(PoolIndex(0), now);
    assert_eq!((view.backends[P].health, view.active), (Health::Down, Some(BackendIndex(B))));
    assert_eq!(view.backends[P].reason.as_deref(), Some("sync: refused"));
}

/// [35]
#[test]
fn of_all_keeps_the_last_active_and_alarms_once() {
    let mut world = manual();
    world.run(secs(5));
    [P, B, C].into_iter().for_each(|b| world.set(0, b, Condition::Silent));
    world.run(secs(300));
    assert_eq!(world.view().state, PoolState::AllDown);
    assert_eq!(alarms(&world), 1, "{:?}", world.events().collect::<Vec<_>>());
}

#[test]
fn of_all_ends_without_a_change_when_the_active_itself_recovers() {
    let mut world = manual();
    world.run(secs(5));
    [B, C].into_iter().for_each(|b| world.set(0, b, Condition::Refusing));
    world.run(secs(3));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    assert_eq!((world.active(), world.view().state), (Some(P), PoolState::AllDown));
    world.set(0, P, Condition::Fine);
    world.run(secs(15));
    assert_eq!((world.active(), world.view().state), (Some(P), PoolState::Serving));
    assert_eq!(reasons(&world), [ActiveReason::Initial]);
}

#[test]
fn of_all_ends_with_the_first_other_that_recovers() {
    let mut world = manual();
    world.run(secs(5));
    [P, B, C].into_iter().for_each(|b| world.set(0, b, Condition::Refusing));
    world.run(secs(5));
    let last = world.active();
    let other = if last == Some(C) { B } else { C };
    world.set(0, other, Condition::Fine);
    world.run(secs(15));
    assert_eq!((world.active(), world.view().state), (Some(other), PoolState::Serving));
    assert_eq!(world.transitions().last().copied(), Some((last, other, ActiveReason::BackendDown)));
}

#[test]
fn of_our_own_counts_against_nobody() {
    let mut world = manual();
    world.run(secs(5));
    [P, B, C].into_iter().for_each(|b| world.set(0, b, Condition::Ours));
    world.run(secs(60));
    assert_eq!((world.active(), world.view().backends[P].health), (Some(P), Health::Up));
}
