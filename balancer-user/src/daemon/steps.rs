//! What a change of the active backend takes besides one word: ending flows, running hooks; SYNs that go on are in `syns`.
//!
//! All of it beside the loop, each with a result that comes back to it. Deliberately not here: when any of it is to be
//! done, and what its failure means; that is the policy's.

use std::collections::BTreeSet;
use std::time::Duration;

use balancer_common::abi::Interface;
use tracing::{info, warn};

use crate::dataplane::DataplaneError;
use crate::dataplane::attach::Attachment;
use crate::dataplane::cut::CutReport;
use crate::dataplane::cut_all::Doomed;
use crate::dataplane::held::{ReplayReport, Syns};
use crate::hooks::{Finished, Outcome, Step};
use crate::policy::{BackendIndex, Cut, HookEnd, HookRun, PoolIndex, Whose};

use super::cuts::SlotCut;
use super::leaving::Slot;
use super::live::Looked;
use super::names::Round;
use super::prepare::Prepared;
use super::syns::was_replayed;
use super::{Daemon, Entry};

/// Results that wait for the loop; more make those who bring them wait.
pub(super) const RESULTS: usize = 64;
/// How long a hook waits for the disk to have it written down that it was started.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Something beside the loop has ended.
pub(super) enum Done {
    /// A cut, for each backend that it was about.
    Cut(SlotCut, Result<Vec<CutEnd>, DataplaneError>),
    /// It is time to try one again.
    CutAgain(SlotCut),
    /// A cut of what somebody had left who has left the configuration.
    Left(Slot, Result<CutReport, DataplaneError>),
    /// SYNs of a pool of this name that waited were sent on.
    Replayed(String, ReplayReport),
    /// A look for clients that nobody answers.
    Looked(Box<Looked>),
    /// A hook.
    Hook(HookRun, HookEnd),
    /// An attempt to attach the program to an interface.
    Attached(String, Box<Result<(Attachment, Interface), DataplaneError>>),
    /// It is time to make another one after the one of this number.
    AttachAgain(String, u64),
    /// A round of questions for host names.
    Asked(Box<Round>),
    /// What a reload needs to know before anything is changed.
    Prepared(Box<Prepared>),
}

/// What came of cutting one backend's flows.
pub(super) struct CutEnd {
    /// The backend's name; it may have left the configuration.
    backend: String,
    slot: u16,
    report: Result<CutReport, DataplaneError>,
}

impl Daemon {
    /// Ends all flows of some backends, if it can.
    pub(super) fn try_cut(&mut self, by_slots: SlotCut) {
        let Some(cut) = self.by_place(by_slots) else {
            self.cuts.ended(by_slots);
            return;
        };
        let pool = self.pool_name(cut.pool).to_owned();
        let (flows, done) = (self.flows.clone(), self.done.0.clone());
        let backends = self.to_be_cut(cut);
        let keeps_syns = self.keeps_syns(cut.pool);
        let active = self.parts.tables.active(self.parts.slots[cut.pool.0].pool.index).backend();
        let waiting =
            active.filter(|_| keeps_syns && self.ready).map(|active| self.waiting(cut.pool, Some(active)));
        let gate = self.gate();
        tokio::task::spawn_blocking(move || {
            // While their flows are there, the packet path knows whom they waited for, and counts them as sent on.
            if let (Some(waiting), Ok(gate)) = (waiting, &gate) {
                let report = gate.pass(|entrance| flows.replay(&waiting, entrance));
                let _ = done.blocking_send(Done::Replayed(pool.clone(), report));
            }
            let mut syns = Syns::default();
            let ends = backends.map(|backends| {
                let reports = flows.cut_all(&backends, keeps_syns.then_some(&mut syns));
                let each = backends.into_iter().zip(reports);
                each.map(|(Doomed { name, slot, .. }, report)| CutEnd { backend: name, slot, report })
                    .collect()
            });
            // The loop has ended: nobody wants to know.
            let _ = done.blocking_send(Done::Cut(by_slots, ends));
            if let Ok(gate) = gate
                && !syns.is_empty()
            {
                let report = gate.pass(|entrance| syns.come_in(entrance));
                let _ = done.blocking_send(Done::Replayed(pool, report));
            }
        });
    }

