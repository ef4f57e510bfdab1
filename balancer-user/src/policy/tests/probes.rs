//! When probes start: spread, bounded, never later than promised.

use super::*;

fn crowd(pools: usize) -> Vec<PoolSettings> {
    (0..pools).map(|n| PoolSettings { name: format!("pool{n}"), ..trio(Failback::Manual) }).collect()
}

/// [36] An interval is never longer than promised and at most a tenth shorter, once the phases are spread.
#[test]
fn keep_their_interval() {
    let mut world = manual();
    world.run(secs(600));
    for b in [P, B, C] {
        let gaps: Vec<_> = world.probes_of(b).windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= PROBE.interval), "{gaps:?}");
        assert!(gaps[2..].iter().any(|gap| *gap != gaps[1]), "in lockstep: {gaps:?}");
        assert!(gaps[1..].iter().all(|gap| *gap > PROBE.interval * 9 / 10), "{gaps:?}");
    }
}

/// [36]
#[test]
fn start_together_and_are_spread_over_the_interval_from_then_on() {
    let mut world = World::new(crowd(20), 3);
    let probes = |world: &World| -> Vec<Moment> {
        let probe = |(at, entry): &(Moment, Entry)| matches!(entry, Entry::Probe(_)).then_some(*at);
        world.log.iter().filter_map(probe).collect()
    };
    world.run(millis(60));
    let first: Vec<_> = probes(&world);
    assert!(first.len() >= 60, "{first:?}");
    assert!(first.windows(2).all(|pair| pair[1] - pair[0] <= millis(1)), "{first:?}");
    assert!(first[10] > first[0], "all in one moment");
    world.run(PROBE.interval + millis(40));
    let tenth = PROBE.interval / 10;
    let busiest = (0..10u32)
        .map(|n| {
            let from = Moment::ZERO + millis(100) + tenth * n;
            probes(&world).into_iter().filter(|at| *at >= from && *at < from + tenth).count()
        })
        .max();
    assert!(busiest <= Some(15), "{busiest:?} of 60 targets in a tenth of the interval");
}

/// 500 targets, every 2 s.
fn load() -> Vec<PoolSettings> {
    let pool = |n| PoolSettings {
        name: format!("pool{n}"),
        backends: (0..4)
            .map(|b| BackendSettings { max_fails: 3, ..backend(&format!("server{b}")) })
            .collect(),
        ..trio(Failback::Manual)
    };
    (0..125).map(pool).collect()
}

/// When the probes of that load start within two minutes, of which all of them end like this from 10 s to 40 s. Without
/// the laws: they look at each pool after each probe.
fn starts(ill: &(Duration, Signal)) -> Vec<Moment> {
    let mut policy = Policy::new(load(), 36, History::default(), Moment::ZERO);
    let mut flights = std::collections::BTreeMap::new();
    let mut starts = Vec::new();
    let mut now = Moment::ZERO;
    while now < Moment::ZERO + secs(120) {
        while policy.poll_decision().is_some() || policy.poll_event().is_some() {}
        while let Some(ticket) = policy.poll_probe() {
            let is_ill = (secs(10)..secs(40)).contains(&(now - Moment::ZERO));
            let (took, signal) = if is_ill { ill.clone() } else { (millis(2), Signal::Good) };
            flights.insert((now + took, ticket), signal);
            starts.push(now);
        }
        let landing = flights.keys().next().map(|(at, _)| *at);
        now = policy.poll_timeout().into_iter().chain(landing).min().unwrap().max(now);
        if landing == Some(now) {
            let ((_, ticket), signal) = flights.pop_first().unwrap();
            policy.handle_signal(ticket, signal, now);
        } else {
            policy.handle_timeout(now);
        }
    }
    starts
}

/// The most starts within 100 ms, wherever they begin.
fn busiest(starts: &[Moment]) -> usize {
    let within = |first: &Moment| starts.partition_point(|at| *at < *first + millis(100));
    starts.iter().enumerate().map(|(nth, first)| within(first) - nth).max().unwrap_or(0)
}

