//! Many connections, a fixed number at a time, and one report of who answered and how fast.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant as TokioInstant, sleep_until},
};

use super::attempt::{Answered, AttemptError, Target};
use super::ending::Ending;

/// Four bytes each are kept for the percentiles.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// More different texts than this are one bug with a number in it.
const ERROR_TEXTS_MAX: usize = 32;
const TIMELINE_MAX: usize = 1000;
const OTHER_ERRORS: &str = "(other errors)";

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many connections in all, at most a million; it may end earlier by `duration`.
    pub connections: u64,
    /// How many at a time.
    pub parallel: usize,
    /// New connections a second; as many as possible if absent.
    pub rate: Option<f64>,
    /// No new ones after this.
    pub duration: Option<Duration>,
    /// An answer with another name is a failure.
    pub expect: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    ok: u64,
    failed: u64,
    by_name: BTreeMap<String, u64>,
    by_peer: BTreeMap<IpAddr, u64>,
    errors: BTreeMap<String, u64>,
    connect_us: Vec<u32>,
    first_error_at: Option<Duration>,
    timeline: Vec<(Duration, String)>,
    is_timeline_cut: bool,
    took: Duration,
}

/// Carries the plan out, or as much of it as there is time for; a failed connection is a line in the report, not an error.
///
/// # Errors
/// When the plan makes no sense.
pub async fn load(target: &Target, plan: &Plan, ending: &Ending) -> Result<Report> {
    ensure!(plan.parallel > 0, "--parallel must be at least 1");
    ensure!(
        (1..=CONNECTIONS_MAX).contains(&plan.connections),
        "--connections must be 1 to {CONNECTIONS_MAX}, not {}",
        plan.connections
    );
    ensure!(plan.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "--rate must be above 0");
    let started = Instant::now();
    let mut report = Report::default();
    let mut running = JoinSet::new();
    for number in 0..plan.connections {
        if let Some(rate) = plan.rate {
            // Counted from the start, so that slow attempts don't lower the rate of later ones. A rate so low that
            // its time can't be told waits for `duration`.
            let offset = Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX);
            let end = plan.duration.unwrap_or(Duration::MAX);
            let wake = started.checked_add(offset.min(end)).map(TokioInstant::from_std);
            if let Some(wake) = wake {
                sleep_until(wake).await;
            }
        }
        while running.len() >= plan.parallel {
            report.take(running.join_next().await, started, plan);
        }
        while let Some(done) = running.try_join_next() {
            report.take(Some(done), started, plan);
        }
        if ending.is_here() || plan.duration.is_some_and(|duration| started.elapsed() >= duration) {
            break;
        }
        let target = target.clone();
        running.spawn(async move { (target.attempt().await, started.elapsed()) });
    }
    while !running.is_empty() {
        report.take(running.join_next().await, started, plan);
    }
    report.took = started.elapsed();
    Ok(report)
}

type Done = Result<(Result<Answered, AttemptError>, Duration), tokio::task::JoinError>;

impl Report {
    fn take(&mut self, done: Option<Done>, started: Instant, plan: &Plan) {
        match done {
            None => {}
            Some(Err(panicked)) => self.note_failure(format!("panic: {panicked}"), started.elapsed()),
            Some(Ok((Ok(answered), at))) => self.note_answer(&answered, at, plan.expect.as_deref()),
            Some(Ok((Err(error), at))) => self.note_failure(error.to_string(), at),
        }
    }

    fn note_answer(&mut self, answered: &Answered, at: Duration, expected: Option<&str>) {
        let name = &answered.name;
        *self.by_name.entry(name.clone()).or_default() += 1;
        *self.by_peer.entry(answered.peer.ip()).or_default() += 1;
        self.connect_us.push(u32::try_from(answered.connect.as_micros()).unwrap_or(u32::MAX));
        match expected {
            Some(expected) if expected != name => {
                self.note_failure(format!("answered by {name}, expected {expected}"), at);
            }
            _ => {
                self.ok += 1;
                self.note_change(name, at);
            }
        }
    }

