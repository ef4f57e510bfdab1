//! What is due when: one deadline per owner, the earliest first.
//!
//! A sorted set, so that the next deadline among tens of thousands is at hand and ties always break the same way.
//! Deliberately not here: what happens when a deadline comes.

use std::collections::{BTreeMap, BTreeSet};

use super::Moment;
use super::queue::TargetId;
use super::settings::PoolIndex;

/// Who waits for a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A target: its next probe, the end of its time down, or the bound of its probe in flight.
    Target(TargetId),
    /// A pool: its failback.
    Pool(PoolIndex),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Moment, Timer)>,
    deadlines: BTreeMap<Timer, Moment>,
}

impl Timers {
    /// Replaces the owner's deadline.
    pub(super) fn set(&mut self, timer: Timer, deadline: Option<Moment>) {
        let before = match deadline {
            Some(deadline) => self.deadlines.insert(timer, deadline),
            None => self.deadlines.remove(&timer),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, timer));
        }
        if let Some(deadline) = deadline {
            self.by_time.insert((deadline, timer));
        }
    }

    pub(super) fn first(&self) -> Option<Moment> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest owner whose deadline has come.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Timer> {
        let (deadline, timer) = *self.by_time.first()?;
        if deadline > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }
}
