//! What clients' own connection attempts that failed say about their backend.

mod that_asks_for_a_probe;
mod that_counts;

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

fn of_pool(pool: usize, flow: u64) -> LiveFailure {
    LiveFailure {
        pool: PoolIndex(pool),
        service: ServiceIndex(0),
        backend: BackendIndex(P),
        what: LiveKind::Unanswered,
        flow,
        answered: None,
    }
}

/// 180 targets, all of which are due; few of them may start now, and those have.
fn crowded(passive: Passive) -> (Policy, Moment) {
    let mut settings: Vec<_> = (0..60)
        .map(|n| PoolSettings { name: format!("pool{n}"), passive, ..trio(Failback::Manual) })
        .collect();
    for pool in &mut settings {
        pool.services[0].probe = Some(ProbeSchedule { interval: millis(100), ..PROBE });
    }
    let mut policy = Policy::new(settings, 1, History::default(), Moment::ZERO);
    let mut now = Moment::ZERO + millis(100);
    policy.handle_timeout(now);
    while let Some(ticket) = policy.poll_probe() {
        policy.handle_signal(ticket, Signal::Good, now);
    }
    now = now + millis(150);
    policy.handle_timeout(now);
    let started = std::iter::from_fn(|| policy.poll_probe()).count();
    assert!(started < 20, "{started}");
    (policy, now)
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
