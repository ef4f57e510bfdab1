//! With `passive = "probe"`: past all pacing, and no more often than `fast_interval`.

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

/// Clients of two services, who go on failing; those of the first one more often.
#[test]
fn has_one_per_fast_interval_whatever_the_service_and_these_take_turns() {
    let mut world = set_up(Passive::Probe, |pool| {
        let probe = Some(ProbeSchedule { interval: secs(60), ..PROBE });
        pool.services =
            vec![ServiceSettings { probe, ..service("web") }, ServiceSettings { probe, ..service("sync") }];
    });
    let (from, begun) = (world.now, world.log.len());
    for flow in 0..100 {
        let failure = failed(&world, flow, None);
        world.fail(failure);
        world.fail(LiveFailure { service: ServiceIndex(1), ..failure });
        world.fail(failure);
        world.run(millis(13));
    }
    let fast = PROBE.fast_interval;
    assert_eq!(since(&world, from), [Duration::ZERO, fast, fast * 2]);
    let service = |(_, entry): &(Moment, Entry)| match entry {
        Entry::Probe(id) if id.backend.0 == P => Some(id.service.0),
        _ => None,
    };
    let services: Vec<_> = world.log[begun..].iter().filter_map(service).collect();
    assert_eq!(services, [0, 1, 0]);
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

/// One service is down, and so is the backend: the other one, which is up, isn't asked either.
#[test]
fn changes_nothing_at_a_backend_that_is_down_by_another_service() {
    let mut world = set_up(Passive::Probe, |pool| {
        let probe = ProbeSchedule { interval: secs(60), ..PROBE };
        pool.services.push(ServiceSettings { probe: Some(probe), ..service("sync") });
    });
    while world.probes_of(P).len() < 5 {
        world.run(secs(1));
    }
    world.set(0, P, Condition::Refusing);
    while world.view().backends[P].health != Health::Down {
        world.run(millis(100));
    }
    let entries = world.log.len();
    world.fail(LiveFailure { service: ServiceIndex(1), ..failed(&world, 1, None) });
    assert_eq!(world.log.len(), entries);
}

/// However many wait for their turn.
#[test]
fn overtakes_the_others() {
    let (mut policy, now) = crowded(Passive::Probe);
    (40..50).for_each(|pool| policy.handle_live(of_pool(pool, 1), now));
    let urgent: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).map(|ticket| ticket.pool.0).collect();
    assert_eq!(urgent, (40..50).collect::<Vec<_>>());
}

#[test]
fn leaves_the_others_every_other_turn() {
    let (mut policy, now) = crowded(Passive::Probe);
    let now = now + millis(20);
    (40..50).for_each(|pool| policy.handle_live(of_pool(pool, 1), now));
    let started: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).take(10).collect();
    let is_urgent =
        |ticket: &&ProbeTicket| (40..50).contains(&ticket.pool.0) && ticket.backend == BackendIndex(P);
    assert_eq!((started.len(), started.iter().filter(is_urgent).count()), (10, 5));
}
