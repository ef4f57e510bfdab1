//! From what was remembered to the policy's history; and back (`written`).
//!
//! Who is active: the kernel's maps win, as they are never older than the file; without them (a reboot, a detach) the
//! file's word counts. A change that was under way is the file's, unless the maps tell of a later one: of that nobody knows
//! whether the hooks behind it have run. Where there was something and nobody can tell any more what, the policy is told that.
//! Names that the configuration doesn't have any more are left out.

mod written;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use balancer_common::abi::{ActiveWord, Route};
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::config::{self, Config};
use crate::control::protocol::PoolReason;
use crate::dataplane::slots::PoolSlots;
use crate::policy::{
    self, ActiveReason, BackendHistory, BackendIndex, History, PoolHistory, ServiceIndex, TransitionHistory,
};
use crate::store::state::{Admin, Backend, BootMoment, Next, Pool, Reached, Service, Stop, Transition, Wish};
use crate::store::{Remembered, State, read_state};

use super::departed::Departed;
use super::parts::Parts;
use super::{Clock, kin, plan};

pub(super) use self::written::{pool, state};

/// The kernel's random name of this boot; no file on a disk.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What an earlier life has written down, as far as that can be read; nothing is locked, and nothing set aside.
pub(super) fn earlier(state_dir: &Path) -> Option<State> {
    let directory = File::open(state_dir).ok()?;
    read_state(directory).ok()?
}

/// Of a pool that had its role from steps: nobody can tell who has it.
pub(super) fn doubtful(past: PoolHistory) -> PoolHistory {
    PoolHistory { doubtful: true, active: None, transition: None, ..past }
}

/// What an earlier life left behind, and where the backends are of pools that are gone.
pub(super) fn history(
    parts: &Parts,
    remembered: &Remembered,
    departed: &mut Departed,
    clock: &Clock,
) -> (History, BTreeSet<IpAddr>) {
    let state = remembered.state.as_ref();
    let words = parts.slots.iter().map(|slots| parts.tables.active(slots.pool.index));
    let words: Vec<ActiveWord> = words.collect();
    let passed = state.map_or(Duration::ZERO, |state| state.age_at(&boot_moment()));
    if let Some(state) = state {
        departed.left_meanwhile(&parts.config, &state.pools, clock.now().before(passed));
    }
    let elsewhere: BTreeSet<IpAddr> = departed.addresses().collect();
    let pools = parts.config.pools.iter().zip(&parts.slots).zip(&words).map(|((config, slots), word)| {
        let pool = state.and_then(|state| state.pools.iter().find(|pool| pool.name == config.name));
        // One that had left the configuration may be there again.
        let gone = departed.is_back(config, clock);
        let past = pool.map(|pool| of_pool(config, pool, passed, clock)).or(gone);
        // Or under another name: who has its role is not known then.
        let is_doubtful = past.is_none() && kin::may_have_had_a_role(config, &elsewhere);
        let past = past.unwrap_or_else(|| PoolHistory { doubtful: is_doubtful, ..PoolHistory::default() });
        let written = Written {
            last_transition: state.map_or(0, |state| state.last_transition),
            is_lost: pool.is_none() && remembered.was_damaged,
        };
        with_maps(past, *word, slots, written)
    });
    let in_kernel = words.iter().map(|word| u64::from(word.change())).max();
    let last_transition = in_kernel.max(state.map(|state| state.last_transition)).unwrap_or_default();
    (History { pools: pools.collect(), last_transition }, elsewhere)
}

/// The file itself.
#[derive(Clone, Copy)]
struct Written {
    /// The last change of any pool that it knows of.
    last_transition: u64,
    /// What it said of the pool can't be read.
    is_lost: bool,
}

