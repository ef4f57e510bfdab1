//! What a change of the active backend takes besides one word: ending flows, sending held SYNs on, running hooks.
//!
//! All of it beside the loop, each with a result that comes back to it. Deliberately not here: when any of it is to be
//! done, and what its failure means; that is the policy's.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::dataplane::DataplaneError;
use crate::dataplane::attach::Mode;
use crate::dataplane::cut::CutReport;
use crate::dataplane::held::{Entrance, ReplayReport, Waiting};
use crate::hooks::{Finished, Outcome, Step};
use crate::policy::{Cut, HookEnd, HookRun, PoolIndex};

use super::{Daemon, Entry};

/// Results that wait for the loop; more make those who bring them wait.
pub(super) const RESULTS: usize = 64;
/// Before a cut that could not be finished is tried again.
const CUT_AGAIN: Duration = Duration::from_secs(1);
/// How long a hook waits for the disk to have it written down that it was started.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Something beside the loop has ended.
pub(super) enum Done {
    /// A cut.
    Cut(Cut, Result<CutReport, DataplaneError>),
    /// It is time to try one again.
    CutAgain(Cut),
    /// SYNs that were held were sent on.
    Replayed(PoolIndex, ReplayReport),
    /// A hook.
    Hook(HookRun, HookEnd),
}

impl Daemon {
    /// Ends all flows of a backend.
    pub(super) fn cut(&self, cut: Cut) {
        let slots = &self.parts.slots[cut.pool.0];
        let slot = slots.backends[cut.backend.0].index;
        if self.parts.tables.active(slots.pool.index).backend() == Some(slot) {
            // It has become the active one since: its flows are new.
            return;
        }
        let (flows, done) = (self.flows.clone(), self.done.0.clone());
        let exits = self.parts.tables.exits(slot);
        tokio::task::spawn_blocking(move || {
            let report = exits.and_then(|exits| flows.cut(slot, &exits, None));
            // The loop has ended: nobody wants to know.
            let _ = done.blocking_send(Done::Cut(cut, report));
        });
    }

    /// SYNs that were held for a pool come in once more.
    pub(super) fn replay(&self, pool: PoolIndex) {
        let slots = &self.parts.slots[pool.0];
        let services: BTreeSet<u16> = slots.services.iter().map(|slot| slot.index).collect();
        let generic = self.attachments.iter().filter(|attachment| attachment.mode == Mode::Generic);
        let generic: BTreeSet<u32> =
            generic.filter_map(|attachment| if_nametoindex(attachment.interface.as_str()).ok()).collect();
        // Of no backend in particular: only where clients are matters.
        let exits = match self.parts.tables.exits(0) {
            Ok(exits) => exits,
            Err(error) => {
                error!(event = "dataplane", error = %error, "held clients have to repeat themselves");
                return;
            }
        };
        let (flows, done, program) = (self.flows.clone(), self.done.0.clone(), self.parts.program.clone());
        tokio::task::spawn_blocking(move || {
            let program = program.blocking_lock();
            let entrance = Entrance { program: &program, exits: &exits, generic: &generic };
            let report = flows.replay(&Waiting { services, not_at: None }, entrance);
            drop(program);
            let _ = done.blocking_send(Done::Replayed(pool, report));
        });
    }

    /// Runs a hook, as soon as it is written down that it was started: what a killed daemon doesn't know it never does
    /// twice.
    pub(super) fn run_hook(&self, run: HookRun) {
        let pool = &self.parts.config.pools[run.pool.0];
        let Some(hook) = pool.hooks.get(run.step) else {
            let (end, done) = (HookEnd::NotStarted("there is no such hook".to_owned()), self.done.0.clone());
            tokio::spawn(async move { done.send(Done::Hook(run, end)).await });
            return;
        };
        let step = Step {
            pool: pool.name.clone(),
            from: run.from.map(|from| self.backend_name(run.pool, from).to_owned()),
            to: self.backend_name(run.pool, run.to).to_owned(),
            reason: run.reason.token(),
            transition: run.transition,
            number: run.step as u32,
            hook: hook.clone(),
        };
        info!(
            event = "hook",
            pool = step.pool,
            hook = step.hook.name,
            id = run.transition,
            step = run.step,
            "started"
        );
        let (recorded, done) = (self.store.saved(RECORD_LIMIT), self.done.0.clone());
        tokio::spawn(async move {
            let end = match recorded.await {
                Ok(()) => end(step.run().await),
                Err(problem) => {
                    HookEnd::NotStarted(format!("not started, as that could not be written down: {problem}"))
                }
            };
            let _ = done.send(Done::Hook(run, end)).await;
        });
    }

    /// Something has ended.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Cut(cut, report) => self.was_cut(cut, report),
            Done::CutAgain(cut) => self.cut(cut),
            Done::Replayed(pool, report) => self.was_replayed(pool, &report),
            Done::Hook(run, end) => self.policy.handle_hook(run, end, self.clock.now()),
        }
    }

    fn was_cut(&mut self, cut: Cut, report: Result<CutReport, DataplaneError>) {
        let pool = self.pool_name(cut.pool).to_owned();
        let backend = self.backend_name(cut.pool, cut.backend).to_owned();
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                error!(event = "cut", pool, backend, error = %error, "flows could not all be ended; trying again");
                tokio::spawn(again(cut, self.done.0.clone()));
                return;
            }
        };
        let CutReport { flows, resets_sent, problem } = report;
        if let Some(problem) = problem {
            warn!(
                event = "cut",
                pool,
                backend,
                error = %problem,
                "not all were told; those get a RST when they say something",
            );
        }
        if flows > 0 {
            info!(event = "cut", pool, backend, flows, resets_sent);
            let evidence = format!("{flows} flows ended, {resets_sent} clients were sent a RST");
            self.note(Entry::cut(&pool, &backend, evidence));
        }
        *self.resets_sent.entry((cut.pool, cut.backend)).or_default() += resets_sent;
        self.policy.handle_cut(cut, self.clock.now());
    }

    fn was_replayed(&self, pool: PoolIndex, report: &ReplayReport) {
        let ReplayReport { sent, failed, problem } = report;
        let pool = self.pool_name(pool);
        if let Some(problem) = problem {
            warn!(event = "replay", pool, sent, failed, error = %problem, "held clients have to repeat themselves");
        } else if *sent > 0 {
            info!(event = "replay", pool, sent, "held clients were sent on");
        }
    }
}

async fn again(cut: Cut, done: mpsc::Sender<Done>) {
    tokio::time::sleep(CUT_AGAIN).await;
    let _ = done.send(Done::CutAgain(cut)).await;
}

fn end(finished: Finished) -> HookEnd {
    match finished.outcome {
        Outcome::Done => HookEnd::Good,
        Outcome::Failed | Outcome::NeverRan => HookEnd::Bad(finished.evidence),
    }
}
