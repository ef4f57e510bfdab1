//! Those who have left the configuration and may still have flows: backends, and services.
//!
//! Nothing new is led to them. What they have goes on, by ways that are kept fresh, until the `drain_deadline` that their
//! pool had; what is left then is cut. That moment outlives the daemon; who left while there was none has the whole time from the
//! start on. Deliberately not here: who leaves (`reload`), and how flows are ended (`dataplane::cut`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::Config;
use crate::dataplane::DataplaneError;
use crate::dataplane::cut::CutReport;
use crate::dataplane::cut_all::Doomed;
use crate::dataplane::slots::{Busy, Occupied, PoolPlan, PoolSlots};
use crate::policy::Moment;
use crate::store::state;

use super::memory::{left, ms};
use super::steps::Done;
use super::{Daemon, Entry};

/// For those whose pool is gone, too, when a daemon finds them at its start: the default.
const DEADLINE: Duration = Duration::from_secs(600);
/// Before a cut that failed is tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// Walks that find no flow before somebody is gone: one may have begun before the last flow came.
const IDLE_WALKS: u32 = 2;

/// Who leaves, as the kernel knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Backend(u16),
    Service(u16),
}

impl Slot {
    const fn of(remembered: &state::Leaver) -> Self {
        if remembered.is_service { Self::Service(remembered.slot) } else { Self::Backend(remembered.slot) }
    }
}

/// Somebody who leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaver {
    /// The names that it had.
    pub(super) pool: String,
    pub(super) name: String,
    /// Its pool's slot.
    pool_slot: u16,
    /// Where it is, if it is a backend.
    address: Option<IpAddr>,
    /// What is left then is cut.
    pub(super) until: Moment,
    idle_walks: u32,
    /// A cut is under way.
    is_cut: bool,
    /// Why the last cut failed.
    pub(super) problem: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<Slot, Leaver>);

impl Leaver {
    fn new(pool: &str, name: String, pool_slot: u16, address: Option<IpAddr>, until: Moment) -> Self {
        Self {
            pool: pool.to_owned(),
            name,
            pool_slot,
            address,
            until,
            idle_walks: 0,
            is_cut: false,
            problem: None,
        }
    }
}

impl Leaving {
    /// Whoever has flows at the start of a daemon and isn't in its configuration. `remembered`: who had left before, `passed` ago.
    pub(super) fn found(
        (occupied, busy): &(Occupied, Busy),
        config: &Config,
        slots: &[PoolSlots],
        (remembered, passed): (&[state::Leaver], Duration),
        now: Moment,
    ) -> Self {
        let kept = kept(slots);
        let deadline = |pool: &str, slot: Slot| {
            let is_it = |known: &&state::Leaver| known.pool == pool && Slot::of(known) == slot;
            if let Some(known) = remembered.iter().find(is_it) {
                return now + left(known.ends_in_ms, passed);
            }
            let pool = config.pools.iter().find(|known| known.name == pool);
            now + pool.map_or(DEADLINE, |pool| pool.drain_deadline)
        };
        let pool = |slot| occupied.pools.get(&slot).map_or("", String::as_str);
        let backends = busy.backends.iter().filter_map(|slot| {
            let (of, name, address) = occupied.backends.get(slot)?;
            let (pool, slot) = (pool(*of), Slot::Backend(*slot));
            Some((slot, Leaver::new(pool, name.clone(), *of, Some(*address), deadline(pool, slot))))
        });
        let services = occupied.services.iter().filter(|(_, (_, slot, _))| busy.services.contains(slot));
        let services = services.map(|(listen, (of, slot, _))| {
            let (pool, slot) = (pool(*of), Slot::Service(*slot));
            (slot, Leaver::new(pool, listen.to_string(), *of, None, deadline(pool, slot)))
        });
        Self(backends.chain(services).filter(|(slot, _)| !kept.contains(slot)).collect())
    }

    /// Some of `before` have left; whoever is among `slots` has not, or is back.
    pub(super) fn left(
        &mut self,
        config: &Config,
        (plan, before): (&[PoolPlan], &[PoolSlots]),
        slots: &[PoolSlots],
        now: Moment,
    ) {
        let kept = kept(slots);
        for ((pool, plan), of) in config.pools.iter().zip(plan).zip(before) {
            let until = now + pool.drain_deadline;
            let backends = plan.backends.iter().zip(&of.backends).map(|(backend, slot)| {
                (Slot::Backend(slot.index), backend.name.clone(), Some(backend.address))
            });
            let services = plan.services.iter().zip(&of.services);
            let services =
                services.map(|(service, slot)| (Slot::Service(slot.index), service.name.clone(), None));
            for (slot, name, address) in backends.chain(services).filter(|(slot, ..)| !kept.contains(slot)) {
                let leaver = Leaver::new(&pool.name, name, of.pool.index, address, until);
                self.0.entry(slot).or_insert(leaver);
            }
        }
        self.0.retain(|slot, _| !kept.contains(slot));
    }

    /// What is to be remembered of them.
    pub(super) fn written(&self, now: Moment) -> Vec<state::Leaver> {
        let written = |(slot, leaver): (&Slot, &Leaver)| {
            let (is_service, slot) = match slot {
                Slot::Backend(slot) => (false, *slot),
                Slot::Service(slot) => (true, *slot),
            };
            let ends_in_ms = ms(leaver.until - now);
            state::Leaver { is_service, slot, pool: leaver.pool.clone(), ends_in_ms }
        };
        self.0.iter().map(written).collect()
    }

