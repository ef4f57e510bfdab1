//! Trials: where no probe tells whether a backend is up again, a client's connection does, one at a time.
//!
//! Only in pools that return by themselves: elsewhere nobody would need to know, and such a backend is unknown again. Whoever
//! is on trial is not the active backend's rival: a connection that it doesn't take goes on, as any other does. Deliberately not here:
//! choosing the connection, and seeing what becomes of it (the data plane's part).

use super::decision::Route;
use super::pool::Pool;
use super::queue::TargetId;
use super::settings::{BackendIndex, PoolIndex, ServiceIndex};
use super::{Moment, Policy};

impl Policy {
    /// Whom the next connection of which services shall try: one service of a backend at a time, and one backend of a
    /// service, the first in order.
    ///
    /// # Panics
    /// When the settings have no such pool.
    #[must_use]
    pub fn trials(&self, pool: PoolIndex) -> Vec<(ServiceIndex, BackendIndex)> {
        self.pools[pool.0].trials()
    }

    /// A backend on trial has answered a client of this service. If it isn't on trial any more that changes nothing.
    pub fn handle_answer(
        &mut self,
        pool: PoolIndex,
        service: ServiceIndex,
        backend: BackendIndex,
        now: Moment,
    ) {
        let now = self.advance(now);
        let id = TargetId { pool, backend, service };
        if let Some(target) = self.target(id) {
            target.prove(now);
            self.settle(id, now);
            self.fire(now);
        }
    }
}

impl Pool {
    fn trials(&self) -> Vec<(ServiceIndex, BackendIndex)> {
        let mut trials: Vec<(ServiceIndex, BackendIndex)> = Vec::new();
        // Also while all are down and new flows are refused: nobody else could find out that one is up again.
        let Some(Route::To(_) | Route::Reject) = self.route() else { return trials };
        for b in &self.order {
            if let Some(service) = self.backends[b.0].trial()
                && trials.iter().all(|(taken, _)| *taken != service)
            {
                trials.push((service, *b));
            }
        }
        trials
    }
}
