//! What happens, as records: numbered here, handed to the store, and to those who follow.
//!
//! Deliberately not here: the log, which says the same to whoever reads it at once (`carry_out`).

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::control::protocol::{Command, Record};
use crate::control::server::Asker;
use crate::policy::{BackendIndex, Event, PoolIndex};
use crate::store::{Remembered, Store};

/// Readers that follow at once, the dashboard among them; each may wait for as many records as below.
const MAX_FOLLOWERS: usize = 17;
/// Records that wait for one of them; who has more misses some, and is dropped for it.
const MAX_WAITING: usize = 256;

/// The numbering of records, and who wants to hear of each.
#[derive(Debug)]
pub(super) struct Journal {
    last_event: u64,
    followers: Vec<mpsc::Sender<Arc<Record>>>,
}

/// A record without what is the same for all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    event: &'static str,
    pool: Option<String>,
    backend: Option<String>,
    from: Option<String>,
    to: Option<String>,
    reason: Option<String>,
    evidence: Option<String>,
}

impl Journal {
    /// Numbers go on after `last_event`.
    pub(super) const fn after(last_event: u64) -> Self {
        Self { last_event, followers: Vec::new() }
    }

    pub(super) const fn last_event(&self) -> u64 {
        self.last_event
    }

    /// It has happened now.
    pub(super) fn note(&mut self, entry: Entry, store: &Store) -> Record {
        self.last_event = self.last_event.saturating_add(1);
        let Entry { event, pool, backend, from, to, reason, evidence } = entry;
        let record = Record {
            id: self.last_event,
            at: SystemTime::now().into(),
            event: event.to_owned(),
            pool,
            backend,
            from,
            to,
            reason,
            evidence,
        };
        let record = record.bounded();
        if !self.followers.is_empty() {
            let record = Arc::new(record.clone());
            // One that is full finds out by the number that it missed.
            let hears = |follower: &mpsc::Sender<_>| {
                !matches!(follower.try_send(record.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            };
            self.followers.retain(hears);
        }
        store.append(record.clone());
        record
    }

    /// Every record from now on; `None`: too many hear them already.
    pub(super) fn follow(&mut self) -> Option<mpsc::Receiver<Arc<Record>>> {
        self.followers.retain(|follower| !follower.is_closed());
        if self.followers.len() >= MAX_FOLLOWERS {
            return None;
        }
        let (follower, records) = mpsc::channel(MAX_WAITING);
        self.followers.push(follower);
        Some(records)
    }

    /// There will be no more.
    pub(super) fn end(&mut self) {
        self.followers.clear();
    }
}

/// Words that were not empty.
fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

impl Entry {
    /// Something that the policy tells.
    pub(super) fn of_event(event: &Event, config: &Config) -> Self {
        let pool = |pool: &PoolIndex| Some(config.pools[pool.0].name.clone());
        let name = |pool: &PoolIndex, backend: BackendIndex| {
            Some(config.pools[pool.0].backends[backend.0].name.clone())
        };
        match event {
            Event::Health { pool: index, backend, from, to, reason } => Self {
                event: "health",
                pool: pool(index),
                backend: name(index, *backend),
                from: some(from.token()),
                to: some(to.token()),
                reason: reason.clone(),
                evidence: None,
            },
            Event::Transition { id: _, pool: index, from, to, reason, evidence } => Self {
                event: "transition",
                pool: pool(index),
                from: from.and_then(|from| name(index, from)),
                to: name(index, *to),
                reason: some(reason.token()),
                evidence: some(evidence),
                ..Self::default()
            },
            Event::Switching { id, pool: index, from, to, reason, evidence } => Self {
                event: "switching",
                pool: pool(index),
                from: from.and_then(|from| name(index, from)),
                to: name(index, *to),
                reason: some(reason.token()),
                evidence: Some(format!("transition {id}: {evidence}")),
                ..Self::default()
            },
            Event::Hook { id, pool: index, step, failure } => {
                let hook = config.pools[index.0].hooks.get(*step).map_or("", |hook| &hook.name);
                let end = failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
                Self {
                    event: "hook",
                    pool: pool(index),
                    reason: some(if failure.is_some() { "failed" } else { "done" }),
                    evidence: Some(format!("{hook:?}{end} (transition {id}, step {step})")),
                    ..Self::default()
                }
            }
            Event::Held { id, pool: index, to, evidence } => Self {
                event: "held",
                pool: pool(index),
                to: to.and_then(|to| name(index, to)),
                evidence: Some(match id {
                    Some(id) => format!("transition {id}: {evidence}"),
                    None => evidence.clone(),
                }),
                ..Self::default()
            },
            Event::Resumed { id, pool: index, skip } => Self {
                event: "resumed",
                pool: pool(index),
                reason: some(if *skip { "skip" } else { "retry" }),
                evidence: Some(format!("transition {id}")),
                ..Self::default()
            },
            Event::Abandoned { id, pool: index, evidence } => Self {
                event: "abandoned",
                pool: pool(index),
                evidence: Some(format!("transition {id} {evidence}")),
                ..Self::default()
            },
            Event::Waiting { pool: index, active, to, evidence } => Self {
                event: "waiting",
                pool: pool(index),
                from: name(index, *active),
                to: name(index, *to),
                evidence: some(evidence),
                ..Self::default()
            },
            Event::WaitingOver { pool: index } => {
                Self { event: "waiting_over", pool: pool(index), ..Self::default() }
            }
            Event::Admin { pool: index, backend, from, to } => Self {
                event: "admin",
                pool: pool(index),
                backend: name(index, *backend),
                from: some(from.token()),
                to: some(to.token()),
                ..Self::default()
            },
            Event::Drained { pool: index, backend } => Self {
                event: "drained",
                pool: pool(index),
                backend: name(index, *backend),
                ..Self::default()
            },
            Event::AllDown { pool: index, active, evidence } => Self {
                event: "all_down",
                pool: pool(index),
                backend: active.and_then(|active| name(index, active)),
                evidence: some(evidence),
                ..Self::default()
            },
            Event::AllDownOver { pool: index } => {
                Self { event: "all_down_over", pool: pool(index), ..Self::default() }
            }
            Event::ProbeLost { pool: index, backend, service } => Self {
                event: "probe_lost",
                pool: pool(index),
                backend: name(index, *backend),
                evidence: Some(format!("service {}", config.pools[index.0].services[service.0].name)),
                ..Self::default()
            },
            Event::Stalled { late, probes } => Self {
                event: "stalled",
                evidence: Some(format!("the daemon did not run for {late:?}; {probes} probes are repeated")),
                ..Self::default()
            },
        }
    }

    /// A backend's certificate ends soon, or has.
    pub(super) fn certificate(pool: &str, backend: &str, reason: &str, evidence: String) -> Self {
        Self {
            event: "certificate",
            pool: some(pool),
            backend: some(backend),
            reason: some(reason),
            evidence: Some(evidence),
            ..Self::default()
        }
    }

    /// A command, who gave it, and what came of it.
    pub(super) fn of_command(command: &Command, asker: Asker, outcome: Result<&str, &str>) -> Self {
        let (reason, said) = match outcome {
            Ok(said) => ("accepted", said),
            Err(said) => ("refused", said),
        };
        Self {
            event: "command",
            pool: some(command.pool()),
            backend: command.backend().map(str::to_owned),
            reason: some(reason),
            evidence: Some(format!("`{}` by {asker}: {said}", command.typed())),
            ..Self::default()
        }
    }

    /// The configuration was read once more, or should have been; `reason` says what came of it.
    pub(super) fn reload(reason: &str, evidence: String) -> Self {
        Self { event: "reload", reason: some(reason), evidence: Some(evidence), ..Self::default() }
    }

    /// A backend's host name leads elsewhere now, or somewhere for the first time.
    pub(super) fn address(
        pool: &str,
        backend: &str,
        (from, to): (Option<String>, String),
        host: &str,
    ) -> Self {
        let (pool, backend) = (some(pool), some(backend));
        Self { event: "address", pool, backend, from, to: Some(to), evidence: some(host), ..Self::default() }
    }

    /// A table of flows fills up.
    pub(super) fn filling(evidence: String) -> Self {
        Self { event: "filling", evidence: Some(evidence), ..Self::default() }
    }

    /// Something is not as it should be; `what` tells it from other troubles.
    pub(super) fn degraded(what: &str, evidence: &str) -> Self {
        Self { event: "degraded", reason: some(what), evidence: some(evidence), ..Self::default() }
    }

    /// It is well again.
    pub(super) fn degraded_over(what: &str) -> Self {
        Self { event: "degraded_over", reason: some(what), ..Self::default() }
    }

    /// The flows of a backend were ended.
    pub(super) fn cut(pool: &str, backend: &str, evidence: String) -> Self {
        let (pool, backend) = (some(pool), some(backend));
        Self { event: "cut", pool, backend, evidence: Some(evidence), ..Self::default() }
    }

    /// Who has become active after a failure has answered a client.
    pub(super) fn answered(pool: &str, from: &str, to: &str, evidence: String) -> Self {
        let (pool, from, to) = (some(pool), some(from), some(to));
        Self { event: "answered", pool, from, to, evidence: Some(evidence), ..Self::default() }
    }

    /// The daemon has started.
    pub(super) fn started(version: &str, fresh: bool, remembered: &Remembered) -> Self {
        let maps = if fresh { "nothing was pinned" } else { "took over what was pinned" };
        let state = match &remembered.state {
            Some(state) => format!("state.json is of {}", state.written),
            None if remembered.was_damaged => "state.json could not be used".to_owned(),
            None => "there was no state.json".to_owned(),
        };
        let evidence = Some(format!("version {version}: {maps}, {state}"));
        Self { event: "started", evidence, ..Self::default() }
    }

    /// The daemon ends.
    pub(super) fn stopped(evidence: &str) -> Self {
        Self { event: "stopped", evidence: some(evidence), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{FailbackCommand, FailoverCommand};
    use crate::directory::LockedDirectory;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(LockedDirectory::open(root.path()).unwrap()).unwrap();
        (root, store)
    }

    #[test]
    fn numbers_go_on_and_followers_hear_each_record_once() {
        let (_root, store) = store();
        let mut journal = Journal::after(41);
        let mut follower = journal.follow().unwrap();
        journal.note(Entry::stopped(""), &store);
        journal.note(Entry::stopped(""), &store);
        assert_eq!(journal.last_event(), 43);
        let heard = [follower.try_recv().unwrap().id, follower.try_recv().unwrap().id];
        assert_eq!(heard, [42, 43]);
        journal.end();
        assert_eq!(follower.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn a_slow_follower_misses_records_and_holds_up_nobody() {
        let (_root, store) = store();
        let mut journal = Journal::after(0);
        let mut slow = journal.follow().unwrap();
        for _ in 0..=MAX_WAITING {
            journal.note(Entry::stopped(""), &store);
        }
        let mut heard: Vec<u64> = std::iter::from_fn(|| Some(slow.try_recv().ok()?.id)).collect();
        assert_eq!(heard.len(), MAX_WAITING);
        journal.note(Entry::stopped(""), &store);
        heard.push(slow.try_recv().unwrap().id);
        assert_eq!(heard[MAX_WAITING], heard[MAX_WAITING - 1] + 2, "the number tells");
    }

    #[test]
    fn followers_are_bounded_and_those_who_left_make_place() {
        let mut journal = Journal::after(0);
        let mut followers: Vec<_> = std::iter::from_fn(|| journal.follow()).collect();
        assert_eq!(followers.len(), MAX_FOLLOWERS);
        followers.pop();
        assert!(journal.follow().is_some());
    }

    #[test]
    fn a_command_is_told_as_typed_with_who_and_what_came_of_it() {
        let to = Some("b".to_owned());
        let failover = Command::Failover(FailoverCommand {
            pool: "p".to_owned(),
            to,
            force: true,
            reset: false,
            no_wait: false,
        });
        let entry = Entry::of_command(&failover, Asker::User(7), Err("b is disabled"));
        assert_eq!((entry.pool.as_deref(), entry.backend.as_deref()), (Some("p"), Some("b")));
        assert_eq!(entry.reason.as_deref(), Some("refused"));
        assert_eq!(entry.evidence.as_deref(), Some("`failover p --to b --force` by uid 7: b is disabled"));
        let failback = Command::Failback(FailbackCommand { pool: "p".to_owned(), no_wait: false });
        let peer = "192.0.2.7:40000".parse().unwrap();
        let entry = Entry::of_command(&failback, Asker::Dashboard(peer), Ok("done"));
        assert_eq!(entry.reason.as_deref(), Some("accepted"));
        assert_eq!(entry.evidence.as_deref(), Some("`failback p` by http from 192.0.2.7:40000: done"));
    }
}
