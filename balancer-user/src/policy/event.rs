//! What comes out of the policy: decisions for the data plane, events for people, views for `status`.
//!
//! The tokens are the contract's. Deliberately not here: how any of it is written, logged or stored.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Moment;
use super::health::Health;
use super::settings::{BackendIndex, PoolIndex, ServiceIndex};

/// The desired state of one pool. Only the latest of a pool is kept, so a driver that is behind skips what is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pool.
    pub pool: PoolIndex,
    /// Where its new flows go; `None` when the pool has no backend that isn't disabled.
    pub active: Option<BackendIndex>,
    /// The transition that led to it; `None` when nothing changed (restored).
    pub transition: Option<u64>,
}

/// Why the active backend is the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActiveReason {
    /// The first decision of all.
    Initial,
    /// The one before failed.
    BackendDown,
    /// `failover`.
    Operator,
    /// The return to the first eligible backend, by itself or by `failback`.
    Failback,
    /// It was so before the controller started.
    Restored,
}

impl ActiveReason {
    /// The word that status, events and logs use.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::BackendDown => "backend_down",
            Self::Operator => "operator",
            Self::Failback => "failback",
            Self::Restored => "restored",
        }
    }
}

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

/// What a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolState {
    /// Waiting for the first signals; nothing is active. Never again after the first decision.
    Starting,
    /// New flows go to a backend that isn't known to fail, or to one that the operator forced.
    Serving,
    /// No backend is eligible; new flows still go to the last active one.
    AllDown,
}

impl PoolState {
    /// The word that status uses; `starting` is seen only before readiness is announced.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::AllDown => "all_down",
        }
    }
}

/// What the operator wants with a backend; kept apart from its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admin {
    /// In use.
    Ready,
    /// Left out by the configuration.
    Disabled,
}

impl Admin {
    /// The word that status uses.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Disabled => "disabled",
        }
    }
}

/// What the operator's last `failover` still asks of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Nothing: the policy decides.
    #[default]
    Automatic,
    /// No failback by itself, until `failback` or until the active backend fails.
    Stay,
    /// The active backend stays although it wasn't eligible, until it has been up; then as `Stay`.
    Forced,
}

/// One pool as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// What it is doing.
    pub state: PoolState,
    /// Where new flows go.
    pub active: Option<BackendIndex>,
    /// Since when.
    pub since: Moment,
    /// Why.
    pub reason: ActiveReason,
    /// What the operator asked for, to be kept over a restart.
    pub wish: Wish,
    /// Its backends, in list order.
    pub backends: Vec<BackendView>,
}

/// One backend as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// The worst of its services'.
    pub health: Health,
    /// What the operator wants with it.
    pub admin: Admin,
    /// Failures in the window now: the most that any of its services has.
    pub fails: usize,
    /// `service: failure`, when a failure explains its health.
    pub reason: Option<String>,
    /// Since when its health is what it is.
    pub since: Moment,
}

/// What waits to be polled, and the numbering of transitions.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<Event>,
    decisions: BTreeMap<PoolIndex, Decision>,
    last_transition: u64,
}

impl Outbox {
    /// Numbers go on after `last_transition`.
    pub(super) const fn after(last_transition: u64) -> Self {
        Self { events: VecDeque::new(), decisions: BTreeMap::new(), last_transition }
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn decide(&mut self, decision: Decision) {
        self.decisions.insert(decision.pool, decision);
    }

    pub(super) const fn next_transition(&mut self) -> u64 {
        self.last_transition = self.last_transition.saturating_add(1);
        self.last_transition
    }

    pub(super) const fn last_transition(&self) -> u64 {
        self.last_transition
    }

    pub(super) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn pop_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_first().map(|(_, decision)| decision)
    }
}