/// What the file says, and the kernel, which knows better.
fn with_maps(past: PoolHistory, word: ActiveWord, slots: &PoolSlots, written: Written) -> PoolHistory {
    let of_slot = |slot| slots.backends.iter().position(|backend| backend.index == slot).map(BackendIndex);
    let Some(active) = word.backend().and_then(of_slot) else {
        // On hold no hook runs before the file says so: if it tells of no change, none has been begun. Without a change it
        // is on hold for its first decision.
        let was_something = word.backend().is_some()
            || word.route() == Route::Reject
            || (word.route() == Route::Hold && word.change() != 0);
        // The file tells of an earlier change than the maps: how that one ended, nobody knows.
        let is_behind = |change: &TransitionHistory| !change.switched && change.id < u64::from(word.change());
        let is_late = past.transition.as_ref().is_some_and(is_behind);
        let doubtful =
            past.doubtful || is_late || (past.active.is_none() && (written.is_lost || was_something));
        return PoolHistory { doubtful, transition: past.transition.filter(|_| !is_late), ..past };
    };
    // As long as a change isn't made the word says that flows are held: one that names another backend was given up.
    let is_of_now = |change: &TransitionHistory| change.to == active && change.id >= u64::from(word.change());
    let unwritten = unwritten(&past, active, word, written);
    PoolHistory {
        active: Some(active),
        wish: plan::wish(word.mark()),
        transition: past.transition.filter(is_of_now).or(unwritten),
        doubtful: false,
        ..past
    }
}

/// The change that the word tells of, if it is later than the file: it was made, and the daemon ended before it had written
/// that down. A file that knows of nobody active tells of no such change: the first decision of all runs no hooks.
fn unwritten(
    past: &PoolHistory,
    active: BackendIndex,
    word: ActiveWord,
    written: Written,
) -> Option<TransitionHistory> {
    let (id, before) = (u64::from(word.change()), past.active?);
    let why = "the daemon ended right after the switch, before that was written down: whether the hooks behind it have run \
               is not known; look, and then `--retry` runs them, `--skip` leaves them";
    (id > written.last_transition).then(|| TransitionHistory {
        id,
        from: Some(before).filter(|before| *before != active),
        to: active,
        reason: ActiveReason::Restored,
        evidence: "found made in the kernel's maps".to_owned(),
        age: Duration::ZERO,
        forced: false,
        switched: true,
        reached: policy::Reached::Held(policy::Stop::Unrecorded, why.to_owned()),
    })
}

/// What was remembered of a pool, `passed` ago, as its configuration knows it.
pub(super) fn of_pool(config: &config::Pool, past: &Pool, passed: Duration, clock: &Clock) -> PoolHistory {
    Names(config).history(past, passed, clock)
}

/// From names to positions.
struct Names<'a>(&'a config::Pool);

impl Names<'_> {
    fn backend(&self, name: &str) -> Option<BackendIndex> {
        self.0.backends.iter().position(|backend| backend.name == name).map(BackendIndex)
    }

    /// What the file says of the pool, and of how long ago.
    fn history(&self, pool: &Pool, passed: Duration, clock: &Clock) -> PoolHistory {
        let backend = |config: &config::Backend| {
            let backend = pool.backends.iter().find(|backend| backend.name == config.name);
            backend.map_or_else(BackendHistory::default, |backend| self.backend_history(backend, passed))
        };
        let has_moved = self.has_moved(pool);
        let active = pool.active.as_deref().filter(|_| !has_moved).and_then(|active| self.backend(active));
        let change = pool.transition.as_ref();
        // While an address changes two backends of a pool have the same name; what was remembered of them is told by name alone.
        let has_two = |name: &str| pool.backends.iter().filter(|backend| backend.name == name).count() > 1;
        let is_broken =
            change.is_some_and(|change| !self.can_go_on(change) || (!change.switched && has_two(&change.to)));
        PoolHistory {
            // Whoever has the role has left the configuration with it; or steps were taken that it knows nothing of.
            doubtful: pool.doubtful || is_broken || (active.is_none() && pool.active.is_some()),
            active,
            active_for: clock.age(pool.since.into()),
            wish: match pool.wish {
                Wish::Automatic => policy::Wish::Automatic,
                Wish::Stay => policy::Wish::Stay,
                Wish::Forced => policy::Wish::Forced,
            },
            backends: self.0.backends.iter().map(backend).collect(),
            transition: change
                .filter(|_| !is_broken && !has_moved)
                .and_then(|change| self.transition(change, clock)),
        }
    }

    /// Whether whoever has the role, by steps, had it at another address than the configuration has for this name now: that is
    /// another server, which nobody has given it to.
    fn has_moved(&self, pool: &Pool) -> bool {
        let Some((active, was_at)) = pool.active.as_ref().zip(pool.active_at) else { return false };
        let is_at = self.backend(active).map(|active| self.0.backends[active.0].address);
        let has_moved = self.0.has_steps() && is_at.is_some_and(|is_at| is_at != was_at);
        if has_moved {
            warn!(
                event = "forgotten",
                pool = %self.0.name,
                backend = %active,
                %was_at,
                "it was active at another address than the configuration has for it now: who has the role is not known",
            );
        }
        has_moved
    }

    /// Whether the configuration still says what a change has to know that is under way: its target, and which steps there
    /// are. Before the first step, and behind the switch, nothing is at stake.
    fn can_go_on(&self, change: &Transition) -> bool {
        let is_there = |to: BackendIndex| change.to_at.is_none_or(|at| at == self.0.backends[to.0].address);
        let is_known = self.backend(&change.to).is_some_and(is_there) && change.hooks == hooks(self.0);
        let is_before_steps =
            matches!(change.reached, Reached::Cutting | Reached::Held { stop: Stop::Uncut, .. });
        is_known || change.switched || is_before_steps
    }

    fn backend_history(&self, backend: &Backend, passed: Duration) -> BackendHistory {
        let left = |ms| left(ms, passed);
        let service = |service: &Service| {
            let index = self.0.services.iter().position(|known| known.name == service.name)?;
            let past = policy::Past {
                down_left: service.down_for_ms.map(left),
                last_down: Duration::from_millis(service.last_down_ms),
                relapse_left: service.relapse_until_ms.map(left),
            };
            Some((ServiceIndex(index), past))
        };
        BackendHistory {
            admin: match backend.admin {
                Admin::Ready => policy::Admin::Ready,
                Admin::Drain => policy::Admin::Drain,
                Admin::Maint => policy::Admin::Maint,
            },
            drain_left: backend.drain_ends_in_ms.map(left),
            services: backend.services.iter().filter_map(service).collect(),
        }
    }

    fn transition(&self, change: &Transition, clock: &Clock) -> Option<TransitionHistory> {
        // Hooks behind the switch that are others now are left out.
        if change.switched && change.hooks != hooks(self.0) {
            warn!(event = "forgotten", pool = %self.0.name, id = change.id, "the hooks behind the switch are others now");
            return None;
        }
        Some(TransitionHistory {
            id: change.id,
            from: change.from.as_deref().and_then(|from| self.backend(from)),
            to: self.backend(&change.to)?,
            reason: active_reason(change.reason),
            evidence: change.evidence.clone(),
            age: clock.age(change.started.into()),
            forced: change.forced,
            switched: change.switched,
            reached: reached(&change.reached),
        })
    }
}

