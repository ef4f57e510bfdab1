//! What clients' own connection attempts that failed say about their backend.

use super::*;

/// Of the first service at P, by this flow; P last answered so long ago.
fn failed(world: &World, flow: u64, quiet_for: Option<Duration>) -> LiveFailure {
    LiveFailure {
        pool: PoolIndex(0),
        service: ServiceIndex(0),
        backend: BackendIndex(P),
        what: LiveKind::Refused,
        flow,
        answered: quiet_for.map(|span| world.now.before(span)),
    }
}

fn set_up(passive: Passive, change: impl FnOnce(&mut PoolSettings)) -> World {
    let mut pool = PoolSettings { passive, ..trio(Failback::Manual) };
    change(&mut pool);
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    world
}

/// Probes every 30 s: they can't help.
fn rarely_probed(passive: Passive, max_fails: u32) -> World {
    set_up(passive, |pool| {
        let probe = ProbeSchedule { interval: secs(30), ..PROBE };
        pool.services.iter_mut().for_each(|service| service.probe = Some(probe));
        pool.backends[P].max_fails = max_fails;
    })
}

mod that_asks_for_a_probe {
    use super::*;

    fn since(world: &World, from: Moment) -> Vec<Duration> {
        world.probes_of(P).into_iter().filter(|at| *at >= from).map(|at| at - from).collect()
    }

    #[test]
    fn has_it_at_once_and_the_pool_moves_by_what_it_says() {
        let mut world = rarely_probed(Passive::Probe, 1);
        world.set(0, P, Condition::Refusing);
        let from = world.now;
        world.fail(failed(&world, 1, None));
        assert_eq!(since(&world, from), [Duration::ZERO]);
        world.run(millis(5));
        assert_eq!(world.active(), Some(B));
        assert_eq!(world.view().backends[P].reason.as_deref(), Some("web: refused"));
    }

    #[test]
    fn has_one_per_fast_interval_at_most_and_none_is_forgotten() {
        let mut world = rarely_probed(Passive::Probe, 1);
        let from = world.now;
        for flow in 0..100 {
            world.fail(failed(&world, flow, None));
            world.run(millis(13));
        }
        world.run(secs(2));
        let fast = PROBE.fast_interval;
        assert_eq!(since(&world, from), [Duration::ZERO, fast, fast * 2, fast * 3]);
        assert_eq!(world.active(), Some(P));
    }

    /// It began before the client failed, and may have seen what was then.
    #[test]
    fn waits_for_the_probe_in_flight_and_asks_again_if_that_ends_well() {
        for (condition, probes) in [(Condition::Fine, 2), (Condition::Refusing, 1)] {
            let mut world = set_up(Passive::Probe, |pool| pool.backends[P].max_fails = 0);
            while world.probes_of(P).last() != Some(&world.now) {
                world.run(TICK.max(world.policy.poll_timeout().unwrap() - world.now));
                world.set(0, P, condition);
            }
            world.set(0, P, Condition::Fine);
            let from = world.now;
            world.fail(failed(&world, 1, None));
            assert_eq!(since(&world, from).len(), 1);
            world.run(millis(5));
            assert_eq!(since(&world, from).len(), probes, "the one in flight ended {condition:?}");
        }
    }

    #[test]
    fn changes_nothing_at_a_backend_that_rests_or_is_not_probed() {
        let mut down = rarely_probed(Passive::Probe, 1);
        down.set(0, P, Condition::Refusing);
        down.fail(failed(&down, 1, None));
        down.run(secs(5));
        let disabled = set_up(Passive::Probe, |pool| pool.backends[P].disabled = true);
        let unprobed = set_up(Passive::Probe, |pool| pool.services[0].probe = None);
        let cold = set_up(Passive::Probe, |pool| {
            pool.backends[P].cold = true;
            pool.backends[P].backup = true;
        });
        for mut world in [down, disabled, unprobed, cold] {
            let (before, entries) = (world.view(), world.log.len());
            for flow in 0..10 {
                world.fail(failed(&world, flow, None));
            }
            assert_eq!((world.view(), world.log.len()), (before, entries));
        }
    }

    /// However many wait for their turn.
    #[test]
    fn overtakes_the_others_which_have_every_other_turn() {
        let mut settings: Vec<_> =
            (0..60).map(|n| PoolSettings { name: format!("pool{n}"), ..trio(Failback::Manual) }).collect();
        for pool in &mut settings {
            pool.services[0].probe = Some(ProbeSchedule { interval: millis(100), ..PROBE });
        }
        let mut policy = Policy::new(settings, 1, History::default(), Moment::ZERO);
        let mut now = Moment::ZERO + millis(100);
        policy.handle_timeout(now);
        while let Some(ticket) = policy.poll_probe() {
            policy.handle_signal(ticket, Signal::Good, now);
        }
        // All are due, and the pacer lets a few start.
        now = now + millis(150);
        policy.handle_timeout(now);
        let first: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).collect();
        assert!(first.len() < 20, "{}", first.len());
        for pool in 40..50 {
            let failure = LiveFailure {
                pool: PoolIndex(pool),
                service: ServiceIndex(0),
                backend: BackendIndex(P),
                what: LiveKind::Unanswered,
                flow: 7,
                answered: None,
            };
            policy.handle_live(failure, now);
        }
        let urgent: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).map(|ticket| ticket.pool.0).collect();
        assert_eq!(urgent, (40..50).collect::<Vec<_>>());
    }
}

mod that_counts {
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
                Event::Transition { evidence, reason: ActiveReason::BackendDown, .. } => {
                    Some(evidence.clone())
                }
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
        for failback in [Failback::Manual, Failback::Auto { delay: Duration::ZERO }] {
            let mut world = set_up(Passive::Count, |pool| {
                pool.failback = failback;
                pool.services[0].probe = None;
            });
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
}

#[test]
fn changes_nothing_when_nobody_wants_to_know() {
    let mut world = rarely_probed(Passive::Off, 1);
    let (before, entries) = (world.view(), world.log.len());
    (0..10).for_each(|flow| world.fail(failed(&world, flow, None)));
    assert_eq!((world.view(), world.log.len()), (before, entries));
}

#[test]
fn of_nobody_known_changes_nothing() {
    for passive in [Passive::Probe, Passive::Count] {
        let mut world = rarely_probed(passive, 1);
        let (before, entries) = (world.view(), world.log.len());
        for flow in 0..4 {
            let failure = failed(&world, flow, None);
            world.fail(LiveFailure { pool: PoolIndex(7), ..failure });
            world.fail(LiveFailure { service: ServiceIndex(7), ..failure });
            world.fail(LiveFailure { backend: BackendIndex(7), ..failure });
        }
        assert_eq!((world.view(), world.log.len()), (before, entries));
    }
}
