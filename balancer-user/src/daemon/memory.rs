//! From what was remembered to the policy's history, and from what the policy does to what is to be remembered.
//!
//! The kernel's maps win where they have an active backend: they are never older than the file. Without them (a reboot, a
//! detach) the file's word counts. Names that the configuration doesn't have any more are left out.

use std::fs;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::config::{self, Config};
use crate::dataplane::slots::PoolSlots;
use crate::dataplane::tables::Tables;
use crate::policy::{self, BackendIndex, History, PoolHistory, PoolIndex};
use crate::store::State;
use crate::store::state::{Admin, Backend, BootMoment, FORMAT, Pool, Wish};

use super::{Daemon, plan, view};

/// The kernel's random name of this boot; no file on a disk.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What an earlier life left behind.
pub(super) fn history(
    config: &Config,
    slots: &[PoolSlots],
    tables: &Tables,
    state: Option<&State>,
) -> History {
    let in_kernel = slots.iter().map(|slots| {
        let word = tables.active(slots.pool.index);
        let active = slots.backends.iter().position(|backend| Some(backend.index) == word.backend())?;
        Some(PoolHistory {
            active: Some(BackendIndex(active)),
            wish: plan::wish(word.mark()),
            ..PoolHistory::default()
        })
    });
    let remembered = config.pools.iter().map(|pool| pool_history(pool, state?));
    let pools = in_kernel.zip(remembered).map(|(kernel, file)| kernel.or(file).unwrap_or_default());
    let in_kernel = slots.iter().map(|slots| u64::from(tables.active(slots.pool.index).change())).max();
    let last_transition = in_kernel.max(state.map(|state| state.last_transition)).unwrap_or_default();
    History { pools: pools.collect(), last_transition }
}

/// What the file says of a pool.
fn pool_history(pool: &config::Pool, state: &State) -> Option<PoolHistory> {
    let remembered = state.pools.iter().find(|remembered| remembered.name == pool.name)?;
    let active = remembered.active.as_ref()?;
    let wish = match remembered.wish {
        Wish::Automatic => policy::Wish::Automatic,
        Wish::Stay => policy::Wish::Stay,
        Wish::Forced => policy::Wish::Forced,
    };
    let position = pool.backends.iter().position(|backend| backend.name == *active)?;
    Some(PoolHistory { active: Some(BackendIndex(position)), wish, ..PoolHistory::default() })
}

/// Says what of the file means nothing any more.
pub(super) fn tell_forgotten(config: &Config, state: &State) {
    for remembered in &state.pools {
        let Some(pool) = config.pools.iter().find(|pool| pool.name == remembered.name) else {
            warn!(event = "forgotten", pool = %remembered.name, "remembered, but not in the configuration any more");
            continue;
        };
        let is_known = |name: &String| pool.backends.iter().any(|backend| backend.name == *name);
        let names = remembered.backends.iter().map(|backend| &backend.name).chain(&remembered.active);
        let mut gone: Vec<_> = names.filter(|name| !is_known(name)).collect();
        gone.dedup();
        for backend in gone {
            warn!(
                event = "forgotten",
                pool = %pool.name,
                backend = %backend,
                "remembered, but not in the configuration any more",
            );
        }
    }
}

/// What is to be remembered now.
pub(super) fn state(daemon: &Daemon) -> State {
    let now = boot_moment();
    let pools = daemon.parts.config.pools.iter().enumerate();
    State {
        format: FORMAT.to_owned(),
        written: SystemTime::now().into(),
        boot_id: now.boot_id,
        boottime_ms: u64::try_from(now.boottime.as_millis()).unwrap_or(u64::MAX),
        last_transition: daemon.policy.history(daemon.clock.now()).last_transition,
        last_event: daemon.journal.last_event(),
        pools: pools.map(|(index, pool)| self::pool(daemon, PoolIndex(index), pool)).collect(),
        checksum: String::new(),
    }
}

fn pool(daemon: &Daemon, index: PoolIndex, pool: &config::Pool) -> Pool {
    let view = daemon.policy.snapshot(index, daemon.clock.now());
    let backends = pool.backends.iter().zip(&view.backends).map(|(backend, view)| Backend {
        name: backend.name.clone(),
        admin: match view.admin {
            // Disabled is the configuration's word, and not to be remembered.
            policy::Admin::Ready | policy::Admin::Disabled => Admin::Ready,
            policy::Admin::Drain => Admin::Drain,
            policy::Admin::Maint => Admin::Maint,
        },
        drain_ends_in_ms: None,
        services: Vec::new(),
    });
    Pool {
        name: pool.name.clone(),
        active: view.active.map(|active| pool.backends[active.0].name.clone()),
        since: daemon.clock.wall(view.since).into(),
        reason: view::pool_reason(view.reason),
        wish: match view.wish {
            policy::Wish::Automatic => Wish::Automatic,
            policy::Wish::Stay => Wish::Stay,
            policy::Wish::Forced => Wish::Forced,
        },
        backends: backends.collect(),
        transition: None,
    }
}

fn boot_moment() -> BootMoment {
    let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    let now = clock_gettime(ClockId::Boottime);
    BootMoment { boot_id, boottime: Duration::new(now.tv_sec as u64, now.tv_nsec as u32) }
}