/// The steps of a pool, to be told from others later.
fn hooks(pool: &config::Pool) -> Vec<String> {
    pool.hooks.iter().map(|hook| format!("{} {}", hook.when.token(), hook.name)).collect()
}

fn active_reason(reason: PoolReason) -> ActiveReason {
    match reason {
        PoolReason::Initial => ActiveReason::Initial,
        PoolReason::BackendDown => ActiveReason::BackendDown,
        PoolReason::Operator => ActiveReason::Operator,
        PoolReason::Failback => ActiveReason::Failback,
        PoolReason::Drain => ActiveReason::Drain,
        PoolReason::Maint => ActiveReason::Maint,
        PoolReason::Config => ActiveReason::Config,
        PoolReason::Restored => ActiveReason::Restored,
    }
}

fn reached(reached: &Reached) -> policy::Reached {
    let next = |next: &Next| match next {
        Next::Hook(step) => policy::Next::Hook(*step as usize),
        Next::Start => policy::Next::Start,
        Next::Switch => policy::Next::Switch,
    };
    match reached {
        Reached::Cutting => policy::Reached::Cutting,
        Reached::Next(what) => policy::Reached::Next(next(what)),
        Reached::Running(step) => policy::Reached::Running(*step as usize),
        Reached::Held { stop, why } => {
            let stop = match stop {
                Stop::Uncut => policy::Stop::Uncut,
                Stop::Failed(step) => policy::Stop::Failed(*step as usize),
                Stop::Lost(what) => policy::Stop::Lost(next(what)),
                Stop::Late => policy::Stop::Late,
                Stop::Unrecorded => policy::Stop::Unrecorded,
            };
            policy::Reached::Held(stop, why.clone())
        }
    }
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

pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What is left of a time of which so much was left when it was written down, `passed` ago.
pub(super) fn left(ms: u64, passed: Duration) -> Duration {
    Duration::from_millis(ms).saturating_sub(passed)
}

pub(super) fn boot_moment() -> BootMoment {
    let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    let now = clock_gettime(ClockId::Boottime);
    BootMoment { boot_id, boottime: Duration::new(now.tv_sec as u64, now.tv_nsec as u32) }
}
