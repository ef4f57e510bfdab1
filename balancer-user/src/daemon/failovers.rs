//! How long clients had nobody, measured by itself: for each change of the active backend because of a failure, the time
//! from the old one's last good answer to the decision, and from the decision to the new one's first answer to a client.
//!
//! Answers are what probes and SYN-ACKs say, as exact as the kernel ticks. A pool in which nobody connects has no first
//! answer; after a minute nobody waits for it any more. Not kept over a restart: the journal has it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tracing::info;

use crate::dataplane::clock::Jiffies;
use crate::policy::{ActiveReason, BackendIndex, Event, Kin, Moment, PoolIndex};

use super::{Daemon, Entry};

/// From one look for the first answer to the next: the first ones are close, so that what is fast is told as fast.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// For how long the first answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A change because of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failover {
    pub(super) id: u64,
    pub(super) at: SystemTime,
    pub(super) from: BackendIndex,
    pub(super) to: BackendIndex,
    decided: Moment,
    /// From the last good answer of the old one to the decision.
    pub(super) detection: Option<Duration>,
    /// From the decision to the first answer of the new one.
    pub(super) recovery: Option<Duration>,
}

/// The last one of each pool, and what is still to come.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    last: BTreeMap<PoolIndex, Failover>,
    /// Changes that take steps: decided, but nobody is active yet.
    begun: BTreeMap<PoolIndex, Failover>,
    watched: BTreeMap<PoolIndex, Watch>,
}

/// Somebody whose first answer is waited for.
#[derive(Debug)]
struct Watch {
    slot: u16,
    /// The last one before the change.
    before: Option<Jiffies>,
    until: Moment,
    next: Moment,
    pause: Duration,
}

impl Failovers {
    pub(super) fn last(&self, pool: PoolIndex) -> Option<&Failover> {
        self.last.get(&pool)
    }

    /// When to look for first answers.
    pub(super) fn next_look(&self) -> Option<Moment> {
        self.watched.values().map(|watch| watch.next).min()
    }

    /// Pools and backends stand elsewhere now; what tells of one that is gone goes.
    pub(super) fn succeed(&mut self, kin: &[Kin]) {
        let moved = |all: &mut BTreeMap<PoolIndex, Failover>| {
            let failovers = std::mem::take(all).into_iter().filter_map(|(pool, failover)| {
                let (pool, kin) = Kin::of(kin, pool)?;
                let (from, to) = (kin.backend(failover.from)?, kin.backend(failover.to)?);
                Some((pool, Failover { from, to, ..failover }))
            });
            *all = failovers.collect();
        };
        moved(&mut self.last);
        moved(&mut self.begun);
        let watched = std::mem::take(&mut self.watched).into_iter();
        let watched = watched.filter_map(|(pool, watch)| Some((Kin::of(kin, pool)?.0, watch)));
        self.watched = watched.filter(|(pool, _)| self.last.contains_key(pool)).collect();
    }

    /// A change is made. One that took steps was decided when they began.
    fn made(&mut self, pool: PoolIndex, failover: Failover, watch: Watch) {
        let begun = self.begun.remove(&pool).filter(|begun| begun.id == failover.id);
        self.last.insert(pool, begun.unwrap_or(failover));
        self.watched.insert(pool, watch);
    }

    /// Those for whom it is time to look, with the slot and the last answer before the change.
    fn due(&mut self, now: Moment) -> Vec<(PoolIndex, u16, Option<Jiffies>)> {
        self.watched.retain(|_, watch| now < watch.until);
        let due = self.watched.iter_mut().filter(|(_, watch)| watch.next <= now);
        due.map(|(pool, watch)| {
            watch.next = now + watch.pause;
            watch.pause = (watch.pause * 2).min(LONGEST_PAUSE);
            (*pool, watch.slot, watch.before)
        })
        .collect()
    }

    /// The new one has answered then.
    fn answered(&mut self, pool: PoolIndex, at: Moment) -> Option<&Failover> {
        self.watched.remove(&pool);
        let failover = self.last.get_mut(&pool)?;
        failover.recovery = Some(at - failover.decided);
        Some(failover)
    }
}

impl Watch {
    const fn new(slot: u16, before: Option<Jiffies>, until: Moment, next: Moment) -> Self {
        Self { slot, before, until, next, pause: FIRST_PAUSE }
    }
}

impl Failover {
    /// In words, by the names of the backends.
    fn evidence(&self, from: &str, to: &str) -> Option<String> {
        let recovery = self.recovery?;
        let mut text = format!("first answer of {to} {} ms after the decision", recovery.as_millis());
        if let Some(detection) = self.detection {
            let all = (detection + recovery).as_millis();
            text.push_str(&format!(", {all} ms after the last good answer of {from}"));
        }
        Some(text)
    }
}

