//! Short lives in which the policy and its model are given the same, and must say the same after every input.
//!
//! Answers, commands and times lie on a coarse grid, so that what is hard to hit otherwise (a failure at the very end
//! of its window, an answer at the end of a time down) happens all the time. `BALANCER_SIM_RUNS` asks for more lives
//! than a test should take, `BALANCER_SIM_FIRST` for others.

use std::time::Duration;

use super::*;

/// Everything happens at a multiple of this.
const GRID: Duration = Duration::from_millis(500);

/// One of some multiples of the grid.
fn one_of(dice: &mut Dice, multiples: &[u32]) -> Duration {
    let n = usize::try_from(pick(dice, multiples.len() as u64)).unwrap();
    GRID * multiples[n]
}

fn coarse_pool(dice: &mut Dice) -> PoolSettings {
    let probe = |dice: &mut Dice| ProbeSchedule {
        interval: one_of(dice, &[2, 4, 8]),
        fast_interval: GRID,
        timeout: one_of(dice, &[1, 3]),
        rise: u32::try_from(pick(dice, 4)).unwrap(),
    };
    let services: Vec<_> = (0..1 + pick(dice, 4) / 2)
        .map(|s| {
            let probe = (pick(dice, 12) > 0).then(|| probe(dice));
            ServiceSettings { name: format!("service{s}"), probe }
        })
        .collect();
    // A time down of nothing is over before the model can see it, unless probes have to end it.
    let times_down: &[u32] =
        if services.iter().all(|s| s.probe.is_some()) { &[0, 2, 5, 10] } else { &[2, 5, 10] };
    PoolSettings {
        name: "pool".to_owned(),
        failover: if pick(dice, 4) == 0 { Failover::Manual } else { Failover::Auto },
        when_all_down: if pick(dice, 3) == 0 { WhenAllDown::Reject } else { WhenAllDown::Last },
        on_backend_down: OnBackendDown::Reset,
        passive: passive_from(dice),
        connect_timeout: one_of(dice, &[1, 2, 5]),
        start_timeout: Duration::ZERO,
        drain_deadline: one_of(dice, &[1, 5, 20]),
        hooks: Vec::new(),
        failback: match pick(dice, 3) {
            0 => Failback::Manual,
            _ => Failback::Auto { delay: one_of(dice, &[0, 1, 4, 12]) },
        },
        services,
        backends: (0..1 + pick(dice, 4)).map(|b| coarse_backend(dice, b, times_down)).collect(),
    }
}

fn coarse_backend(dice: &mut Dice, b: u64, times_down: &[u32]) -> BackendSettings {
    BackendSettings {
        name: format!("server{b}"),
        max_fails: u32::try_from(pick(dice, 4)).unwrap(),
        fail_timeout: one_of(dice, times_down),
        fail_timeout_max: one_of(dice, &[0, 8, 30]),
        backup: pick(dice, 3) == 0,
        cold: false,
        disabled: pick(dice, 10) == 0,
    }
}

fn live_beside_the_model(seed: u64) {
    let mut dice = Dice::new(seed, 1);
    let pool = coarse_pool(&mut dice);
    let backends = pool.backends.len() as u64;
    let mut world = World::beside_the_model(vec![pool], seed, GRID);
    for _ in 0..12 {
        let b = usize::try_from(pick(&mut dice, backends)).unwrap();
        match pick(&mut dice, 14) {
            0..3 => world.set(0, b, Condition::Fine),
            3..6 => world.set(0, b, Condition::Refusing),
            6 => world.set(0, b, Condition::Silent),
            7 => {
                let services = world.settings[0].services.len() as u64;
                world.prove(0, b, usize::try_from(pick(&mut dice, services)).unwrap());
            }
            8..11 => {
                for _ in 0..pick(&mut dice, 6) {
                    let services = world.settings[0].services.len() as u64;
                    let service = usize::try_from(pick(&mut dice, services)).unwrap();
                    world.fail_at(0, b, service, pick(&mut dice, 3));
                    world.run(one_of(&mut dice, &[0, 0, 1]));
                }
            }
            _ => {
                let ask = ask_from(&mut dice, format!("server{b}"));
                let _ = world.ask(ask);
            }
        }
        world.run(one_of(&mut dice, &[0, 1, 2, 5, 12]));
    }
}

#[test]
fn policy_and_model_agree_in_every_life() {
    in_every_life(1_000, live_beside_the_model);
}
