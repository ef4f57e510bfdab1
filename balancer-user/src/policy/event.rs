//! What people may want to know of what the policy saw and did.
//!
//! Deliberately not here: how any of it is written, logged or stored.

use std::time::Duration;

use super::decision::ActiveReason;
use super::health::Health;
use super::settings::{BackendIndex, PoolIndex, ServiceIndex};
use super::view::Admin;

/// Something that a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A backend's health changed.
    Health {
        /// Its pool.
        pool: PoolIndex,
        /// The backend.
        backend: BackendIndex,
        /// Its health before.
        from: Health,
        /// Its health now.
        to: Health,
        /// `service: failure`, if a failure explains it.
        reason: Option<String>,
    },
    /// The active backend changed.
    Transition {
        /// Unique, and greater than every earlier one.
        id: u64,
        /// The pool.
        pool: PoolIndex,
        /// The active backend before.
        from: Option<BackendIndex>,
        /// The active backend now.
        to: BackendIndex,
        /// Why.
        reason: ActiveReason,
        /// What was seen, in words.
        evidence: String,
    },
    /// A change of the active backend began that takes steps before it is made. New flows are held meanwhile.
    Switching {
        /// As that of the transition to come.
        id: u64,
        /// The pool.
        pool: PoolIndex,
        /// The active backend.
        from: Option<BackendIndex>,
        /// The active backend to be.
        to: BackendIndex,
        /// Why.
        reason: ActiveReason,
        /// What was seen, in words.
        evidence: String,
    },
    /// A hook ended.
    Hook {
        /// The change that it belongs to.
        id: u64,
        /// The pool.
        pool: PoolIndex,
        /// Its number among the pool's hooks.
        step: usize,
        /// Why it did not do what it should, in words.
        failure: Option<String>,
    },
    /// Alarm: a change stands still and waits for `resume`.
    Held {
        /// The change; `None` when nobody knows who was active.
        id: Option<u64>,
        /// The pool.
        pool: PoolIndex,
        /// The active backend to be.
        to: Option<BackendIndex>,
        /// Why.
        evidence: String,
    },
    /// The operator lets a change go on.
    Resumed {
        /// The change.
        id: u64,
        /// The pool.
        pool: PoolIndex,
        /// Without what it stood still for.
        skip: bool,
    },
    /// A change was given up for another, before its last step.
    Abandoned {
        /// The change.
        id: u64,
        /// The pool.
        pool: PoolIndex,
        /// What it was about to do.
        evidence: String,
    },
    /// Alarm: the active backend fails, and the operator is to say where to go.
    Waiting {
        /// The pool.
        pool: PoolIndex,
        /// The active backend, which stays.
        active: BackendIndex,
        /// Where the pool would go.
        to: BackendIndex,
        /// The active backend's last failure.
        evidence: String,
    },
    /// The end of that alarm.
    WaitingOver {
        /// The pool.
        pool: PoolIndex,
    },
    /// The operator wants something else with a backend.
    Admin {
        /// The pool.
        pool: PoolIndex,
        /// The backend.
        backend: BackendIndex,
        /// What it was.
        from: Admin,
        /// What it is.
        to: Admin,
    },
    /// A drained backend's time is over; what is left of its flows is cut.
    Drained {
        /// The pool.
        pool: PoolIndex,
        /// The backend.
        backend: BackendIndex,
    },
    /// Alarm: no backend of the pool is eligible. The active one stays.
    AllDown {
        /// The pool.
        pool: PoolIndex,
        /// The active backend, which stays.
        active: Option<BackendIndex>,
        /// The active backend's last failure.
        evidence: String,
    },
    /// The end of that alarm.
    AllDownOver {
        /// The pool.
        pool: PoolIndex,
    },
    /// A probe never reported, which is the prober's fault; it is repeated and counts as nothing.
    ProbeLost {
        /// The pool.
        pool: PoolIndex,
        /// The backend probed.
        backend: BackendIndex,
        /// The service probed.
        service: ServiceIndex,
    },
    /// The controller itself stood still: failures of the probes in flight are discarded.
    Stalled {
        /// By how much it was late.
        late: Duration,
        /// How many probes that concerns.
        probes: usize,
    },
}