impl Daemon {
    /// The policy has told this; it may be the beginning of a failover, or be one.
    pub(super) fn measure(&mut self, event: &Event) {
        if let (Some(tallies), Event::Transition { pool, reason, .. }) = (self.dashboard.tallies(), event)
            && !matches!(reason, ActiveReason::Initial | ActiveReason::Restored)
        {
            tallies.moved(self.pool_name(*pool), reason.token(), SystemTime::now());
        }
        match event {
            Event::Switching {
                id, pool, from: Some(from), to, reason: ActiveReason::BackendDown, ..
            } => {
                let begun = self.failover(*id, *pool, *from, *to);
                self.failovers.begun.insert(*pool, begun);
            }
            Event::Transition {
                id, pool, from: Some(from), to, reason: ActiveReason::BackendDown, ..
            } => {
                let failover = self.failover(*id, *pool, *from, *to);
                let slot = self.slot(*pool, *to);
                let now = self.clock.now();
                let before = self.parts.tables.answered(slot);
                let watch = Watch::new(slot, before, now + PATIENCE, now + FIRST_PAUSE);
                self.failovers.made(*pool, failover, watch);
            }
            _ => {}
        }
    }

    /// One that is decided now.
    fn failover(&self, id: u64, pool: PoolIndex, from: BackendIndex, to: BackendIndex) -> Failover {
        let decided = self.clock.now();
        let answered = self.answered(self.slot(pool, from));
        let last_good = self.probes.last_good(pool, from).max(answered);
        let detection = last_good.map(|last| decided - last);
        Failover { id, at: SystemTime::now(), from, to, decided, detection, recovery: None }
    }

    /// Time to look whether those who have become active have answered.
    pub(super) fn watch_failovers(&mut self) {
        let now = self.clock.now();
        for (pool, slot, before) in self.failovers.due(now) {
            if self.parts.tables.answered(slot) == before {
                continue;
            }
            let Some(at) = self.answered(slot) else { continue };
            let Some(failover) = self.failovers.answered(pool, at).cloned() else { continue };
            if let (Some(tallies), Some(recovery)) = (self.dashboard.tallies(), failover.recovery) {
                tallies.recovered(failover.detection.unwrap_or_default() + recovery);
            }
            let (from, to) = (self.backend_name(pool, failover.from), self.backend_name(pool, failover.to));
            let Some(evidence) = failover.evidence(from, to) else { continue };
            let pool = self.pool_name(pool);
            info!(event = "answered", pool, from, to, id = failover.id, evidence);
            let entry = Entry::answered(pool, from, to, format!("{evidence} (transition {})", failover.id));
            self.note(entry);
        }
    }

    fn slot(&self, pool: PoolIndex, backend: BackendIndex) -> u16 {
        self.parts.slots[pool.0].backends[backend.0].index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolIndex = PoolIndex(0);

    fn at(ms: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(ms)
    }

    fn failover(id: u64, decided: Moment) -> Failover {
        let (from, to) = (BackendIndex(0), BackendIndex(1));
        let detection = Some(Duration::from_millis(209));
        Failover { id, at: SystemTime::UNIX_EPOCH, from, to, decided, detection, recovery: None }
    }

    fn made(id: u64, decided: Moment) -> Failovers {
        let mut failovers = Failovers::default();
        let watch = Watch::new(7, None, decided + PATIENCE, decided + FIRST_PAUSE);
        failovers.made(POOL, failover(id, decided), watch);
        failovers
    }

    #[test]
    fn the_first_answer_is_told_from_the_decision_and_from_the_last_good_one() {
        let mut failovers = made(4, at(1000));
        assert_eq!(failovers.last(POOL).unwrap().evidence("server1", "server2"), None);
        let answered = failovers.answered(POOL, at(1003)).unwrap();
        let wanted =
            "first answer of server2 3 ms after the decision, 212 ms after the last good answer of server1";
        assert_eq!(answered.evidence("server1", "server2").as_deref(), Some(wanted));
        let unknown = Failover { detection: None, ..answered.clone() };
        let wanted = "first answer of server2 3 ms after the decision";
        assert_eq!(unknown.evidence("server1", "server2").as_deref(), Some(wanted));
        assert_eq!(failovers.next_look(), None);
    }

    #[test]
    fn looks_come_further_apart_and_end() {
        let mut failovers = made(4, at(0));
        let mut looks = Vec::new();
        while let Some(next) = failovers.next_look() {
            failovers.due(next);
            looks.push((next - at(0)).as_millis());
        }
        assert_eq!(looks[..8], [1, 2, 4, 8, 16, 32, 52, 72]);
        assert!(looks.len() < 3010 && *looks.last().unwrap() >= 59_980, "{} {:?}", looks.len(), looks.last());
        assert!(failovers.last(POOL).unwrap().recovery.is_none());
    }

    #[test]
    fn a_change_with_steps_was_decided_when_they_began() {
        let mut failovers = Failovers::default();
        failovers.begun.insert(POOL, failover(4, at(1000)));
        let watch = || Watch::new(7, None, at(90_000), at(6000));
        failovers.made(POOL, failover(4, at(5000)), watch());
        let recovery = failovers.answered(POOL, at(5500)).unwrap().recovery;
        assert_eq!(recovery, Some(Duration::from_millis(4500)));
        failovers.begun.insert(POOL, failover(5, at(6000)));
        failovers.made(POOL, failover(6, at(7000)), watch());
        let recovery = failovers.answered(POOL, at(7001)).unwrap().recovery;
        assert_eq!(recovery, Some(Duration::from_millis(1)), "the one that had begun was another");
    }
}
