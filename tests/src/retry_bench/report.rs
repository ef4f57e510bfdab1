//! The report, and what is wanted of balancer.

use std::{collections::BTreeMap, path::Path};

use crate::{
    account::{Account, DELAYED_MS, SLOW_MS},
    markdown::{line, table},
    path::machine,
    peers::Peers,
    plain::percentile,
};

use super::{Failure, Measured, Plan, Subject};

/// Nobody was affected.
const NONE: &str = "-";
/// What connecting may take those longer that are sent on at once.
const ADDED_MEDIAN_MAX_MS: f64 = 1.0;
const ADDED_P99_MAX_MS: f64 = 20.0;
/// Of fewer who were affected the median is what the first ones meet: a machine that is busy with the end of a process.
const MEDIAN_OF_MIN: usize = 30;
/// A SYN is repeated after a second; the rest is for a busy machine.
const REPEATED_MAX_MS: f64 = 1250.0;
/// Of one silence, where traffic is what is counted.
const DELAYED_MAX: usize = 100;
const IDLE_MAX_MS: f64 = 2000.0;

/// What all rounds come to.
pub(super) struct Report {
    columns: Vec<Column>,
    idle_ms: Vec<f64>,
}

/// A subject with one failure.
struct Column {
    failure: Failure,
    subject: Subject,
    rounds: Vec<Account>,
}

impl Report {
    pub(super) fn of(measured: &Measured) -> Self {
        let all = [Failure::Killed, Failure::Silenced];
        let pairs = all.iter().flat_map(|&failure| failure.subjects().iter().map(move |&of| (failure, of)));
        let columns = pairs.map(|(failure, subject)| {
            let rounds = measured.accounts.iter().filter(|(of, by, _)| (*of, *by) == (failure, subject));
            Column { failure, subject, rounds: rounds.map(|(_, _, account)| account.clone()).collect() }
        });
        let columns = columns.filter(|column| !column.rounds.is_empty()).collect();
        Self { columns, idle_ms: measured.idle_ms.clone() }
    }

    pub(super) fn text(&self, plan: &Plan, balancer: &Path, peers: &Peers) -> String {
        let mut text = String::from("## Machine\n\n");
        for (what, is) in machine::describe(balancer, peers) {
            line(&mut text, format_args!("- {what}: {is}"));
        }
        let Plan { rounds, before, after, .. } = plan;
        line(
            &mut text,
            format_args!("- {rounds} rounds, {before:?} before each failure and {after:?} after it"),
        );
        for failure in [Failure::Killed, Failure::Silenced] {
            let rate = failure.rate();
            line(&mut text, format_args!("\n## {}, {rate} connections a second\n", capital(failure.title())));
            let columns: Vec<_> = self.columns.iter().filter(|column| column.failure == failure).collect();
            text += &self::failure(failure, &columns);
            errors(&mut text, &columns);
        }
        line(&mut text, format_args!("\n## {} idle connections\n", plan.idle_flows));
        let spread = spread(&self.idle_ms);
        line(&mut text, format_args!("- from the decision to the last client's RST, ms: {spread}"));
        let missed = self.missed();
        line(&mut text, format_args!("\n## Wanted of balancer, and missed\n"));
        if missed.is_empty() {
            line(&mut text, format_args!("- nothing"));
        }
        for what in missed {
            line(&mut text, format_args!("- {what}"));
        }
        text
    }

    /// What is wanted of balancer and isn't so.
    pub(super) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for column in &self.columns {
            let Subject::Balancer { retry, passive } = column.subject else { continue };
            let mut claim = |is_so: bool, what: String| {
                if !is_so {
                    missed.push(format!("{}, {}: {what}", column.failure.title(), column.subject.name()));
                }
            };
            let (failed, slowest) = (column.sum(|round| round.failed), column.slowest_ms());
            claim(failed == 0, format!("{failed} failed, wanted 0"));
            match column.failure {
                Failure::Silenced => {
                    claim(slowest < SLOW_MS, format!("{slowest:.0} ms, wanted less than {SLOW_MS} ms"));
                    let delayed = column.rounds.iter().map(|round| round.delayed).max().unwrap_or(0);
                    let is_few = passive != "count" || delayed <= DELAYED_MAX;
                    claim(is_few, format!("{delayed} delayed in one round, wanted {DELAYED_MAX} at most"));
                }
                Failure::Killed => {
                    let has_median = column.sum(|round| round.added_ms.len()) >= MEDIAN_OF_MIN;
                    let bounds: &[_] = match retry {
                        "instant" if has_median => &[(50, ADDED_MEDIAN_MAX_MS), (99, ADDED_P99_MAX_MS)],
                        "instant" => &[(99, ADDED_P99_MAX_MS)],
                        _ => &[(100, REPEATED_MAX_MS)],
                    };
                    for &(percent, bound) in bounds {
                        let added = column.added_ms(percent).unwrap_or(0.0);
                        let what = format!("p{percent} {added:.2} ms added, wanted less than {bound} ms");
                        claim(added < bound, what);
                    }
                }
            }
        }
        let idle = self.idle_ms.iter().copied().fold(0.0, f64::max);
        if idle > IDLE_MAX_MS {
            missed.push(format!("idle connections: {idle:.0} ms, wanted {IDLE_MAX_MS} ms at most"));
        }
        missed
    }
}

