//! The operator's commands: to the policy, into the journal, and back when they are done.
//!
//! A change that takes steps is answered when the last of them has ended, or when it is held; so is one that was begun by
//! somebody else and let go on. Who has flows reset (`maint`, `failover --reset`, a drain whose time is over by then) hears of
//! it when they have ended. How many wait is bounded by the control server.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::control::protocol::{Command as Asked, Outcome};
use crate::control::server::Asker;
use crate::policy::{Accepted, Admin, Ask, BackendIndex, Command, Cut, Kin, PoolIndex, Whose, Withdrawal};
use crate::store::Unsaved;

use super::{Daemon, Entry};

/// How long a client waits for the disk: what it asked for is done anyhow.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// The way back to whoever asked.
type Reply = oneshot::Sender<Result<Outcome, String>>;

/// Somebody who waits for the end of a change, and then for the end of flows.
pub(super) struct Waiting {
    pool: PoolIndex,
    /// Where it leads to, and its id.
    change: Option<(BackendIndex, u64)>,
    /// Whose flows are to end.
    flows_of: Option<BackendIndex>,
    /// What it has come to so far.
    outcome: Outcome,
    reply: Reply,
}

impl Daemon {
    /// Does what is asked for.
    pub(super) fn obey(&mut self, asked: &Asked, asker: Asker, reply: Reply) {
        let pool = self.parts.config.pools.iter().position(|pool| pool.name == asked.pool()).map(PoolIndex);
        let before = pool.map(|pool| self.policy.snapshot(pool, self.clock.now()));
        let accepted = self.policy.handle_command(&command(asked), self.clock.now());
        let accepted = accepted.map_err(|refusal| refusal.to_string());
        let outcome = accepted.as_ref().map_err(Clone::clone).and_then(|accepted| {
            let pool = pool.ok_or("the pool is gone")?;
            let refused = before.as_ref().is_some_and(|before| before.active.is_none());
            Ok(self.outcome(pool, asked, accepted, refused))
        });
        let said = outcome.as_ref().map(|outcome| outcome.message.as_str()).map_err(String::as_str);
        // A cause comes before what it leads to.
        self.note(Entry::of_command(asked, asker, said));
        let change =
            accepted.as_ref().ok().zip(pool).and_then(|(accepted, pool)| self.change(pool, accepted));
        // In the kernel, and on the disk, before the client hears of it.
        self.carry_out();
        self.remember();
        match (accepted, pool, outcome) {
            (Ok(accepted), Some(pool), Ok(outcome)) if !asked.no_wait() => {
                let flows_of = ending(asked, accepted, before.and_then(|before| before.holder));
                self.wait(Waiting { pool, change, flows_of, outcome, reply });
            }
            (_, _, outcome) => self.answer_when_saved(outcome, reply),
        }
    }

    /// Answers, now or later.
    fn wait(&mut self, mut waiting: Waiting) {
        match self.end_of(&mut waiting) {
            Some(outcome) => self.answer_when_saved(outcome, waiting.reply),
            None => self.waiting.push(waiting),
        }
    }

    /// The change that has to end before a command is done.
    fn change(&self, pool: PoolIndex, accepted: &Accepted) -> Option<(BackendIndex, u64)> {
        let view = self.policy.snapshot(pool, self.clock.now());
        let under_way = view.transition?;
        let asked = match *accepted {
            Accepted::Begun { transition, .. }
            | Accepted::Resumed { transition, .. }
            | Accepted::Moved { transition, .. } => Some(transition),
            Accepted::Set { transition, .. } => transition,
            Accepted::AlreadyActive { .. } => None,
        };
        (asked == Some(under_way.id)).then_some((under_way.to, under_way.id))
    }