    /// When the next one's time is over.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.values().filter(|leaver| !leaver.is_cut).map(|leaver| leaver.until).min()
    }

    /// A walk over the flows has ended; true if somebody is gone.
    fn walked(&mut self, busy: &Busy) -> bool {
        let before = self.0.len();
        self.0.retain(|slot, leaver| {
            let is_busy = match slot {
                Slot::Backend(slot) => busy.backends.contains(slot),
                Slot::Service(slot) => busy.services.contains(slot),
            };
            leaver.idle_walks = if is_busy { 0 } else { leaver.idle_walks + 1 };
            leaver.is_cut || leaver.idle_walks < IDLE_WALKS
        });
        self.0.len() != before
    }

    /// Backends whose flows are still led to them, by slot.
    pub(super) fn backends(&self) -> impl Iterator<Item = (u16, IpAddr)> {
        self.0.iter().filter_map(|(slot, leaver)| match slot {
            Slot::Backend(slot) => Some((*slot, leaver.address?)),
            Slot::Service(_) => None,
        })
    }

    /// Those of such pools that are at one of these addresses, with their names.
    pub(super) fn at(
        &self,
        addresses: &BTreeSet<IpAddr>,
        is_meant: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (u16, String)> {
        self.0.iter().filter_map(move |(slot, leaver)| match slot {
            Slot::Backend(slot) if leaver.address.is_some_and(|address| addresses.contains(&address)) => {
                is_meant(&leaver.pool).then(|| (*slot, leaver.name.clone()))
            }
            Slot::Backend(_) | Slot::Service(_) => None,
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Slot, &Leaver)> {
        self.0.iter()
    }
}

fn kept(slots: &[PoolSlots]) -> BTreeSet<Slot> {
    let of_pool = |pool: &PoolSlots| {
        let backends = pool.backends.iter().map(|slot| Slot::Backend(slot.index));
        let services = pool.services.iter().map(|slot| Slot::Service(slot.index));
        backends.chain(services).collect::<Vec<_>>()
    };
    slots.iter().flat_map(of_pool).collect()
}

impl Daemon {
    /// What is left of flows of those whose time is over is cut.
    pub(super) fn end_leaving(&mut self) {
        let now = self.clock.now();
        let due = self.leaving.0.iter().filter(|(_, leaver)| leaver.until <= now && !leaver.is_cut);
        let due: Vec<(Slot, Leaver)> = due.map(|(slot, leaver)| (*slot, leaver.clone())).collect();
        for (slot, leaver) in due {
            let begun = self.cut_leaver(slot, &leaver);
            let Some(leaver) = self.leaving.0.get_mut(&slot) else { continue };
            match begun {
                Ok(()) => leaver.is_cut = true,
                Err(error) => fail(leaver, &error, now),
            }
        }
    }

    fn cut_leaver(&self, slot: Slot, leaver: &Leaver) -> Result<(), DataplaneError> {
        let (flows, done, tables) = (self.flows.clone(), self.done.0.clone(), &self.parts.tables);
        match slot {
            Slot::Backend(index) => {
                let doomed = [Doomed { slot: index, name: leaver.name.clone(), exits: tables.exits(index)? }];
                tokio::task::spawn_blocking(move || {
                    let report =
                        flows.cut_all(&doomed, None).pop().unwrap_or_else(|| Ok(CutReport::default()));
                    let _ = done.blocking_send(Done::Left(slot, report));
                });
            }
            Slot::Service(index) => {
                // Held flows have no backend.
                let mut ways = BTreeMap::from([(0, tables.exits(0)?)]);
                for (backend, _) in tables.backends_of(leaver.pool_slot)? {
                    ways.insert(backend, tables.exits(backend)?);
                }
                tokio::task::spawn_blocking(move || {
                    let _ = done.blocking_send(Done::Left(slot, flows.cut_service(index, &ways)));
                });
            }
        }
        Ok(())
    }

    /// A cut has ended.
    pub(super) fn was_left(&mut self, slot: Slot, report: Result<CutReport, DataplaneError>) {
        let now = self.clock.now();
        let Some(leaver) = self.leaving.0.get_mut(&slot) else { return };
        leaver.is_cut = false;
        let CutReport { flows, resets_sent, problem } = match report {
            Ok(report) => report,
            Err(error) => return fail(leaver, &error, now),
        };
        let (pool, name) = (leaver.pool.clone(), leaver.name.clone());
        // Not gone yet: what is on its way may come late, and is found by the next walks.
        (leaver.until, leaver.idle_walks, leaver.problem) = (now + PAUSE, 0, None);
        if let Some(problem) = problem {
            warn!(event = "cut", pool, name, error = %problem, "not all were told; those get a RST when they say something");
        }
        if flows > 0 {
            info!(event = "cut", pool, name, flows, resets_sent, "it had left the configuration");
            let evidence = format!(
                "{name} had left the configuration, and its time was over: {flows} flows ended, {resets_sent} clients \
                 were sent a RST"
            );
            self.note(Entry::cut(&pool, &name, evidence));
        }
    }

    /// A walk over the flows has ended: who has none any more is gone.
    pub(super) fn seen_leaving(&mut self, busy: &Busy) {
        if self.leaving.walked(busy) {
            self.watch();
            self.keep_roles();
        }
    }

    /// Addresses and ports of whoever leaves are known for as long as that takes.
    pub(super) fn keep_roles(&mut self) {
        if let Err(error) = self.parts.tables.keep_roles(!self.leaving.0.is_empty()) {
            error!(event = "dataplane", error = %error, "addresses that are not configured any more are still known");
        }
    }
}

fn fail(leaver: &mut Leaver, error: &DataplaneError, now: Moment) {
    leaver.problem = Some(error.to_string());
    leaver.until = now + PAUSE;
    error!(event = "cut", pool = leaver.pool, name = leaver.name, error = %error, "flows could not all be ended; trying again");
}
