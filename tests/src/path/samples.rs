//! All values of all rounds, and what they come to: medians and their spread, and what failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::plain::percentile;

use super::{metric::Metric, subject::Subject};

/// The values of a run.
#[derive(Debug, Default)]
pub struct Samples {
    values: BTreeMap<(Metric, Subject), Vec<f64>>,
    connections: BTreeMap<Subject, Attempts>,
    busy_meanwhile: Vec<f64>,
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

    pub(super) fn add_busy_meanwhile(&mut self, cpus: f64) {
        self.busy_meanwhile.push(cpus);
    }

    /// How many CPUs did something else, in the middle of all turns.
    #[must_use]
    pub fn busy_meanwhile(&self) -> Option<f64> {
        percentile(&mut self.busy_meanwhile.clone(), 50)
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
}
