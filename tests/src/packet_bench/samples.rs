//! What was measured: every round of every row, and what a row comes to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::machine::Machine;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) what: String,
    /// How many flows the packets belong to.
    pub(super) flows: u64,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, flows: u64) -> Self {
        Self { what: what.into(), flows }
    }
}

/// One round of a row.
#[derive(Clone, Debug)]
struct Round {
    row: Row,
    /// Whose cost is in it and is subtracted.
    harness: Option<Row>,
    packets: u32,
    cpu: Duration,
}

impl Round {
    fn ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / f64::from(self.packets)
    }
}

/// All rounds in the order in which they were run.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Round>);

/// What the rounds of a row come to, in ns/packet without the harness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) rounds: usize,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Samples {
    pub(super) fn add(&mut self, row: &Row, harness: Option<Row>, packets: u32, cpu: Duration) {
        self.0.push(Round { row: row.clone(), harness, packets, cpu });
    }

    /// The rows in the order in which they were first measured.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for round in &self.0 {
            if !rows.contains(&round.row) {
                rows.push(round.row.clone());
            }
        }
        rows
    }

    /// `None` if the row was never measured.
    pub(super) fn summary(&self, row: &Row) -> Option<Summary> {
        let rounds: Vec<&Round> = self.0.iter().filter(|round| round.row == *row).collect();
        let harness = match &rounds.first()?.harness {
            Some(harness) => self.summary(harness)?.median,
            None => 0.0,
        };
        let mut ns: Vec<f64> = rounds.iter().map(|round| round.ns() - harness).collect();
        ns.sort_by(f64::total_cmp);
        let middle = |from: usize| (ns[from] + ns[ns.len() - 1 - from]) / 2.0;
        let median = middle((ns.len() - 1) / 2);
        Some(Summary { rounds: ns.len(), median, least: ns[0], most: ns[ns.len() - 1] })
    }

    /// Writes every round into a new file of this directory.
    pub(super) fn write(&self, directory: &Path, machine: &Machine) -> Result<PathBuf> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let file = directory.join(format!("packet-{now}.json"));
        let round = |round: &Round| {
            json!({
                "what": round.row.what,
                "flows": round.row.flows,
                "packets": round.packets,
                "cpu_ns": round.cpu.as_nanos() as u64,
                "harness": round.harness.as_ref().map(|harness| &harness.what),
            })
        };
        let rounds: Vec<Value> = self.0.iter().map(round).collect();
        let all = json!({ "machine": machine.to_string(), "began": now, "rounds": rounds });
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        fs::write(&file, format!("{all:#}\n")).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ns: &[u64]) -> Samples {
        let mut samples = Samples::default();
        let harness = Row::new("harness", 1);
        samples.add(&harness, None, 10, Duration::from_nanos(100));
        for ns in ns {
            samples.add(&Row::new("a", 1), Some(harness.clone()), 10, Duration::from_nanos(ns * 10));
        }
        samples
    }

    #[test]
    fn a_row_comes_to_its_median_without_the_harness() {
        let summary = samples(&[40, 20, 90]).summary(&Row::new("a", 1)).unwrap();
        assert_eq!(summary, Summary { rounds: 3, median: 30.0, least: 10.0, most: 80.0 });
        assert_eq!(samples(&[40, 20]).summary(&Row::new("a", 1)).unwrap().median, 20.0);
    }

    #[test]
    fn what_was_not_measured_comes_to_nothing() {
        assert_eq!(samples(&[1]).summary(&Row::new("a", 2)), None);
        assert_eq!(samples(&[1]).rows().len(), 2);
    }
}
