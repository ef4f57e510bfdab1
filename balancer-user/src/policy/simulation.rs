//! Hours of failures in milliseconds: a seed makes a script, the script drives the policy, laws are checked after every
//! input.
//!
//! The claims in `tests` live in the same `World`. A failing seed is printed and fails again: `BALANCER_SIM_FIRST` starts
//! there. `BALANCER_SIM_RUNS` asks for more runs than a test should take.

mod agreement;
mod attempts;
mod laws;
mod model;
mod reading;
mod replay;
mod steps;
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
        failover: if pick(dice, 4) == 0 { Failover::Manual } else { Failover::Auto },
        when_all_down: if pick(dice, 3) == 0 { WhenAllDown::Reject } else { WhenAllDown::Last },
        on_backend_down: if pick(dice, 2) == 0 { OnBackendDown::Keep } else { OnBackendDown::Reset },
        passive: passive_from(dice),
        connect_timeout: millis(dice, 1, 2000),
        start_timeout: millis(dice, 500, 20_000),
        drain_deadline: millis(dice, 100, 30_000),
        hooks: (0..pick(dice, 2) * pick(dice, 4)).map(|_| hook_from(dice)).collect(),
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
                fail_timeout_max: if pick(dice, 3) == 0 { Duration::from_secs(40) } else { Duration::ZERO },
                backup: pick(dice, 3) == 0,
                cold: pick(dice, 8) == 0,
                disabled: b > 0 && pick(dice, 6) == 0,
            })
            .collect(),
    };
    (0..count).map(&mut pool).collect()
}

fn passive_from(dice: &mut Dice) -> Passive {
    match pick(dice, 5) {
        0 | 1 => Passive::Probe,
        2 | 3 => Passive::Count,
        _ => Passive::Off,
    }
}

fn hook_from(dice: &mut Dice) -> HookSettings {
    HookSettings {
        name: "step".to_owned(),
        when: if pick(dice, 3) == 0 { HookWhen::After } else { HookWhen::Before },
        on_error: if pick(dice, 3) == 0 { OnError::Continue } else { OnError::Hold },
    }
}

/// What an operator may come to ask.
fn ask_from(dice: &mut Dice, backend: String) -> Ask {
    let force = pick(dice, 3) == 0;
    match pick(dice, 9) {
        0 | 1 => {
            Ask::Failover { to: (pick(dice, 2) == 0).then_some(backend), force, reset: pick(dice, 2) == 0 }
        }
        2 => Ask::Failback,
        3 => {
            let deadline = (pick(dice, 2) == 0).then(|| dice.below(Duration::from_secs(20)));
            Ask::Withdraw { backend, how: Withdrawal::Drain { deadline }, force }
        }
        4 => Ask::Withdraw { backend, how: Withdrawal::Maint, force },
        5 | 6 => Ask::PutBack { backend },
        _ => Ask::Resume { skip: force },
    }
}

/// A few clients try in vain, some of them more than once.
fn clients_fail(world: &mut World, dice: &mut Dice, pool: usize, backend: usize) {
    for _ in 0..pick(dice, 8) {
        let service = usize::try_from(pick(dice, world.settings[pool].services.len() as u64)).unwrap();
        world.fail_at(pool, backend, service, pick(dice, 3));
        world.run(dice.below(Duration::from_millis(300)));
    }
}

