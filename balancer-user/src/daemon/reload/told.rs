//! What people hear of a reload: whoever asked, the log, the journal, and whom an alarm calls.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::control::protocol::{Reloaded, Timestamp};
use crate::control::server::NotReloaded;
use crate::daemon::{Daemon, Entry};
use crate::policy::Moment;
use crate::store::state::Why;

use super::{Cause, Reply};

/// For the disk to have it that a confirmation is waited for, or has come.
const DISK_LIMIT: Duration = Duration::from_secs(5);
/// Differences that are logged, a line each.
const LOGGED: usize = 100;

impl Daemon {
    /// Whoever relies on its being taken back, or on its staying, may rely on that over a power cut, too, unless it says that a
    /// restart may not know of it.
    pub(super) fn reply(&self, reply: Reply, mut reloaded: Reloaded) {
        let saved = self.store.saved(DISK_LIMIT);
        tokio::spawn(async move {
            if let Err(problem) = saved.await {
                reloaded.message.push_str(&format!("; a restart may not know of it: {problem}"));
            }
            let _ = reply.send(Ok(reloaded));
        });
    }

    pub(super) fn tell_reload(&mut self, cause: &Cause, changes: &[String]) {
        let generation = self.reloads.generation;
        let said = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("; ") };
        for change in changes.iter().take(LOGGED) {
            info!(event = "reload", generation, change);
        }
        info!(event = "reload", generation, changes = changes.len(), by = by(cause), "accepted");
        let reason = if matches!(cause, Cause::Expired) { "rolled_back" } else { "accepted" };
        let evidence = format!("generation {generation}, {}: {said}", by(cause));
        let entry = Entry::reload(reason, evidence);
        if matches!(cause, Cause::Expired) {
            self.tell_back(&Why::Late);
            self.alarm(entry);
        } else {
            self.note(entry);
        }
    }

    /// The configuration before a reload is in force again.
    pub(in crate::daemon) fn tell_back(&self, why: &Why) {
        let generation = self.reloads.generation;
        warn!(
            event = "reload",
            generation,
            "the configuration before is back, as the last reload {why}; the file still holds that one"
        );
    }

    /// Nothing is another way.
    pub(super) fn refuse(&mut self, cause: Cause, problem: NotReloaded) {
        let (NotReloaded::Invalid(words) | NotReloaded::Refused(words)) = &problem;
        let by = by(&cause);
        for line in words.lines().take(LOGGED) {
            error!(event = "reload", by, "{line}");
        }
        error!(event = "reload", by, "refused: everything stays as it is");
        let entry = Entry::reload("refused", format!("{by}: {words}"));
        match cause {
            Cause::Verb(_, _, reply) => {
                self.note(entry);
                let _ = reply.send(Err(problem));
            }
            Cause::Expired => {
                let confirmation = self.reloads.confirmation.as_mut();
                // It is tried again and again, and told once.
                if confirmation
                    .is_none_or(|confirmation| !std::mem::replace(&mut confirmation.has_failed, true))
                {
                    self.alarm(entry);
                }
            }
            // Nobody reads an answer.
            Cause::Unwaited(_) => self.alarm(entry),
            Cause::Delayed => {
                // Not again and again: the next reload is the operator's.
                self.reloads.delays.clear();
                self.alarm(entry);
            }
            // A trouble that is told when it comes.
            Cause::Resolved => self.names.refuse(words.clone()),
        }
    }

    pub(in crate::daemon) fn reloaded(&self, changes: Vec<String>) -> Reloaded {
        let generation = self.reloads.generation;
        Reloaded {
            config_generation: generation,
            message: format!("configuration generation {generation} is accepted"),
            changes,
            pending: self.pending(),
            confirm_until: self.reloads.confirmed_until().map(|until| self.written(until)),
        }
    }

    /// For who doesn't wait.
    pub(super) fn begun(&self) -> Reloaded {
        let message = "the configuration is being read; `balancer events` tells what comes of it".to_owned();
        Reloaded { message, ..self.reloaded(Vec::new()) }
    }

    /// As people write it.
    pub(in crate::daemon) fn written(&self, moment: Moment) -> Timestamp {
        self.clock.wall(moment).into()
    }
}

fn by(cause: &Cause) -> String {
    match cause {
        Cause::Verb(asked, uid, _) => format!("`{}` by uid {uid}", asked.typed()),
        Cause::Unwaited(by) => by.clone(),
        Cause::Expired => format!("the last reload {}", Why::Late),
        Cause::Delayed => "what had to wait before".to_owned(),
        Cause::Resolved => "host names that lead elsewhere now".to_owned(),
    }
}
