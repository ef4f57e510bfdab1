//! What the policy wants done: where new flows go, whose flows end, which hook runs.
//!
//! The tokens are the contract's. Deliberately not here: how any of it is carried out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::Event;
use super::settings::{BackendIndex, PoolIndex};

/// The desired state of one pool. Only the latest of a pool is kept, so a driver that is behind skips what is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pool.
    pub pool: PoolIndex,
    /// What becomes of its new flows.
    pub route: Route,
    /// The transition that led to it; `None` when it was no change of the active backend.
    pub transition: Option<u64>,
}

/// What becomes of a pool's new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// They go to this backend.
    To(BackendIndex),
    /// They are kept until the change that is under way has been made.
    Hold,
    /// They are refused.
    Reject,
    /// The pool has no backend that it may use.
    Nobody,
}

/// All flows of some backends are to be ended, and both sides told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// The pool.
    pub pool: PoolIndex,
    /// Whose flows.
    pub whose: Whose,
    /// The change that goes on when it is done.
    pub transition: Option<u64>,
}

/// Whose flows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// This backend's.
    Of(BackendIndex),
    /// Those of everybody who is a backend of the pool, or was one, but this one: also of one that has left the
    /// configuration, or was at another address.
    AllBut(BackendIndex),
}

/// A hook to run now, once: it counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookRun {
    /// The pool.
    pub pool: PoolIndex,
    /// Its number among the pool's hooks.
    pub step: usize,
    /// The change that it belongs to.
    pub transition: u64,
    /// The active backend before.
    pub from: Option<BackendIndex>,
    /// The active backend to be.
    pub to: BackendIndex,
    /// Why.
    pub reason: ActiveReason,
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
    /// `drain` of the one before.
    Drain,
    /// `maint` of the one before.
    Maint,
    /// The configuration leaves the one before out.
    Config,
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
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Config => "config",
            Self::Restored => "restored",
        }
    }
}

/// What waits to be polled, and the numbering of transitions.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<Event>,
    decisions: BTreeMap<PoolIndex, Decision>,
    cuts: BTreeSet<Cut>,
    last_transition: u64,
}

impl Outbox {
    /// Numbers go on after `last_transition`.
    pub(super) const fn after(last_transition: u64) -> Self {
        Self { events: VecDeque::new(), decisions: BTreeMap::new(), cuts: BTreeSet::new(), last_transition }
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn decide(&mut self, decision: Decision) {
        self.decisions.insert(decision.pool, decision);
    }

    pub(super) fn cut(&mut self, cut: Cut) {
        self.cuts.insert(cut);
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

    pub(super) fn pop_cut(&mut self) -> Option<Cut> {
        self.cuts.pop_first()
    }

    pub(super) fn pop_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_first().map(|(_, decision)| decision)
    }
}
