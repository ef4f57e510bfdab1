//! Whether the flow tables fill up: said when one passes 80, 95 and 100 % of the flows that there may be, and when it is well
//! below again. Numbers in, words out; nothing here decides about a flow.

use tracing::{info, warn};

use crate::dataplane::flows::Fill;

use super::{Daemon, Entry};

/// Percent that are worth a word each.
const LEVELS: [u64; 3] = [80, 95, 100];
/// So much below a level a table has to be before it is said, or one that sways would say it all the time.
const WELL_BELOW: u64 = 5;

/// Both tables' levels.
pub(super) struct Filling {
    established: Gauge,
    half_open: Gauge,
}

/// How many of [`LEVELS`] a table has passed.
#[derive(Debug)]
struct Gauge {
    max: u64,
    passed: usize,
}

/// What is worth a word.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// The table has passed this level.
    Passed(u64),
    /// It had, and is below it.
    Below(u64),
}

impl Filling {
    pub(super) fn new(max_flows: u32, max_half_open: u32) -> Self {
        let gauge = |max: u32| Gauge { max: max.into(), passed: 0 };
        Self { established: gauge(max_flows), half_open: gauge(max_half_open) }
    }

    /// What the tables hold now; for each that has passed a level, what a person should know.
    fn is(&mut self, fill: Fill) -> [Option<String>; 2] {
        [
            self.established.is(fill.established, "established", "max_flows"),
            self.half_open.is(fill.half_open, "half_open", "max_half_open"),
        ]
    }
}

impl Daemon {
    /// The tables were looked at.
    pub(super) fn filled(&mut self, fill: Fill) {
        if let Some(tallies) = self.dashboard.tallies() {
            for (table, gauge, flows) in [
                ("established", &self.filling.established, fill.established),
                ("half_open", &self.filling.half_open, fill.half_open),
            ] {
                tallies.filled(table, flows as f64 / gauge.max as f64);
            }
        }
        for evidence in self.filling.is(fill).into_iter().flatten() {
            self.alarm(Entry::filling(evidence));
        }
    }
}

impl Gauge {
    fn is(&mut self, flows: u64, table: &str, setting: &str) -> Option<String> {
        let max = self.max;
        match self.change(flows)? {
            Change::Passed(percent) => {
                warn!(event = "filling", table, flows, max, percent, "the table fills up: raise {setting}");
                Some(format!("{table}: {flows} flows of {max}, {percent} % or more: raise {setting}"))
            }
            Change::Below(percent) => {
                info!(event = "filling", table, flows, max, percent, "the table is below that again");
                None
            }
        }
    }

    fn change(&mut self, flows: u64) -> Option<Change> {
        let percent = flows * 100 / self.max;
        let passed = LEVELS.iter().filter(|level| **level <= percent).count();
        let highest = self.passed.checked_sub(1).map(|last| LEVELS[last]);
        if passed > self.passed {
            self.passed = passed;
            return Some(Change::Passed(LEVELS[passed - 1]));
        }
        let level = highest.filter(|level| percent + WELL_BELOW < *level)?;
        self.passed = passed;
        Some(Change::Below(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_said_once_on_the_way_up_and_once_well_below() {
        let mut gauge = Gauge { max: 1000, passed: 0 };
        let seen: Vec<Option<Change>> =
            [0, 799, 800, 850, 949, 950, 1000, 1000, 960, 949, 905, 895, 830, 760, 740, 100, 800]
                .map(|flows| gauge.change(flows))
                .into();
        let expected = [
            None,
            None,
            Some(Change::Passed(80)),
            None,
            None,
            Some(Change::Passed(95)),
            Some(Change::Passed(100)),
            None,
            None,
            Some(Change::Below(100)),
            None,
            None,
            None,
            None,
            Some(Change::Below(80)),
            None,
            Some(Change::Passed(80)),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_person_is_told_on_the_way_up_only() {
        let mut filling = Filling::new(1000, 10);
        let told = filling.is(Fill { established: 820, half_open: 0 });
        let expected = "established: 820 flows of 1000, 80 % or more: raise max_flows";
        assert_eq!(told, [Some(expected.to_owned()), None]);
        assert_eq!(filling.is(Fill { established: 100, half_open: 0 }), [None, None]);
    }

    #[test]
    fn a_table_that_fills_at_once_says_the_highest_level_only() {
        assert_eq!(Gauge { max: 4, passed: 0 }.change(4), Some(Change::Passed(100)));
    }
}
