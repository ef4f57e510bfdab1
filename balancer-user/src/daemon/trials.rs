//! Has clients' connections try backends that no probe watches, one at a time, and sees what becomes of them.
//!
//! That one was taken is seen by its word, and that it was answered by the backend's last answer: on trial a backend gets no
//! other connections, unless the pool has nobody better. That it failed comes
//! in like every failed attempt (`live`). One of which nothing is heard, as it proves nothing, is followed by another.
//! Deliberately not here: who is on trial, and what comes of it (`policy`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dataplane::clock::Jiffies;
use crate::policy::{BackendIndex, Moment, PoolIndex, ServiceIndex};

use super::Daemon;

/// From one look at them to the next: a client that connects again is tried after so long at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A connection of which nothing has been heard for so long beyond its `connect_timeout` proves nothing.
const GRACE: Duration = Duration::from_secs(1);

/// Those that are under way.
#[derive(Debug, Default)]
pub(super) struct Trials {
    under_way: BTreeMap<(PoolIndex, ServiceIndex), Trial>,
    next_look: Option<Moment>,
}

/// One backend's, at one service.
#[derive(Debug)]
struct Trial {
    backend: BackendIndex,
    /// Its last answer before.
    before: Option<Jiffies>,
    /// When a connection was seen to have been taken for it.
    taken: Option<Moment>,
}

/// What has become of one.
enum Course {
    Waits,
    Answered,
    /// It proves nothing.
    Void,
}

impl Trials {
    /// When to look at them.
    pub(super) const fn next_look(&self) -> Option<Moment> {
        self.next_look
    }
}

impl Trial {
    fn look(&mut self, answered: Option<Jiffies>, is_taken: bool, patience: Duration, now: Moment) -> Course {
        if !is_taken {
            // Answers to others, of another service say, prove nothing.
            self.before = answered;
            return Course::Waits;
        }
        if answered != self.before {
            return Course::Answered;
        }
        let taken = *self.taken.get_or_insert(now);
        if now - taken >= patience { Course::Void } else { Course::Waits }
    }
}

impl Daemon {
    /// Time to look at the trials that are under way.
    pub(super) fn watch_trials(&mut self) {
        let now = self.clock.now();
        if self.trials.next_look.is_none_or(|next| now < next) {
            return;
        }
        let mut answered = Vec::new();
        let (parts, policy) = (&self.parts, &mut self.policy);
        self.trials.under_way.retain(|(pool, service), trial| {
            let slots = &parts.slots[pool.0];
            let last = parts.tables.answered(slots.backends[trial.backend.0].index);
            let is_taken = !parts.tables.awaits_trial(slots.services[service.0].index);
            let patience = parts.plan[pool.0].connect_timeout + GRACE;
            match trial.look(last, is_taken, patience, now) {
                Course::Waits => true,
                Course::Void => false,
                Course::Answered => {
                    answered.push((*pool, *service, trial.backend));
                    false
                }
            }
        });
        for (pool, service, backend) in answered {
            policy.handle_answer(pool, service, backend, now);
        }
        self.trials.next_look = Some(now + LOOK_EVERY);
    }

    /// Begins those that the policy wants, and ends those that it doesn't want any more.
    pub(super) fn set_trials(&mut self) {
        let pools = (0..self.parts.slots.len()).map(PoolIndex);
        let wanted = pools.flat_map(|pool| {
            let of_pool = self.policy.trials(pool);
            of_pool.into_iter().map(move |(service, backend)| ((pool, service), backend))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        let (parts, trials) = (&self.parts, &mut self.trials);
        let slot = |(pool, service): (PoolIndex, ServiceIndex)| parts.slots[pool.0].services[service.0].index;
        trials.under_way.retain(|place, trial| {
            let stays = wanted.get(place) == Some(&trial.backend);
            if !stays {
                parts.tables.set_trial(slot(*place), 0);
            }
            stays
        });
        for (place, backend) in wanted {
            trials.under_way.entry(place).or_insert_with(|| {
                let backend_slot = parts.slots[place.0.0].backends[backend.0].index;
                let before = parts.tables.answered(backend_slot);
                parts.tables.set_trial(slot(place), backend_slot);
                Trial { backend, before, taken: None }
            });
        }
        let begins = self.clock.now() + LOOK_EVERY;
        let is_idle = trials.under_way.is_empty();
        trials.next_look = if is_idle { None } else { trials.next_look.or(Some(begins)) };
    }
}