    /// Answers those whose change and whose cut have ended, or stand still.
    pub(super) fn answer_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let still_there = waiting.into_iter().filter(|waiting| !waiting.reply.is_closed());
        still_there.for_each(|waiting| self.wait(waiting));
    }

    /// Pools and backends stand elsewhere now; who waits for one that is gone is told.
    pub(super) fn move_waiting(&mut self, kin: &[Kin]) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let Some((pool, kin)) = Kin::of(kin, waiting.pool) else {
                let gone =
                    "the pool has left the configuration meanwhile: what becomes of it is not waited for";
                // Who asked may be gone.
                let _ = waiting.reply.send(Err(gone.to_owned()));
                continue;
            };
            waiting.pool = pool;
            let change = waiting.change.map(|(to, id)| kin.backend(to).map(|to| (to, id)));
            if change == Some(None) {
                let gone = "the backend to be has left the configuration meanwhile: `balancer status` tells what follows";
                let _ = waiting.reply.send(Err(gone.to_owned()));
                continue;
            }
            waiting.change = change.flatten();
            // Those of one that is gone end by its drain_deadline.
            waiting.flows_of = waiting.flows_of.and_then(|backend| kin.backend(backend));
            self.waiting.push(waiting);
        }
    }

    /// What came of it, once everything has ended.
    fn end_of(&self, waiting: &mut Waiting) -> Option<Result<Outcome, String>> {
        if let Some((to, transition)) = waiting.change {
            if let Err(problem) = self.end_of_change(waiting.pool, to, transition)? {
                return Some(Err(problem));
            }
            let (pool, to) = (self.pool_name(waiting.pool), self.backend_name(waiting.pool, to));
            waiting.outcome.active = Some(to.to_owned());
            waiting.outcome.message =
                format!("{to} is the active backend of {pool} now (transition {transition})");
            waiting.change = None;
        }
        if let Some(backend) = waiting.flows_of {
            let cut = Cut { pool: waiting.pool, whose: Whose::Of(backend), transition: None };
            if let Some(problem) = self.cuts.under_way(self.by_slots(cut)) {
                let (backend, said) = (self.backend_name(waiting.pool, backend), &waiting.outcome.message);
                return problem.map(|problem| {
                    Err(format!(
                        "{said}, but flows of {backend} could not be ended: {problem}; it is tried again"
                    ))
                });
            }
        }
        Some(Ok(waiting.outcome.clone()))
    }

    /// Whether a change has led where it should; nothing while it is under way.
    fn end_of_change(
        &self,
        pool: PoolIndex,
        to: BackendIndex,
        transition: u64,
    ) -> Option<Result<(), String>> {
        let view = self.policy.snapshot(pool, self.clock.now());
        let is_active = view.holder == Some(to);
        let (pool, to) = (self.pool_name(pool), self.backend_name(pool, to));
        match view.transition.filter(|change| change.id == transition) {
            Some(change) => {
                let held = change.held?;
                Some(Err(if is_active {
                    format!("{to} is active in {pool}, but what comes behind is held: {held}")
                } else {
                    format!("{pool} is held on its way to {to}: {held}")
                }))
            }
            None if is_active => Some(Ok(())),
            None => Some(Err(format!("the change of {pool} to {to} was given up for another"))),
        }
    }

    /// `refused`: new flows were refused before.
    fn outcome(&self, pool: PoolIndex, asked: &Asked, accepted: &Accepted, refused: bool) -> Outcome {
        let (name, of) = (self.pool_name(pool), |backend| self.backend_name(pool, backend));
        let active = self.policy.snapshot(pool, self.clock.now()).active;
        let (changed, message) = match *accepted {
            Accepted::AlreadyActive { active: to } if refused && active == Some(to) => {
                (true, format!("{} of {name} gets new flows again", of(to)))
            }
            Accepted::AlreadyActive { active } => {
                (false, format!("{} is the active backend of {name} already", of(active)))
            }
            Accepted::Moved { active, transition } => (
                true,
                format!("{} is the active backend of {name} now (transition {transition})", of(active)),
            ),
            Accepted::Begun { to, transition } => {
                (true, format!("{name} is switching to {} (transition {transition})", of(to)))
            }
            Accepted::Resumed { to, transition } => {
                (true, format!("{name} goes on towards {} (transition {transition})", of(to)))
            }
            Accepted::Set { backend, from: Admin::Drain, to: Admin::Drain, .. } if has_a_deadline(asked) => {
                (true, format!("{} of {name} is drain, as before, and has another deadline now", of(backend)))
            }
            Accepted::Set { backend, from, to, .. } => {
                let verb = if from == to { "is already" } else { "is now" };
                (from != to, format!("{} of {name} {verb} {}", of(backend), to.token()))
            }
        };
        Outcome { changed, active: active.map(|active| of(active).to_owned()), message }
    }

    /// A command that was carried out and could not be written down is no failure, but whoever gave it has to know.
    fn answer_when_saved(&self, outcome: Result<Outcome, String>, reply: Reply) {
        let saved = self.store.saved(DISK_PATIENCE);
        tokio::spawn(async move {
            let outcome = match outcome {
                Ok(outcome) => Ok(with_warning(outcome, saved.await)),
                refused => refused,
            };
            // Who asked may be gone.
            let _ = reply.send(outcome);
        });
    }
}

/// Whether it is a drain whose time was told.
fn has_a_deadline(asked: &Asked) -> bool {
    matches!(asked, Asked::Drain(drain) if drain.deadline_ms.is_some())
}

fn with_warning(mut outcome: Outcome, saved: Result<(), Unsaved>) -> Outcome {
    if let Err(problem) = saved {
        outcome.message.push_str(&format!("; a reboot may forget it: {problem}"));
    }
    outcome
}

/// Whose flows a command has ended, `before` being the active backend until then. A drain's only if its time is over.
fn ending(asked: &Asked, accepted: Accepted, before: Option<BackendIndex>) -> Option<BackendIndex> {
    match (asked, accepted) {
        (_, Accepted::Set { backend, to: Admin::Maint | Admin::Drain, .. }) => Some(backend),
        (Asked::Failover(failover), Accepted::Moved { .. } | Accepted::Begun { .. }) if failover.reset => {
            before
        }
        _ => None,
    }
}

/// As the policy understands it.
fn command(asked: &Asked) -> Command {
    let ask = match asked {
        Asked::Failover(asked) => {
            Ask::Failover { to: asked.to.clone(), force: asked.force, reset: asked.reset }
        }
        Asked::Failback(_) => Ask::Failback,
        Asked::Drain(asked) => {
            let deadline = asked.deadline_ms.map(Duration::from_millis);
            let how = Withdrawal::Drain { deadline };
            Ask::Withdraw { backend: asked.backend.clone(), how, force: asked.force }
        }
        Asked::Maint(asked) => {
            Ask::Withdraw { backend: asked.backend.clone(), how: Withdrawal::Maint, force: asked.force }
        }
        Asked::Ready(asked) => Ask::PutBack { backend: asked.backend.clone() },
        Asked::Resume(asked) => Ask::Resume { skip: asked.skip },
    };
    Command { pool: asked.pool().to_owned(), ask }
}