/// [36] Of 250 starts a second 25 are in a tenth of it on the average; the first round alone is all at once.
#[test]
fn never_start_twice_as_often_as_on_the_average() {
    let bad = |why: &str| Signal::Bad(why.to_owned());
    let ends =
        [(millis(2), Signal::Good), (millis(1), bad("refused")), (PROBE.timeout, bad("connect_timeout"))];
    for ill in &ends {
        let starts = starts(ill);
        let after = |span: Duration| &starts[starts.partition_point(|at| *at < Moment::ZERO + span)..];
        let most = busiest(after(secs(1)));
        assert!((30..=50).contains(&most), "{most} starts in 100 ms, all of them {ill:?} for 30 s");
        // They are only kept apart, not kept back: all have their interval again.
        let last = after(secs(110)).len();
        assert!((2500..=2800).contains(&last), "{last} starts of 500 targets in the last 10 s");
    }
}

/// Whatever the settings, a backend that refuses at once doesn't make the probes go round as fast as they can.
#[test]
fn without_a_time_down_still_have_a_smallest_gap() {
    let mut pool = trio(Failback::Manual);
    pool.backends[P].fail_timeout = Duration::ZERO;
    let mut world = starting_with(pool, &[(P, Condition::Refusing)]);
    world.run(secs(1));
    assert!(world.probes_of(P).len() <= 101, "{} probes in a second", world.probes_of(P).len());
}

/// [36]
#[test]
fn are_bounded_over_all_and_each_target_has_its_turn() {
    let mut policy = Policy::new(crowd(256), 1, History::default(), Moment::ZERO);
    let mut now = Moment::ZERO + millis(100);
    policy.handle_timeout(now);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 256 * 3 {
        let tickets: Vec<_> = std::iter::from_fn(|| policy.poll_probe()).collect();
        assert_eq!(tickets.len(), MAX_IN_FLIGHT.min(256 * 3 - seen.len()), "{} seen", seen.len());
        now = now + millis(10);
        for ticket in tickets {
            assert!(seen.insert(ticket.target()), "{ticket:?} twice before all had their turn");
            policy.handle_signal(ticket, Signal::Good, now);
        }
    }
}

#[test]
fn rest_while_down_and_the_first_one_after_it_comes_at_once() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(40));
    let health: Vec<_> = world
        .events()
        .filter_map(|(at, event)| match event {
            Event::Health { backend: BackendIndex(P), to, .. } => Some((at, *to)),
            _ => None,
        })
        .collect();
    let probes = world.probes_of(P);
    let downs = health.iter().filter(|(_, to)| *to == Health::Down);
    for (down, _) in downs.filter(|(down, _)| *down + FAIL_TIMEOUT < world.now) {
        let next = probes.iter().find(|at| *at > down).unwrap();
        assert_eq!(*next - *down, FAIL_TIMEOUT);
    }
    assert!(health.len() >= 6, "{health:?}");
}

#[test]
fn in_probation_come_fast_until_rise() {
    let mut pool = trio(Failback::Manual);
    pool.services[0].probe = Some(ProbeSchedule { rise: 4, ..PROBE });
    let mut world = starting_with(pool, &[(P, Condition::Refusing)]);
    world.run(secs(5));
    world.set(0, P, Condition::Fine);
    world.run(secs(7));
    let trial: Vec<_> = world.probes_of(P).into_iter().skip(1).take(4).collect();
    assert!(trial.windows(2).all(|pair| pair[1] - pair[0] <= PROBE.fast_interval), "{trial:?}");
    assert_eq!(world.view().backends[P].health, Health::Up);
    assert_eq!(world.view().backends[P].since, trial[3] + millis(2));
}

#[test]
fn that_never_report_are_repeated_and_told() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Lost);
    world.run(secs(60));
    let lost = world.events().filter(|(_, event)| matches!(event, Event::ProbeLost { .. })).count();
    assert!((15..=20).contains(&lost), "{lost} in a minute, at one per 3 s");
    assert_eq!(world.active(), Some(P), "the prober's fault counts against nobody");
}
