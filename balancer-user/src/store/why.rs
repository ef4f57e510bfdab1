//! Why the active backend is the active one: the records that a person needs who is woken up and asks.
//!
//! The rule, read from the newest record backwards, of the pool only:
//!
//! 1. the newest `transition` to the active backend, and how long clients had nobody, if that is known (`answered`); what
//!    else happened after it did not lead to it;
//! 2. what was known and asked before it: of each backend the last `health`, each accepted `command`, and every alarm
//!    (`all_down`, `waiting`, their ends), and each step that the change took (`switching`, `hook`, `held`, `resumed`). A
//!    refused command changed nothing, and a health that another one followed was over by then;
//! 3. the `transition` before it, which tells where the pool had been, and ends the chain.
//!
//! A chain without its end is one whose beginning the journal has forgotten. An empty one: all of it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::control::protocol::Record;

/// The longest chain: a screen or two. Beyond it only the transition before is looked for.
const MAX_RECORDS: usize = 64;

/// A chain in the making.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pool: &'a str,
    active: &'a str,
    records: Vec<Record>,
    /// The active backend's first answer, until the change is found that made it active.
    answered: Option<Record>,
    /// Backends whose last health is known already.
    told: BTreeSet<String>,
}

impl<'a> Chain<'a> {
    pub(super) const fn new(pool: &'a str, active: &'a str) -> Self {
        Self { pool, active, records: Vec::new(), answered: None, told: BTreeSet::new() }
    }

    /// The next older record.
    pub(super) fn consider(&mut self, record: Record) -> ControlFlow<()> {
        if record.pool.as_deref() != Some(self.pool) {
            return ControlFlow::Continue(());
        }
        let is_transition = record.event == "transition";
        if self.records.is_empty() {
            if record.to.as_deref() == Some(self.active) {
                match record.event.as_str() {
                    "transition" => {
                        self.records.extend(self.answered.take());
                        self.records.push(record);
                    }
                    "answered" => self.answered = Some(record),
                    _ => {}
                }
            }
            return ControlFlow::Continue(());
        }
        if is_transition {
            self.records.push(record);
            return ControlFlow::Break(());
        }
        if self.records.len() < MAX_RECORDS && self.explains(&record) {
            self.records.push(record);
        }
        ControlFlow::Continue(())
    }

    fn explains(&mut self, record: &Record) -> bool {
        match record.event.as_str() {
            "health" => record.backend.as_ref().is_some_and(|backend| self.told.insert(backend.clone())),
            "command" => record.reason.as_deref() == Some("accepted"),
            "all_down" | "all_down_over" | "waiting" | "waiting_over" | "admin" => true,
            "switching" | "hook" | "held" | "resumed" | "abandoned" => true,
            _ => false,
        }
    }

    pub(super) fn finish(self) -> Vec<Record> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `event pool backend from to reason`, `-` for none.
    fn record(id: u64, line: &str) -> Record {
        let mut words = line.split(' ').map(|word| Some(word.to_owned()).filter(|word| word != "-"));
        let mut next = || words.next().flatten();
        Record {
            id,
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            event: next().unwrap(),
            pool: next(),
            backend: next(),
            from: next(),
            to: next(),
            reason: next(),
            evidence: None,
        }
    }

    /// The ids of the chain; the lines are oldest first and count from 1.
    fn why(active: &str, lines: &[&str]) -> Vec<u64> {
        let mut chain = Chain::new("p", active);
        for (index, line) in lines.iter().enumerate().rev() {
            if chain.consider(record(index as u64 + 1, line)).is_break() {
                break;
            }
        }
        chain.finish().iter().map(|record| record.id).collect()
    }

    #[test]
    fn a_failover_is_explained_by_the_failure_and_the_place_before() {
        let story = [
            "transition p - - a initial",
            "health p b unknown up -",
            "transition p - b a operator",
            "health p a up down refused",
            "health other a up down refused",
            "transition p - a b backend_down",
            "health p a down probation -",
            "health p a probation up -",
        ];
        assert_eq!(why("b", &story), [6, 4, 3]);
    }

    #[test]
    fn how_long_a_failover_took_is_told_with_it() {
        let story = [
            "transition p - - a initial",
            "health p a up down refused",
            "transition p - a b backend_down",
            "answered p - a b -",
            "health p a down up -",
        ];
        assert_eq!(why("b", &story), [4, 3, 2, 1]);
        let again = [&story[..], &["transition p - b a failback", "transition p - a b operator"]].concat();
        assert_eq!(why("b", &again), [7, 6], "of that change nothing is told");
    }

    #[test]
    fn only_the_last_health_of_a_backend_counts() {
        let story = [
            "transition p - - a initial",
            "health p b unknown up -",
            "health p b up down timeout",
            "health p c unknown up -",
            "health p a up down refused",
            "transition p - a c backend_down",
        ];
        assert_eq!(why("c", &story), [6, 5, 4, 3, 1], "the first one in order was down, too");
        // `initial` has no place before.
        assert_eq!(why("a", &story[..1]), [1]);
    }

    #[test]
    fn a_command_that_was_refused_explains_nothing() {
        let story = [
            "transition p - - a initial",
            "command p b - - refused",
            "command p b - - accepted",
            "transition p - a b operator",
            "command p a - - accepted",
        ];
        assert_eq!(why("b", &story), [4, 3, 1]);
    }

    #[test]
    fn a_journal_that_has_forgotten_tells_what_it_has() {
        assert_eq!(why("b", &["health p a up down refused", "transition p - a b backend_down"]), [2, 1]);
        assert_eq!(why("b", &["transition p - b a failback"]), [0; 0]);
        assert_eq!(why("b", &[]), [0; 0]);
    }

    #[test]
    fn a_chain_is_bounded_and_still_ends_with_the_place_before() {
        let mut story = vec!["transition p - - a initial"];
        story.extend(["all_down p - - - -"; 1000]);
        story.push("transition p - a b backend_down");
        let chain = why("b", &story);
        assert_eq!((chain.len(), chain[0], chain[MAX_RECORDS]), (MAX_RECORDS + 1, 1002, 1));
    }
}
