//! What the contract promises about the active backend, each promise as a claim.
//!
//! Health alone is claimed in `health`, anything that must hold in every life in `simulation`. Numbers in brackets are
//! failure classes.

use std::time::Duration;

use super::simulation::{Condition, Entry, World};
use super::*;

const P: usize = 0;
const B: usize = 1;
const C: usize = 2;
const TICK: Duration = Duration::from_nanos(1);
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE: ProbeSchedule =
    ProbeSchedule { interval: millis(2000), fast_interval: millis(500), timeout: millis(1000), rise: 1 };

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn service(name: &str) -> ServiceSettings {
    ServiceSettings { name: name.to_owned(), probe: Some(PROBE) }
}

fn backend(name: &str) -> BackendSettings {
    BackendSettings {
        name: name.to_owned(),
        max_fails: 1,
        fail_timeout: FAIL_TIMEOUT,
        fail_timeout_max: FAIL_TIMEOUT,
        backup: false,
        cold: false,
        disabled: false,
    }
}

/// One service on three servers, in this order.
fn trio(failback: Failback) -> PoolSettings {
    PoolSettings {
        name: "passwords".to_owned(),
        failover: Failover::Auto,
        failback,
        when_all_down: WhenAllDown::Last,
        on_backend_down: OnBackendDown::Reset,
        passive: Passive::Probe,
        connect_timeout: millis(300),
        start_timeout: secs(60),
        drain_deadline: secs(600),
        hooks: Vec::new(),
        services: vec![service("web")],
        backends: vec![backend("p"), backend("b"), backend("c")],
    }
}

fn manual() -> World {
    World::new(vec![trio(Failback::Manual)], 1)
}

fn auto(delay: Duration) -> World {
    World::new(vec![trio(Failback::Auto { delay })], 1)
}

fn starting_with(pool: PoolSettings, conditions: &[(usize, Condition)]) -> World {
    World::given(vec![pool], 1, History::default(), conditions)
}

fn restarted_on(pool: PoolSettings, active: usize, conditions: &[(usize, Condition)]) -> World {
    let past = PoolHistory { active: Some(BackendIndex(active)), ..PoolHistory::default() };
    World::given(vec![pool], 1, History { pools: vec![past], last_transition: 41 }, conditions)
}

fn reasons(world: &World) -> Vec<ActiveReason> {
    world.transitions().into_iter().map(|(_, _, reason)| reason).collect()
}

fn alarms(world: &World) -> usize {
    world.events().filter(|(_, event)| matches!(event, Event::AllDown { .. })).count()
}

mod a_cold_standby;
mod a_failback;
mod a_failure;
mod a_late_signal;
mod a_live_failure;
mod a_refused_attempt;
mod a_reload;
mod a_restart;
mod a_stall;
mod a_switch;
mod a_switch_over_a_restart;
mod a_trial;
mod maintenance;
mod probes;
mod the_operator;
mod the_start;