    /// Whose flows end. Never those of the one that new flows go to: it has become that since, and its flows are new.
    fn to_be_cut(&self, cut: Cut) -> Result<Vec<Doomed>, DataplaneError> {
        let (tables, slots) = (&self.parts.tables, &self.parts.slots[cut.pool.0]);
        let slot = |backend: BackendIndex| slots.backends[backend.0].index;
        let mut backends = match cut.whose {
            Whose::Of(backend) => vec![(slot(backend), self.backend_name(cut.pool, backend).to_owned())],
            Whose::AllBut(spared) => {
                let mut backends = tables.backends_of(slots.pool.index)?;
                // Also who left with a pool that has another name now, or is gone.
                let of_pool = &self.parts.config.pools[cut.pool.0].backends;
                let others = of_pool.iter().map(|backend| backend.address);
                let others = others.filter(|address| *address != of_pool[spared.0].address).collect();
                let known: BTreeSet<u16> = backends.iter().map(|(known, _)| *known).collect();
                let pools = self.pool_names();
                let left = self.leaving.at(&others, |pool| !pools.iter().any(|known| known == pool));
                backends.extend(left.filter(|(slot, _)| !known.contains(slot)));
                backends.retain(|(known, _)| *known != slot(spared));
                backends
            }
        };
        let active = tables.active(slots.pool.index).backend();
        backends.retain(|(slot, _)| Some(*slot) != active);
        let doomed = |(slot, name)| Ok(Doomed { slot, name, exits: tables.exits(slot)? });
        backends.into_iter().map(doomed).collect()
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
            Done::CutAgain(cut) => self.try_cut(cut),
            Done::Left(slot, report) => self.was_left(slot, report),
            Done::Replayed(pool, report) => was_replayed(&pool, &report),
            Done::Looked(looked) => self.looked(*looked),
            Done::Hook(run, end) => self.policy.handle_hook(run, end, self.clock.now()),
            Done::Attached(interface, result) => self.was_attached(&interface, *result),
            Done::AttachAgain(interface, number) => self.attach_again(&interface, number),
            Done::Asked(round) => self.asked(*round),
            Done::Prepared(prepared) => self.prepared(*prepared),
        }
    }

    fn was_cut(&mut self, by_slots: SlotCut, ends: Result<Vec<CutEnd>, DataplaneError>) {
        let Some(cut) = self.by_place(by_slots) else {
            self.cuts.ended(by_slots);
            return;
        };
        let problem = match ends {
            Ok(ends) => {
                let problems = ends.into_iter().filter_map(|end| self.one_was_cut(cut.pool, end));
                problems.reduce(|all, another| format!("{all}; {another}"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            self.cut_failed(by_slots, problem);
        } else {
            self.cuts.ended(by_slots);
            self.policy.handle_cut(cut, self.clock.now());
        }
    }

    /// Of one backend; says why not all of its flows have ended.
    fn one_was_cut(&mut self, pool: PoolIndex, end: CutEnd) -> Option<String> {
        let CutEnd { backend, slot, report } = end;
        let CutReport { flows, resets_sent, problem } = match report {
            Ok(report) => report,
            Err(error) => return Some(format!("{backend}: {error}")),
        };
        let pool_name = self.pool_name(pool).to_owned();
        if let Some(problem) = &problem {
            warn!(
                event = "cut",
                pool = pool_name,
                backend,
                error = %problem,
                "not all were told; those get a RST when they say something",
            );
        }
        if flows > 0 {
            info!(event = "cut", pool = pool_name, backend, flows, resets_sent);
            let untold = problem.map(|problem| {
                format!("; not all were told ({problem}), and get theirs when they say something")
            });
            let untold = untold.unwrap_or_default();
            let evidence = format!("{flows} flows ended, {resets_sent} clients were sent a RST{untold}");
            self.note(Entry::cut(&pool_name, &backend, evidence));
        }
        *self.resets_sent.entry(slot).or_default() += resets_sent;
        None
    }
}

fn end(finished: Finished) -> HookEnd {
    match finished.outcome {
        Outcome::Done => HookEnd::Good,
        Outcome::Failed | Outcome::NeverRan => HookEnd::Bad(finished.evidence),
    }
}
