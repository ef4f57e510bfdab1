//! The last outcome of each probe, for `status`: what the policy was told, with what only people want to know.

use std::time::SystemTime;

use crate::config::{self, Config};
use crate::policy::{BackendIndex, Kin, Moment, PoolIndex, ProbeTicket};
use crate::probe::Outcome;

/// The last outcome of each target.
#[derive(Debug)]
pub(super) struct ProbeLog {
    /// By pool, backend, service.
    last: Vec<Vec<Vec<Option<LastProbe>>>>,
    /// When a backend last gave a good outcome, by pool and backend.
    last_good: Vec<Vec<Option<Moment>>>,
}

/// One probe's outcome, for `status`.
#[derive(Clone, Debug)]
pub(super) struct LastProbe {
    pub(super) at: SystemTime,
    pub(super) outcome: Outcome,
}

impl ProbeLog {
    pub(super) fn new(config: &Config) -> Self {
        let of_pool = |pool: &config::Pool| vec![vec![None; pool.services.len()]; pool.backends.len()];
        Self {
            last: config.pools.iter().map(of_pool).collect(),
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
                for (last, heirloom) in self.last[pool][b].iter_mut().zip(&kin.services) {
                    *last = heirloom.and_then(|kin| before.last[earlier.0][of.0][kin.service.0].clone());
                }
            }
        }
    }

    pub(super) fn record(&mut self, ticket: &ProbeTicket, probe: LastProbe, now: Moment) {
        if probe.outcome.result.is_ok() {
            self.last_good[ticket.pool.0][ticket.backend.0] = Some(now);
        }
        self.last[ticket.pool.0][ticket.backend.0][ticket.service.0] = Some(probe);
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
