//! The operator's commands: to the policy, into the journal, and back when they are done.
//!
//! A change that takes steps is answered when the last of them has ended, or when it is held; so is one that was begun by
//! somebody else and let go on. How many wait is bounded by the control server.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::control::protocol::{Command as Asked, Outcome};
use crate::policy::{Accepted, Ask, BackendIndex, Command, PoolIndex, Withdrawal};
use crate::store::Unsaved;

use super::{Daemon, Entry};

/// How long a client waits for the disk: what it asked for is done anyhow.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// The way back to whoever asked.
type Reply = oneshot::Sender<Result<Outcome, String>>;

/// Somebody who waits for the end of a change.
pub(super) struct Waiting {
    pool: PoolIndex,
    to: BackendIndex,
    transition: u64,
    /// What it has come to so far.
    outcome: Outcome,
    reply: Reply,
}

impl Daemon {
    /// Does what the user with this id asks for.
    pub(super) fn obey(&mut self, asked: &Asked, uid: u32, reply: Reply) {
        let accepted = self.policy.handle_command(&command(asked), self.clock.now());
        let accepted = accepted.map_err(|refusal| refusal.to_string());
        let pool = self.parts.config.pools.iter().position(|pool| pool.name == asked.pool()).map(PoolIndex);
        let outcome = accepted.as_ref().map_err(Clone::clone).and_then(|accepted| {
            let pool = pool.ok_or("the pool is gone")?;
            Ok(self.outcome(pool, accepted))
        });
        let said = outcome.as_ref().map(|outcome| outcome.message.as_str()).map_err(String::as_str);
        // A cause comes before what it leads to.
        self.note(Entry::of_command(asked, uid, said));
        let waiting = match (accepted, pool, outcome) {
            (Ok(accepted), Some(pool), Ok(outcome)) if !asked.no_wait() => {
                match self.change(pool, accepted) {
                    Some((to, transition)) => {
                        self.waiting.push(Waiting { pool, to, transition, outcome, reply });
                        None
                    }
                    None => Some((Ok(outcome), reply)),
                }
            }
            (_, _, outcome) => Some((outcome, reply)),
        };
        // In the kernel, and on the disk, before the client hears of it.
        self.carry_out();
        self.remember();
        if let Some((outcome, reply)) = waiting {
            self.answer_when_saved(outcome, reply);
        }
    }

    /// The change that has to end before a command is done.
    fn change(&self, pool: PoolIndex, accepted: Accepted) -> Option<(BackendIndex, u64)> {
        let view = self.policy.snapshot(pool, self.clock.now());
        let under_way = view.transition?;
        let asked = match accepted {
            Accepted::Begun { transition, .. }
            | Accepted::Resumed { transition, .. }
            | Accepted::Moved { transition, .. } => Some(transition),
            Accepted::Set { transition, .. } => transition,
            Accepted::AlreadyActive { .. } => None,
        };
        (asked == Some(under_way.id)).then_some((under_way.to, under_way.id))
    }

    /// Answers those whose change has ended, or stands still.
    pub(super) fn answer_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for waiting in waiting.into_iter().filter(|waiting| !waiting.reply.is_closed()) {
            let view = self.policy.snapshot(waiting.pool, self.clock.now());
            let pool = self.pool_name(waiting.pool);
            let to = self.backend_name(waiting.pool, waiting.to);
            let change = view.transition.filter(|change| change.id == waiting.transition);
            let is_active = view.active == Some(waiting.to);
            let outcome = match change {
                Some(change) => match change.held {
                    Some(held) if is_active => {
                        Err(format!("{to} is active in {pool}, but what comes behind is held: {held}"))
                    }
                    Some(held) => Err(format!("{pool} is held on its way to {to}: {held}")),
                    None => {
                        self.waiting.push(waiting);
                        continue;
                    }
                },
                None if is_active => {
                    let mut outcome = waiting.outcome;
                    outcome.active = Some(to.to_owned());
                    outcome.message = format!(
                        "{to} is the active backend of {pool} now (transition {})",
                        waiting.transition
                    );
                    Ok(outcome)
                }
                None => Err(format!("the change of {pool} to {to} was given up for another")),
            };
            self.answer_when_saved(outcome, waiting.reply);
        }
    }

    fn outcome(&self, pool: PoolIndex, accepted: &Accepted) -> Outcome {
        let (name, of) = (self.pool_name(pool), |backend| self.backend_name(pool, backend));
        let active = self.policy.snapshot(pool, self.clock.now()).active;
        let (changed, message) = match *accepted {
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

fn with_warning(mut outcome: Outcome, saved: Result<(), Unsaved>) -> Outcome {
    if let Err(problem) = saved {
        outcome.message.push_str(&format!("; a reboot may forget it: {problem}"));
    }
    outcome
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
