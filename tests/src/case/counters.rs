//! Everything that the program counts, as one value that can be predicted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;

use balancer_common::abi::Traffic;
use balancer_common::verdict::Reason;

use super::expect::Counter;

/// Every counter, and how many entries the flow tables have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Drops by reason.
    pub drops: BTreeMap<Reason, u64>,
    /// Answers by reason.
    pub answers: BTreeMap<Reason, u64>,
    /// What passed and was counted, by reason.
    pub passed: BTreeMap<Reason, u64>,
    /// Traffic by service; all are there.
    pub services: BTreeMap<SocketAddr, Traffic>,
    /// Traffic by backend's name; all are there.
    pub backends: BTreeMap<String, Traffic>,
    /// Entries of handshakes under way, two for each.
    pub half_open_entries: usize,
    /// Entries of established flows, two for each.
    pub established_entries: usize,
}

impl Counters {
    pub(super) fn of(&mut self, counter: Counter) -> &mut BTreeMap<Reason, u64> {
        match counter {
            Counter::Drops => &mut self.drops,
            Counter::Answers => &mut self.answers,
            Counter::Passed => &mut self.passed,
        }
    }

    /// How often this reason was counted.
    #[must_use]
    pub fn count(&self, counter: Counter, reason: Reason) -> u64 {
        let counts = match counter {
            Counter::Drops => &self.drops,
            Counter::Answers => &self.answers,
            Counter::Passed => &self.passed,
        };
        counts.get(&reason).copied().unwrap_or(0)
    }

    /// How many packets were counted by a reason: drops, answers, and what passed.
    #[must_use]
    pub fn by_reason(&self) -> [u64; 3] {
        [&self.drops, &self.answers, &self.passed].map(|counts| counts.values().sum())
    }

    /// Each counter that `seen` has otherwise.
    pub(super) fn differences(&self, seen: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let reason = |reason: &Reason| reason.name().to_owned();
        different("drops", &self.drops, &seen.drops, reason, &mut differences);
        different("answers", &self.answers, &seen.answers, reason, &mut differences);
        different("passed", &self.passed, &seen.passed, reason, &mut differences);
        different("service", &self.services, &seen.services, SocketAddr::to_string, &mut differences);
        different("backend", &self.backends, &seen.backends, String::clone, &mut differences);
        for (what, expected, seen) in [
            ("handshakes", self.half_open_entries, seen.half_open_entries),
            ("flows", self.established_entries, seen.established_entries),
        ] {
            if expected != seen {
                differences.push(format!("entries of {what}: {expected} expected, {seen} seen"));
            }
        }
        differences
    }
}

/// Adds a line for each key whose values differ; one that isn't there counts as zero.
fn different<K: Ord, V: PartialEq + Default + Debug + Clone>(
    what: &str,
    expected: &BTreeMap<K, V>,
    seen: &BTreeMap<K, V>,
    name: impl Fn(&K) -> String,
    differences: &mut Vec<String>,
) {
    let keys: BTreeSet<&K> = expected.keys().chain(seen.keys()).collect();
    for key in keys {
        let value = |of: &BTreeMap<K, V>| of.get(key).cloned().unwrap_or_default();
        let (expected, seen) = (value(expected), value(seen));
        if expected != seen {
            differences.push(format!("{what} {}: {expected:?} expected, {seen:?} seen", name(key)));
        }
    }
}