impl Column {
    fn sum(&self, of: impl Fn(&Account) -> usize) -> usize {
        self.rounds.iter().map(of).sum()
    }

    fn slowest_ms(&self) -> f64 {
        self.rounds.iter().map(|round| round.slowest_ms).fold(0.0, f64::max)
    }

    /// Of all who were affected in any round.
    fn added_ms(&self, percent: usize) -> Option<f64> {
        let mut added: Vec<_> = self.rounds.iter().flat_map(|round| &round.added_ms).copied().collect();
        percentile(&mut added, percent)
    }

    fn a_round(&self, of: impl Fn(&Account) -> usize) -> String {
        let values: Vec<_> = self.rounds.iter().map(|round| of(round) as f64).collect();
        spread(&values)
    }
}

fn failure(failure: Failure, columns: &[&Column]) -> String {
    let row = |title: &str, cell: &dyn Fn(&Column) -> String| {
        [title.to_owned()].into_iter().chain(columns.iter().map(|column| cell(column))).collect::<Vec<_>>()
    };
    let added = |percent: usize| {
        move |column: &Column| {
            column.added_ms(percent).map_or_else(|| NONE.to_owned(), |added| format!("{added:.2}"))
        }
    };
    let mut rows = vec![
        row("", &|column| column.subject.name()),
        row("failed", &|column| {
            format!("{} of {}", column.sum(|round| round.failed), column.sum(|round| round.attempts))
        }),
        row("stood when it failed, and lost", &|column| column.a_round(|round| round.stood)),
    ];
    match failure {
        Failure::Killed => rows.extend([
            row("sent on to the backup", &|column| column.a_round(|round| round.added_ms.len())),
            row("… added to their connect, median, ms", &added(50)),
            row("… p99, ms", &added(99)),
            row("… most, ms", &added(100)),
        ]),
        Failure::Silenced => {
            rows.push(row("connect over 600 ms", &|column| column.a_round(|round| round.slow)))
        }
    }
    rows.push(row(&format!("connect over {DELAYED_MS} ms"), &|column| column.a_round(|round| round.delayed)));
    rows.push(row("slowest connect, ms", &|column| format!("{:.0}", column.slowest_ms())));
    table(&rows)
}

/// How connections failed, if any did.
fn errors(text: &mut String, columns: &[&Column]) {
    for column in columns {
        let mut errors: BTreeMap<&str, usize> = BTreeMap::new();
        for (error, count) in column.rounds.iter().flat_map(|round| &round.errors) {
            *errors.entry(error).or_default() += count;
        }
        for (error, count) in errors {
            line(text, format_args!("\n- {}: {count} times {error:?}", column.subject.name()));
        }
    }
}

/// The median, and the smallest and the largest.
fn spread(values: &[f64]) -> String {
    let mut values = values.to_vec();
    let [median, least, most] = [50, 0, 100].map(|percent| percentile(&mut values, percent));
    match (median, least, most) {
        (Some(median), Some(least), Some(most)) => format!("{median:.0} ({least:.0} to {most:.0})"),
        _ => NONE.to_owned(),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Subject = Subject::Balancer { retry: "instant", passive: "count" };
    const INSTANT: Subject = Subject::Balancer { retry: "instant", passive: "probe" };

    fn missed(failure: Failure, subject: Subject, account: Account) -> Vec<String> {
        let measured = Measured { accounts: vec![(failure, subject, account)], idle_ms: vec![IDLE_MAX_MS] };
        Report::of(&measured).missed()
    }

    #[test]
    fn what_is_wanted_is_missed_by_one_and_not_by_none() {
        let quick = Account { added_ms: vec![0.5; 100], delayed: DELAYED_MAX, ..Account::default() };
        assert_eq!(missed(Failure::Killed, INSTANT, quick.clone()), [""; 0]);
        assert_eq!(missed(Failure::Silenced, COUNT, quick.clone()), [""; 0]);
        for worse in [
            Account { failed: 1, ..quick.clone() },
            Account { added_ms: vec![ADDED_MEDIAN_MAX_MS; 100], ..quick.clone() },
            Account { added_ms: [&[0.5; 98][..], &[ADDED_P99_MAX_MS; 2]].concat(), ..quick.clone() },
        ] {
            assert_eq!(missed(Failure::Killed, INSTANT, worse).len(), 1);
        }
        let few = Account { added_ms: vec![ADDED_MEDIAN_MAX_MS; MEDIAN_OF_MIN - 1], ..quick.clone() };
        assert_eq!(missed(Failure::Killed, INSTANT, few), [""; 0]);
        for worse in [
            Account { slowest_ms: SLOW_MS, ..quick.clone() },
            Account { delayed: DELAYED_MAX + 1, ..quick.clone() },
        ] {
            assert_eq!(missed(Failure::Silenced, COUNT, worse).len(), 1);
        }
        assert_eq!(missed(Failure::Killed, Subject::Nginx, Account { failed: 1, ..quick }), [""; 0]);
        let slow = Measured { accounts: Vec::new(), idle_ms: vec![1.0, IDLE_MAX_MS + 1.0] };
        assert_eq!(Report::of(&slow).missed().len(), 1);
    }
}
