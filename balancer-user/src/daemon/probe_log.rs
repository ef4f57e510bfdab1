//! The last outcome of each probe, for `status`: what the policy was told, with what only people want to know. And which probes
//! the gateway itself can't make: of those backends nobody knows how they are, and no failure of theirs is seen.

use std::time::SystemTime;

use crate::config::{self, Config};
use crate::policy::{BackendIndex, Kin, Moment, PoolIndex, ProbeTicket, ServiceIndex};
use crate::probe::Outcome;

/// The last outcome of each target.
#[derive(Debug)]
pub(super) struct ProbeLog {
    /// By pool, backend, service.
    last: Vec<Vec<Vec<Option<LastProbe>>>>,
    /// In the same order.
    faults: Vec<Vec<Vec<Faults>>>,
    /// When a backend last gave a good outcome, by pool and backend.
    last_good: Vec<Vec<Option<Moment>>>,
}

/// Probes in a row that could not be made, and why the last one couldn't.
#[derive(Clone, Debug, Default)]
struct Faults {
    in_a_row: u32,
    problem: String,
}

/// A probe that can't be made.
pub(super) struct Faulty<'a> {
    pub(super) backend: BackendIndex,
    pub(super) service: ServiceIndex,
    pub(super) problem: &'a str,
    /// How many others of its pool can't be made either.
    pub(super) others: usize,
}

/// One that comes alone is over by the next probe.
const WORTH_TELLING: u32 = 3;

/// One probe's outcome, for `status`.
#[derive(Clone, Debug)]
pub(super) struct LastProbe {
    pub(super) at: SystemTime,
    pub(super) outcome: Outcome,
}

impl ProbeLog {
    pub(super) fn new(config: &Config) -> Self {
        let of_pool = |pool: &config::Pool| vec![vec![None; pool.services.len()]; pool.backends.len()];
        let no_faults =
            |pool: &config::Pool| vec![vec![Faults::default(); pool.services.len()]; pool.backends.len()];
        Self {
            last: config.pools.iter().map(of_pool).collect(),
            faults: config.pools.iter().map(no_faults).collect(),
            last_good: config.pools.iter().map(|pool| vec![None; pool.backends.len()]).collect(),
        }
    }

    /// The same for this configuration: those who were there before keep theirs.
    pub(super) fn succeed(&mut self, config: &Config, kin: &[Kin]) {
        let before = std::mem::replace(self, Self::new(config));
        for (pool, kin) in kin.iter().enumerate() {
            let Some(earlier) = kin.pool else { continue };
            for (b, of) in kin.backends.iter().enumerate() {
                let Some(of) = of else { continue };
                self.last_good[pool][b] = before.last_good[earlier.0][of.0];
                let lasts = self.last[pool][b].iter_mut().zip(&mut self.faults[pool][b]);
                for ((last, faults), heirloom) in lasts.zip(&kin.services) {
                    let Some(heirloom) = heirloom else { continue };
                    last.clone_from(&before.last[earlier.0][of.0][heirloom.service.0]);
                    if !heirloom.asks_anew {
                        faults.clone_from(&before.faults[earlier.0][of.0][heirloom.service.0]);
                    }
                }
            }
        }
    }

    pub(super) fn record(&mut self, ticket: &ProbeTicket, probe: LastProbe, now: Moment) {
        if probe.outcome.result.is_ok() {
            self.last_good[ticket.pool.0][ticket.backend.0] = Some(now);
        }
        self.last[ticket.pool.0][ticket.backend.0][ticket.service.0] = Some(probe);
        self.faults[ticket.pool.0][ticket.backend.0][ticket.service.0] = Faults::default();
    }

    /// One could not be made.
    pub(super) fn failed(&mut self, ticket: &ProbeTicket, problem: String) {
        let faults = &mut self.faults[ticket.pool.0][ticket.backend.0][ticket.service.0];
        *faults = Faults { in_a_row: faults.in_a_row.saturating_add(1), problem };
    }

    /// Of each pool of which some can't be made: one of these, and how many they are. `is_probed`: whether a backend is, now.
    pub(super) fn faulty<'a>(
        &'a self,
        is_probed: impl Fn(PoolIndex, BackendIndex) -> bool + 'a,
    ) -> impl Iterator<Item = (PoolIndex, Faulty<'a>)> + 'a {
        self.faults.iter().enumerate().filter_map(move |(pool, backends)| {
            let targets = backends.iter().enumerate().flat_map(|(backend, services)| {
                let services = services.iter().enumerate();
                services.map(move |(service, faults)| (BackendIndex(backend), ServiceIndex(service), faults))
            });
            // As a rule there is none, and nobody need look how its pool is.
            let mut faulty = targets.filter(|(backend, _, faults)| {
                faults.in_a_row >= WORTH_TELLING && is_probed(PoolIndex(pool), *backend)
            });
            let (backend, service, faults) = faulty.next()?;
            let others = faulty.count();
            Some((PoolIndex(pool), Faulty { backend, service, problem: &faults.problem, others }))
        })
    }

    /// When one of the backend's services last gave a good outcome.
    pub(super) fn last_good(&self, pool: PoolIndex, backend: BackendIndex) -> Option<Moment> {
        self.last_good[pool.0][backend.0]
    }

    /// By service.
    pub(super) fn of(&self, pool: PoolIndex, backend: BackendIndex) -> &[Option<LastProbe>] {
        &self.last[pool.0][backend.0]
    }
}