fn act(world: &mut World, dice: &mut Dice) {
    let pool = usize::try_from(pick(dice, world.settings.len() as u64)).unwrap();
    let backend = usize::try_from(pick(dice, world.settings[pool].backends.len() as u64)).unwrap();
    let names = &world.settings[pool];
    let (name, to) = (names.name.clone(), names.backends[backend].name.clone());
    match pick(dice, 26) {
        0..5 => world.set(pool, backend, Condition::Fine),
        5..8 => world.set(pool, backend, Condition::Refusing),
        8..11 => world.set(pool, backend, Condition::Silent),
        11 => world.set(pool, backend, Condition::Lost),
        12 => world.set(pool, backend, Condition::Ours),
        13 => world.freeze(dice.below(Duration::from_secs(20))),
        14 => world.hooks_take(dice.below(Duration::from_secs(5)), pick(dice, 2) == 0),
        15 => world.cuts_take(dice.below(Duration::from_secs(15))),
        16 => world.restart(),
        17 => {
            let services = world.settings[pool].services.len() as u64;
            world.prove(pool, backend, usize::try_from(pick(dice, services)).unwrap());
        }
        18..21 => clients_fail(world, dice, pool, backend),
        _ => {
            let _ = world.command(&Command { pool: name, ask: ask_from(dice, to) });
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
    make_peace(&mut world);
    for (p, pool) in world.settings.iter().enumerate() {
        let view = world.policy.snapshot(PoolIndex(p), world.now);
        let probed = pool.services.iter().any(|service| service.probe.is_some());
        for (backend, settings) in view.backends.iter().zip(&pool.backends) {
            if !settings.disabled && !settings.cold && probed {
                assert_eq!(backend.health, Health::Up, "pool {p} after the peace: {view:?}");
            }
        }
        assert_eq!(view.state, PoolState::Serving, "pool {p} after the peace: {view:?}");
        assert_eq!(view.transition, None, "pool {p} after the peace");
        let ready = |backup| {
            let suits = |b: &BackendSettings| b.backup == backup && !b.disabled && !b.cold;
            pool.backends.iter().position(suits)
        };
        let first = ready(false).or(ready(true));
        let on_cold = view.active.is_some_and(|active| pool.backends[active.0].cold);
        if pool.failback != Failback::Manual && view.wish == Wish::Automatic && probed && !on_cold {
            assert_eq!(view.active.map(|b| b.0), first, "auto returns to the first eligible: {view:?}");
        }
    }
    world
}

/// Everything is repaired, and the operator cleans up.
fn make_peace(world: &mut World) {
    world.hooks_take(Duration::from_millis(10), true);
    world.cuts_take(Duration::from_millis(10));
    let settings = world.settings.clone();
    for (p, pool) in settings.iter().enumerate() {
        (0..pool.backends.len()).for_each(|b| world.set(p, b, Condition::Fine));
    }
    world.run(Duration::from_secs(60));
    // Each of these may begin a change, and may then be refused for another backend.
    for _ in 0..4 {
        for (p, pool) in settings.iter().enumerate() {
            let ask = |ask| Command { pool: pool.name.clone(), ask };
            for _ in 0..2 * pool.hooks.len() + 3 {
                if world.policy.snapshot(PoolIndex(p), world.now).state == PoolState::Held {
                    // Flows that are left can't be skipped.
                    let skipped = world.command(&ask(Ask::Resume { skip: true }));
                    let _ = skipped.or_else(|_| world.command(&ask(Ask::Resume { skip: false })));
                    world.run(Duration::from_secs(30));
                }
            }
            for backend in &pool.backends {
                let _ = world.command(&ask(Ask::PutBack { backend: backend.name.clone() }));
            }
            if world.policy.snapshot(PoolIndex(p), world.now).state == PoolState::Waiting {
                let _ = world.command(&ask(Ask::Failback));
            }
        }
        world.run(Duration::from_secs(60));
        clients_come(world);
    }
}

/// Whoever is on trial has it, until nobody is.
fn clients_come(world: &mut World) {
    for p in 0..world.settings.len() {
        while let Some((service, backend)) = world.policy.trials(PoolIndex(p)).first().copied() {
            world.prove(p, backend.0, service.0);
        }
    }
    world.run(Duration::from_secs(60));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `runs` lives, or as many as are asked for.
fn in_every_life<T>(runs: u64, live: impl Fn(u64) -> T + std::panic::RefUnwindSafe) {
    let runs = number("BALANCER_SIM_RUNS").unwrap_or(runs);
    let first = number("BALANCER_SIM_FIRST").unwrap_or(0);
    for seed in first..first + runs {
        if let Err(broken) = std::panic::catch_unwind(|| live(seed)) {
            eprintln!("that was seed {seed}");
            std::panic::resume_unwind(broken);
        }
    }
}

#[test]
fn the_laws_hold_in_every_life() {
    in_every_life(60, live);
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..3 {
        assert_eq!(live(seed).log, live(seed).log);
    }
    assert_ne!(live(1).log, live(2).log);
}
