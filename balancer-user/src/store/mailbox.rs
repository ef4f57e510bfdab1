//! What waits for the store's thread: put down under a lock that is held for a moment only, taken all at once.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::past::Past;
use super::state::State;
use crate::control::protocol::Record;

/// Gets the past, or `None` when too many wait for it already.
pub(super) type Reader = Box<dyn FnOnce(Option<&Past<'_>>) + Send>;

#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// What waits for the thread.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) state: Option<(u64, State)>,
    pub(super) records: Vec<Record>,
    /// Records that found no place.
    pub(super) lost: u64,
    /// Each with the number of the last record of those above that came before it, if one did.
    pub(super) readers: Vec<(Option<u64>, Reader)>,
    pub(super) ending: bool,
    pub(super) ended: bool,
}

impl Waiting {
    const fn is_empty(&self) -> bool {
        self.state.is_none() && self.records.is_empty() && self.readers.is_empty() && !self.ending
    }
}

impl Mailbox {
    /// Nothing that is done under the lock can fail half way.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put<T>(&self, what: impl FnOnce(&mut Waiting) -> T) -> T {
        let result = what(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Everything that waits; `limit`: nothing is an answer after that time, too.
    pub(super) fn take(&self, limit: Option<Duration>) -> Waiting {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.is_empty();
        let mut waiting = match limit {
            None => self.changed.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let woken = self.changed.wait_timeout_while(waiting, limit, idle);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        std::mem::take(&mut *waiting)
    }

    /// Whether the thread has ended, or does within this time.
    pub(super) fn has_ended(&self, limit: Duration) -> bool {
        let woken = self.changed.wait_timeout_while(self.lock(), limit, |waiting| !waiting.ended);
        woken.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}
