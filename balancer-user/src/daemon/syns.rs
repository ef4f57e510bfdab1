//! Clients' SYNs on their way again: what it takes to have them come in, and those that wait when their pool has moved.
//!
//! Deliberately not here: whose SYNs (`dataplane::held`, `dataplane::rescue` and cuts find them), and where they go.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{error, info, warn};

use crate::dataplane::DataplaneError;
use crate::dataplane::exits::Exits;
use crate::dataplane::held::{Entrance, ReplayReport, Waiting};
use crate::dataplane::object::Loaded;
use crate::dataplane::repeats::Repeats;
use crate::dataplane::slots::Retry;
use crate::policy::PoolIndex;

use super::Daemon;
use super::steps::Done;

/// What a thread beside the loop needs to have SYNs come in.
pub(super) struct Gate {
    program: Arc<Mutex<Loaded>>,
    exits: Exits,
    generic: BTreeSet<u32>,
    repeats: Repeats,
}

impl Gate {
    /// What frames leave by.
    pub(super) const fn exits(&self) -> &Exits {
        &self.exits
    }

    /// Not on the loop's thread: others may be having theirs come in.
    pub(super) fn pass(&self, come_in: impl FnOnce(Entrance<'_>) -> ReplayReport) -> ReplayReport {
        let program = self.program.blocking_lock();
        let Self { exits, generic, repeats, .. } = self;
        come_in(Entrance { program: &program, exits, generic, repeats })
    }
}

impl Daemon {
    pub(super) fn gate(&self) -> Result<Gate, DataplaneError> {
        Ok(Gate {
            program: self.parts.program.clone(),
            // Of no backend in particular: only where clients are matters.
            exits: self.parts.tables.exits(0)?,
            generic: self.generic_devices(),
            repeats: self.live.repeats(),
        })
    }

    /// Whether a client of this pool whose SYN a backend has not answered need not know when that backend is left.
    pub(super) fn keeps_syns(&self, pool: PoolIndex) -> bool {
        self.parts.plan[pool.0].retry != Retry::Off || self.parts.config.pools[pool.0].has_steps()
    }

    /// Those of a pool that are held, and those that wait for the answer of another backend than the one in this slot.
    pub(super) fn waiting(&self, pool: PoolIndex, not_at: Option<u16>) -> Waiting {
        let services = self.parts.slots[pool.0].services.iter().map(|slot| slot.index).collect();
        Waiting { services, not_at }
    }

    /// SYNs of a pool that [wait](Self::waiting) come in once more.
    pub(super) fn replay(&self, pool: PoolIndex, not_at: Option<u16>) {
        if !self.ready {
            // Nobody knows yet in which mode interfaces are; it is done when they are open.
            return;
        }
        let gate = match self.gate() {
            Ok(gate) => gate,
            Err(error) => {
                error!(event = "dataplane", error = %error, "clients that wait have to repeat themselves");
                return;
            }
        };
        let waiting = self.waiting(pool, not_at);
        let (flows, done) = (self.flows.clone(), self.done.0.clone());
        let pool = self.pool_name(pool).to_owned();
        tokio::task::spawn_blocking(move || {
            let report = gate.pass(|entrance| flows.replay(&waiting, entrance));
            // The loop has ended: nobody wants to know.
            let _ = done.blocking_send(Done::Replayed(pool, report));
        });
    }
}

pub(super) fn was_replayed(pool: &str, report: &ReplayReport) {
    let ReplayReport { sent, failed, problem } = report;
    if let Some(problem) = problem {
        warn!(event = "replay", pool, sent, failed, error = %problem, "clients that wait have to repeat themselves");
    } else if *sent > 0 {
        info!(event = "replay", pool, sent, "clients that waited were sent on");
    }
}
