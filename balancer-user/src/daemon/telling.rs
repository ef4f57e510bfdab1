//! What the policy tells, for people: the log, the journal, and whom an alarm calls.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::policy::{BackendIndex, Event, PoolIndex};

use super::{Daemon, Entry};

impl Daemon {
    pub(super) fn pool_name(&self, pool: PoolIndex) -> &str {
        &self.parts.config.pools[pool.0].name
    }

    pub(super) fn backend_name(&self, pool: PoolIndex, backend: BackendIndex) -> &str {
        &self.parts.config.pools[pool.0].backends[backend.0].name
    }

    fn hook_name(&self, pool: PoolIndex, step: usize) -> &str {
        self.parts.config.pools[pool.0].hooks.get(step).map_or("-", |hook| &hook.name)
    }

    /// Into the log and the journal, and to the operator if it wants one. `took`: what the decisions before it took.
    pub(super) fn tell(&mut self, event: &Event, took: Duration) {
        self.log(event, took);
        self.measure(event);
        if !self.relapses.is_worth_a_record(event) {
            return;
        }
        let entry = Entry::of_event(event, &self.parts.config);
        match event {
            Event::AllDown { .. } | Event::Held { .. } | Event::Waiting { .. } => self.alarm(entry),
            _ => self.note(entry),
        }
    }

    fn log(&self, event: &Event, took: Duration) {
        match event {
            Event::Health { pool, backend, from, to, reason } => info!(
                event = "health",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
                from = from.token(),
                to = to.token(),
                reason = reason.as_deref().unwrap_or("-"),
            ),
            Event::Transition { id, pool, from, to, reason, evidence } => info!(
                event = "transition",
                pool = self.pool_name(*pool),
                from = from.map_or("-", |from| self.backend_name(*pool, from)),
                to = self.backend_name(*pool, *to),
                reason = reason.token(),
                id,
                took_ms = took.as_micros() as f64 / 1000.0,
                evidence,
            ),
            Event::Switching { id, pool, from, to, reason, evidence } => info!(
                event = "switching",
                pool = self.pool_name(*pool),
                from = from.map_or("-", |from| self.backend_name(*pool, from)),
                to = self.backend_name(*pool, *to),
                reason = reason.token(),
                id,
                evidence,
                "new flows wait until the steps before the switch are done",
            ),
            Event::Hook { id, pool, step, failure: None } => info!(
                event = "hook",
                pool = self.pool_name(*pool),
                hook = self.hook_name(*pool, *step),
                id,
                step,
                "done"
            ),
            Event::Hook { id, pool, step, failure: Some(failure) } => warn!(
                event = "hook",
                pool = self.pool_name(*pool),
                hook = self.hook_name(*pool, *step),
                id,
                step,
                failure,
            ),
            Event::Held { id, pool, to, evidence } => error!(
                event = "held",
                pool = self.pool_name(*pool),
                to = to.map_or("-", |to| self.backend_name(*pool, to)),
                id,
                evidence,
                "the change stands still; `balancer resume` or `balancer failover --to BACKEND --force` goes on",
            ),
            Event::Resumed { id, pool, skip } => {
                info!(event = "resumed", pool = self.pool_name(*pool), id, skip);
            }
            Event::Abandoned { id, pool, evidence } => {
                warn!(event = "abandoned", pool = self.pool_name(*pool), id, evidence);
            }
            Event::Waiting { pool, active, to, evidence } => error!(
                event = "waiting",
                pool = self.pool_name(*pool),
                active = self.backend_name(*pool, *active),
                to = self.backend_name(*pool, *to),
                evidence,
                "the active backend fails; `balancer failover` moves the pool",
            ),
            Event::WaitingOver { pool } => info!(event = "waiting_over", pool = self.pool_name(*pool)),
            Event::Admin { pool, backend, from, to } => info!(
                event = "admin",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
                from = from.token(),
                to = to.token(),
            ),
            Event::Drained { pool, backend } => info!(
                event = "drained",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
                "its time is over; flows that are left are reset",
            ),
            Event::AllDown { pool, active, evidence } => error!(
                event = "all_down",
                pool = self.pool_name(*pool),
                active = active.map_or("-", |active| self.backend_name(*pool, active)),
                evidence,
                "no backend is eligible; `when_all_down` says what becomes of new flows",
            ),
            Event::AllDownOver { pool } => info!(event = "all_down_over", pool = self.pool_name(*pool)),
            Event::ProbeLost { pool, backend, .. } => warn!(
                event = "probe_lost",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
            ),
            Event::Stalled { late, probes } => warn!(
                event = "stalled",
                late_ms = late.as_millis() as u64,
                probes,
                "the daemon itself did not run; probes of that time are repeated",
            ),
        }
    }
}
