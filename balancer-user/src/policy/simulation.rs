//! Hours of failures in milliseconds: a seed makes a script, the script drives the policy, laws are checked after every
//! input.
//!
//! The claims in `tests` live in the same `World`. A failing seed is printed and fails again. `BALANCER_SIM_RUNS` asks for
//! more runs than a test should take.

mod laws;
mod world;

use std::time::Duration;

use super::schedule::Dice;
use super::*;

pub(super) use self::world::{Condition, Entry, World};

/// A number below `end`, from the script's dice.
fn pick(dice: &mut Dice, end: u64) -> u64 {
    dice.roll() % end
}

fn settings_from(dice: &mut Dice) -> Vec<PoolSettings> {
    let millis = |dice: &mut Dice, from: u64, to: u64| Duration::from_millis(from + pick(dice, to - from));
    let count = 1 + pick(dice, 3);
    let mut pool = |n: u64| PoolSettings {
        name: format!("pool{n}"),
        failback: match pick(dice, 3) {
            0 => Failback::Manual,
            1 => Failback::Auto { delay: Duration::ZERO },
            _ => Failback::Auto { delay: millis(dice, 0, 20_000) },
        },
        services: (0..1 + pick(dice, 4) / 2)
            .map(|s| {
                let interval = millis(dice, 500, 4000);
                let probe = ProbeSchedule {
                    interval,
                    fast_interval: interval / 4,
                    timeout: millis(dice, 100, 2000),
                    rise: 1 + u32::try_from(pick(dice, 3)).unwrap(),
                };
                ServiceSettings { name: format!("service{s}"), probe: (pick(dice, 12) > 0).then_some(probe) }
            })
            .collect(),
        backends: (0..1 + pick(dice, 4))
            .map(|b| BackendSettings {
                name: format!("server{b}"),
                max_fails: u32::try_from(pick(dice, 4)).unwrap(),
                fail_timeout: millis(dice, 0, 15_000),
                backup: pick(dice, 3) == 0,
                disabled: b > 0 && pick(dice, 6) == 0,
            })
            .collect(),
    };
    (0..count).map(&mut pool).collect()
}

fn act(world: &mut World, dice: &mut Dice) {
    let pool = usize::try_from(pick(dice, world.settings.len() as u64)).unwrap();
    let backend = usize::try_from(pick(dice, world.settings[pool].backends.len() as u64)).unwrap();
    let names = &world.settings[pool];
    let (name, to) = (names.name.clone(), names.backends[backend].name.clone());
    match pick(dice, 16) {
        0..5 => world.set(pool, backend, Condition::Fine),
        5..8 => world.set(pool, backend, Condition::Refusing),
        8..11 => world.set(pool, backend, Condition::Silent),
        11 => world.set(pool, backend, Condition::Lost),
        12 => world.set(pool, backend, Condition::Ours),
        13 => world.freeze(dice.below(Duration::from_secs(20))),
        14 => {
            let to = (pick(dice, 2) == 0).then_some(to);
            let _ = world.command(&Command::Failover { pool: name, to, force: pick(dice, 3) == 0 });
        }
        _ => {
            let _ = world.command(&Command::Failback { pool: name });
        }
    }
    let longest = if pick(dice, 3) == 0 { 30 } else { 3 };
    world.run(dice.below(Duration::from_secs(longest)));
}

/// One life, ended by a long peace in which everything must come right again.
fn live(seed: u64) -> World {
    let mut dice = Dice::new(seed, 0);
    let settings = settings_from(&mut dice);
    let mut world = World::new(settings, seed);
    for _ in 0..40 {
        act(&mut world, &mut dice);
    }
    let settings = world.settings.clone();
    for (p, pool) in settings.iter().enumerate() {
        (0..pool.backends.len()).for_each(|b| world.set(p, b, Condition::Fine));
    }
    world.run(Duration::from_secs(120));
    for (p, pool) in settings.iter().enumerate() {
        let view = world.policy.snapshot(PoolIndex(p), world.now);
        let probed = pool.services.iter().any(|service| service.probe.is_some());
        for backend in view.backends.iter().filter(|backend| backend.admin == Admin::Ready && probed) {
            assert_eq!(backend.health, Health::Up, "pool {p} after the peace: {view:?}");
        }
        assert_eq!(view.state, PoolState::Serving);
        let ready = |backup| {
            (0..pool.backends.len())
                .find(|b| pool.backends[*b].backup == backup && !pool.backends[*b].disabled)
        };
        if pool.failback != Failback::Manual && view.wish == Wish::Automatic && probed {
            assert_eq!(
                view.active.map(|b| b.0),
                ready(false).or(ready(true)),
                "auto returns to the first eligible"
            );
        }
    }
    world
}

#[test]
fn the_laws_hold_in_every_life() {
    let runs = std::env::var("BALANCER_SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60);
    for seed in 0..runs {
        if let Err(broken) = std::panic::catch_unwind(|| live(seed)) {
            eprintln!("that was seed {seed}");
            std::panic::resume_unwind(broken);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..3 {
        assert_eq!(live(seed).log, live(seed).log);
    }
    assert_ne!(live(1).log, live(2).log);
}