    fn note_failure(&mut self, text: String, at: Duration) {
        self.failed += 1;
        self.first_error_at = Some(self.first_error_at.map_or(at, |first| first.min(at)));
        let is_known = self.errors.contains_key(&text) || self.errors.len() < ERROR_TEXTS_MAX;
        let key = if is_known { text } else { OTHER_ERRORS.to_owned() };
        *self.errors.entry(key).or_default() += 1;
        self.note_change("error", at);
    }

    fn note_change(&mut self, name: &str, at: Duration) {
        if self.timeline.last().is_some_and(|(_, last)| last == name) {
            return;
        }
        if self.timeline.len() < TIMELINE_MAX {
            self.timeline.push((at, name.to_owned()));
        } else {
            self.is_timeline_cut = true;
        }
    }

    /// Whether every connection was answered, by the expected server.
    #[must_use]
    pub fn is_flawless(&self) -> bool {
        self.failed == 0
    }

    /// The report as one JSON object (`by_peer`: whom the servers saw); times are milliseconds, from the start where they are points in time.
    #[must_use]
    pub fn to_json(mut self) -> Value {
        self.connect_us.sort_unstable();
        let percentile = |percent: usize| {
            let index = (self.connect_us.len() * percent).div_ceil(100).saturating_sub(1);
            self.connect_us.get(index).map(|&us| f64::from(us) / 1000.0)
        };
        let timeline: Vec<_> =
            self.timeline.iter().map(|(at, name)| json!({"t_ms": millis(*at), "name": name})).collect();
        json!({
            "total": self.ok + self.failed,
            "ok": self.ok,
            "failed": self.failed,
            "by_name": self.by_name,
            "by_peer": self.by_peer,
            "errors": self.errors,
            "connect_ms": {"p50": percentile(50), "p99": percentile(99), "max": percentile(100)},
            "first_error_at_ms": self.first_error_at.map(millis),
            "timeline": timeline,
            "timeline_cut": self.is_timeline_cut,
            "took_ms": millis(self.took),
        })
    }
}

/// Milliseconds with three decimals.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn answered(name: &str, connect_ms: u64) -> Answered {
        let connect = Duration::from_millis(connect_ms);
        let [local, peer] = [[203, 0, 113, 7], [10, 0, 2, 1]].map(|ip| SocketAddr::from((ip, 4000)));
        Answered { name: name.to_owned(), local, peer, connect, took: connect }
    }

    #[test]
    fn the_timeline_has_changes_only() {
        let mut report = Report::default();
        for (at, name) in [(1, "server1"), (2, "server1"), (3, "server2")] {
            report.note_answer(&answered(name, 1), Duration::from_millis(at), None);
        }
        report.note_failure("refused".to_owned(), Duration::from_millis(4));
        let json = report.to_json();
        assert_eq!(json["timeline"].as_array().unwrap().len(), 3, "{json}");
        assert_eq!(json["first_error_at_ms"], 4.0);
        assert_eq!((json["ok"].as_u64(), json["failed"].as_u64()), (Some(3), Some(1)));
    }

    #[test]
    fn an_answer_of_the_wrong_server_is_a_failure() {
        let mut report = Report::default();
        report.note_answer(&answered("server2", 1), Duration::ZERO, Some("server1"));
        assert!(!report.is_flawless());
        assert_eq!(report.to_json()["errors"]["answered by server2, expected server1"], 1);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut report = Report::default();
        for ms in 1..=200 {
            report.note_answer(&answered("server1", ms), Duration::ZERO, None);
        }
        assert_eq!(report.to_json()["connect_ms"], json!({"p50": 100.0, "p99": 198.0, "max": 200.0}));
        assert_eq!(Report::default().to_json()["connect_ms"]["p50"], Value::Null);
    }

    #[test]
    fn a_flood_of_different_errors_stays_bounded() {
        let mut report = Report::default();
        for number in 0..1000 {
            report.note_failure(format!("error {number}"), Duration::ZERO);
        }
        assert_eq!(report.errors.len(), ERROR_TEXTS_MAX + 1);
        assert_eq!(report.errors[OTHER_ERRORS], 1000 - ERROR_TEXTS_MAX as u64);
    }
}
