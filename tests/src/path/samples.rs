//! All values of all rounds, and what they come to: medians and their spread, and what failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::plain::percentile;

use super::{metric::Metric, subject::Subject};

/// More CPUs than this busy with something else, and what a connection costs can't be told from what that costs.
pub(super) const BUSY_MAX: f64 = 0.2;

/// The values of a run.
#[derive(Debug, Default)]
pub struct Samples {
    values: BTreeMap<(Metric, Subject), Vec<f64>>,
    connections: BTreeMap<Subject, Attempts>,
    busy_meanwhile: Vec<(Subject, f64)>,
    notes: BTreeSet<String>,
}

/// How many connections there were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Answered.
    pub ok: u64,
    /// Not.
    pub failed: u64,
}

/// The middle of the values, and how far they are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Middle {
    /// The median.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Samples {
    pub(super) fn add(&mut self, metric: Metric, subject: Subject, value: f64) {
        self.values.entry((metric, subject)).or_default().push(value);
    }

    pub(super) fn count(&mut self, subject: Subject, attempts: Attempts) {
        let all = self.connections.entry(subject).or_default();
        *all = Attempts { ok: all.ok + attempts.ok, failed: all.failed + attempts.failed };
    }

    pub(super) fn add_busy_meanwhile(&mut self, subject: Subject, cpus: f64) {
        self.busy_meanwhile.push((subject, cpus));
    }

    /// How many CPUs did something else, in the middle of all turns.
    #[must_use]
    pub fn busy_meanwhile(&self) -> Option<f64> {
        let mut cpus: Vec<_> = self.busy_meanwhile.iter().map(|&(_, cpus)| cpus).collect();
        percentile(&mut cpus, 50)
    }

    /// Of a subject's turns, how many began while more than a fifth of a CPU did something else; and all of them.
    #[must_use]
    pub fn busy_turns(&self, subject: Subject) -> (usize, usize) {
        let turns = self.busy_meanwhile.iter().filter(|&&(of, _)| of == subject);
        (turns.clone().filter(|&&(_, cpus)| cpus > BUSY_MAX).count(), turns.count())
    }

    /// Something that the reader has to know; told once.
    pub(super) fn note(&mut self, text: String) {
        self.notes.insert(text);
    }

    /// Of all rounds; `None` where nothing was measured.
    #[must_use]
    pub fn middle(&self, metric: Metric, subject: Subject) -> Option<Middle> {
        let mut values = self.values.get(&(metric, subject))?.clone();
        let [median, min, max] = [50, 0, 100].map(|percent| percentile(&mut values, percent));
        Some(Middle { median: median?, min: min?, max: max? })
    }

    /// Balancer's median to this peer's.
    #[must_use]
    pub fn ratio(&self, metric: Metric, peer: Subject) -> Option<f64> {
        let (own, other) = (self.middle(metric, Subject::Balancer)?, self.middle(metric, peer)?);
        (other.median > 0.0).then(|| own.median / other.median)
    }

    /// How much more the median of a subject with a gateway is than that without one; `None`, where that isn't more.
    #[must_use]
    pub fn beyond_the_ends(&self, metric: Metric, subject: Subject) -> Option<f64> {
        let (all, ends) = (self.middle(metric, subject)?, self.middle(metric, Subject::Direct)?);
        Some(all.median - ends.median).filter(|beyond| *beyond > 0.0)
    }

    /// Connections of a subject, of all rounds.
    #[must_use]
    pub fn attempts(&self, subject: Subject) -> Attempts {
        self.connections.get(&subject).copied().unwrap_or_default()
    }

    /// What the reader has to know.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians_and_only_of_what_was_measured() {
        let mut samples = Samples::default();
        for (own, other) in [(3.0, 1.0), (4.0, 2.0), (50.0, 2.0)] {
            samples.add(Metric::Bulk, Subject::Balancer, own);
            samples.add(Metric::Bulk, Subject::Nginx, other);
        }
        assert_eq!(samples.ratio(Metric::Bulk, Subject::Nginx), Some(2.0));
        assert_eq!(samples.ratio(Metric::Bulk, Subject::Nft), None);
        let middle = samples.middle(Metric::Bulk, Subject::Balancer);
        assert_eq!(middle, Some(Middle { median: 4.0, min: 3.0, max: 50.0 }));
    }

    #[test]
    fn a_gateway_costs_what_is_more_than_without_one() {
        let mut samples = Samples::default();
        for (subject, cpu) in [(Subject::Balancer, 87.0), (Subject::Direct, 70.0), (Subject::Nft, 69.0)] {
            samples.add(Metric::CpuPerConnection, subject, cpu);
        }
        let cost = |subject| samples.beyond_the_ends(Metric::CpuPerConnection, subject);
        assert_eq!(cost(Subject::Balancer), Some(17.0));
        assert_eq!([Subject::Direct, Subject::Nft, Subject::Nginx].map(cost), [None; 3]);
    }

    #[test]
    fn a_turn_is_busy_above_the_bound() {
        let mut samples = Samples::default();
        for (subject, cpus) in [(Subject::Nft, BUSY_MAX), (Subject::Nft, 1.5), (Subject::Nginx, 0.0)] {
            samples.add_busy_meanwhile(subject, cpus);
        }
        assert_eq!(samples.busy_turns(Subject::Nft), (1, 2));
        assert_eq!(samples.busy_turns(Subject::Nginx), (0, 1));
        assert_eq!(samples.busy_meanwhile(), Some(BUSY_MAX));
    }
}
