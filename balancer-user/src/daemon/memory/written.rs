//! From what the policy does to what is to be remembered. Deliberately not here: when (`carry_out`), and how (`store`).

use std::time::SystemTime;

use crate::config;
use crate::policy::{self, BackendHistory, BackendIndex, PoolHistory, PoolIndex, ServiceIndex};
use crate::store::State;
use crate::store::state::{Admin, Backend, FORMAT, Next, Pool, Reached, Service, Stop, Transition, Wish};

use super::{boot_moment, hooks, ms};
use crate::daemon::{Daemon, names, view};

/// What is to be remembered now.
pub(in crate::daemon) fn state(daemon: &Daemon) -> State {
    let now = boot_moment();
    let history = daemon.policy.history(daemon.clock.now());
    let pools = daemon.parts.config.pools.iter().zip(history.pools).enumerate();
    State {
        format: FORMAT.to_owned(),
        written: SystemTime::now().into(),
        boot_id: now.boot_id,
        boottime_ms: ms(now.boottime),
        last_transition: history.last_transition,
        last_event: daemon.journal.last_event(),
        pools: pools.map(|(index, (pool, past))| self::pool(daemon, PoolIndex(index), pool, past)).collect(),
        leaving: daemon.leaving.written(daemon.clock.now()),
        departed: daemon.departed.written(daemon.clock.now()),
        confirmation: daemon.reloads.unconfirmed(daemon.clock.now()),
        hosts: names::written(daemon.reloads.known()),
        checksum: String::new(),
    }
}

/// What is to be remembered of a pool.
pub(in crate::daemon) fn pool(
    daemon: &Daemon,
    index: PoolIndex,
    config: &config::Pool,
    past: PoolHistory,
) -> Pool {
    let view = daemon.policy.snapshot(index, daemon.clock.now());
    let name = |backend: BackendIndex| config.backends[backend.0].name.clone();
    let address = |backend: BackendIndex| config.backends[backend.0].address;
    let started = view.transition.as_ref().map_or(view.since, |change| change.started);
    Pool {
        name: config.name.clone(),
        active: past.active.map(name),
        active_at: past.active.map(address),
        since: daemon.clock.wall(view.since).into(),
        reason: view::pool_reason(view.reason),
        wish: match past.wish {
            policy::Wish::Automatic => Wish::Automatic,
            policy::Wish::Stay => Wish::Stay,
            policy::Wish::Forced => Wish::Forced,
        },
        backends: config
            .backends
            .iter()
            .zip(past.backends)
            .map(|(of, past)| backend(config, of, past))
            .collect(),
        transition: past.transition.map(|change| Transition {
            id: change.id,
            from: change.from.map(name),
            to: name(change.to),
            to_at: Some(address(change.to)),
            reason: view::pool_reason(change.reason),
            evidence: change.evidence,
            started: daemon.clock.wall(started).into(),
            forced: change.forced,
            switched: change.switched,
            hooks: hooks(config),
            reached: written(change.reached),
        }),
        doubtful: past.doubtful,
    }
}

fn backend(pool: &config::Pool, config: &config::Backend, past: BackendHistory) -> Backend {
    let service = |(service, past): (ServiceIndex, policy::Past)| Service {
        name: pool.services[service.0].name.clone(),
        down_for_ms: past.down_left.map(ms),
        last_down_ms: ms(past.last_down),
        relapse_until_ms: past.relapse_left.map(ms),
    };
    Backend {
        name: config.name.clone(),
        address: Some(config.address),
        admin: match past.admin {
            // Disabled is the configuration's word, and not to be remembered.
            policy::Admin::Ready | policy::Admin::Disabled => Admin::Ready,
            policy::Admin::Drain => Admin::Drain,
            policy::Admin::Maint => Admin::Maint,
        },
        drain_ends_in_ms: past.drain_left.map(ms),
        services: past.services.into_iter().map(service).collect(),
    }
}

fn written(reached: policy::Reached) -> Reached {
    // A pool has few hooks.
    let next = |next: policy::Next| match next {
        policy::Next::Hook(step) => Next::Hook(step as u32),
        policy::Next::Start => Next::Start,
        policy::Next::Switch => Next::Switch,
    };
    match reached {
        policy::Reached::Cutting => Reached::Cutting,
        policy::Reached::Next(what) => Reached::Next(next(what)),
        policy::Reached::Running(step) => Reached::Running(step as u32),
        policy::Reached::Held(stop, why) => Reached::Held {
            stop: match stop {
                policy::Stop::Uncut => Stop::Uncut,
                policy::Stop::Failed(step) => Stop::Failed(step as u32),
                policy::Stop::Lost(what) => Stop::Lost(next(what)),
                policy::Stop::Late => Stop::Late,
                policy::Stop::Unrecorded => Stop::Unrecorded,
            },
            why,
        },
    }
}
