//! What nobody else keeps: how long probes took and why they failed, when certificates end, how often and how fast pools
//! moved. Since the daemon started; by names, so that a reload loses nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::histogram::Histogram;

/// From a probe within a rack to the longest timeout that anybody sets, in seconds.
const PROBE_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// From what the packet path alone repairs to what hooks take, in seconds.
const FAILOVER_BUCKETS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// More services of backends than a configuration can have: names of earlier configurations among them.
const MAX_TARGETS: usize = 1 << 17;

/// The service of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its pool's name.
    pub pool: String,
    /// Its backend's name.
    pub backend: String,
    /// Its own.
    pub service: String,
}

/// All of it. Written by the daemon's loop, read by scrapes.
#[derive(Debug)]
pub struct Tallies(Mutex<Counted>);

/// As it is now.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) probes: BTreeMap<Target, Probes>,
    /// Changes of the active backend, by pool and reason.
    pub(super) failovers: BTreeMap<(String, &'static str), u64>,
    /// When each pool moved last.
    pub(super) last_failover: BTreeMap<String, SystemTime>,
    /// For how long clients had nobody.
    pub(super) failover_seconds: Histogram,
    /// How full each flow table is.
    pub(super) used: BTreeMap<&'static str, f64>,
}

/// Of one target.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    pub(super) seconds: Histogram,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) certificate_expires: Option<SystemTime>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self(Mutex::new(Counted {
            probes: BTreeMap::new(),
            failovers: BTreeMap::new(),
            last_failover: BTreeMap::new(),
            failover_seconds: Histogram::new(FAILOVER_BUCKETS),
            used: BTreeMap::new(),
        }))
    }
}

impl Tallies {
    /// A probe has ended; the failure's token, and when the certificate ends that it was shown.
    pub fn probed(
        &self,
        target: Target,
        took: Duration,
        failure: Option<&'static str>,
        certificate_expires: Option<SystemTime>,
    ) {
        let mut counted = self.lock();
        if counted.probes.len() >= MAX_TARGETS && !counted.probes.contains_key(&target) {
            return;
        }
        let probes = counted.probes.entry(target).or_insert_with(|| Probes {
            seconds: Histogram::new(PROBE_BUCKETS),
            failures: BTreeMap::new(),
            certificate_expires: None,
        });
        probes.seconds.observe(took.as_secs_f64());
        if let Some(failure) = failure {
            *probes.failures.entry(failure).or_default() += 1;
        }
        probes.certificate_expires = certificate_expires.or(probes.certificate_expires);
    }

    /// A pool has another active backend.
    pub fn moved(&self, pool: &str, reason: &'static str, now: SystemTime) {
        let mut counted = self.lock();
        *counted.failovers.entry((pool.to_owned(), reason)).or_default() += 1;
        counted.last_failover.insert(pool.to_owned(), now);
    }

    /// After a failure clients have an answer again; for so long they had none.
    pub fn recovered(&self, after: Duration) {
        self.lock().failover_seconds.observe(after.as_secs_f64());
    }

    /// How full a flow table is.
    pub fn filled(&self, table: &'static str, ratio: f64) {
        self.lock().used.insert(table, ratio);
    }

    /// As it is now, after whatever isn't of these pools any more was forgotten.
    pub(super) fn of_now(&self, is_known: impl Fn(&Target) -> bool, pools: &[&str]) -> Counted {
        let mut counted = self.lock();
        counted.probes.retain(|target, _| is_known(target));
        counted.failovers.retain(|(pool, _), _| pools.contains(&pool.as_str()));
        counted.last_failover.retain(|pool, _| pools.contains(&pool.as_str()));
        counted.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Each change is whole, whatever became of who made it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
