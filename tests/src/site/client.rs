//! Clients of a site under way, and what they say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{gateway::PATIENCE, lab::Process, poll::poll_until};

/// Clients under way.
#[derive(Debug)]
pub struct Load(pub(super) Process);

impl Load {
    /// The report at its end, whatever it says; see `traffic/load.rs`.
    ///
    /// # Errors
    /// When it doesn't end within two minutes, or says nothing.
    pub fn report(mut self) -> Result<Value> {
        let status = self.0.wait(Duration::from_secs(120))?;
        let report: Value = serde_json::from_str(&self.0.stdout())
            .with_context(|| format!("report of load: {:?} {:?}", self.0.stdout(), self.0.stderr()))?;
        ensure!(status.success() == (report["failed"] == 0), "{status}, but the report is {report}");
        Ok(report)
    }

    /// Has it make no more connections; the report.
    ///
    /// # Errors
    /// As [`Load::report`].
    pub fn end(mut self) -> Result<Value> {
        self.0.signal(Signal::TERM)?;
        self.report()
    }

    /// Whether it still makes connections.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }
}

/// One that asks again and again who serves.
#[derive(Debug)]
pub struct Watcher(pub(super) Process);

impl Watcher {
    /// Waits for the first answer by this server to a connection opened after `since`; from then until the answer.
    ///
    /// # Errors
    /// After [`PATIENCE`].
    pub fn first_answer(&self, server: &str, since: SystemTime) -> Result<Duration> {
        let since_ms = since.duration_since(UNIX_EPOCH).context("the time of day")?.as_secs_f64() * 1000.0;
        let answered_ms = |attempt: &Value| {
            let (started, took) = (attempt["unix_ms"].as_f64()?, attempt["took_ms"].as_f64()?);
            (started >= since_ms && attempt["name"] == server).then_some(started + took - since_ms)
        };
        poll_until(PATIENCE, &format!("an answer by {server}"), || {
            let attempts = self.attempts();
            let first = attempts.iter().filter_map(answered_ms).min_by(f64::total_cmp);
            first
                .map(|ms| Duration::from_secs_f64(ms / 1000.0))
                .ok_or_else(|| format!("{:?}", attempts.last()))
        })
    }

    /// All attempts of one that ends by itself.
    ///
    /// # Errors
    /// When it doesn't end within a minute, or not well.
    pub fn finish(self) -> Result<Vec<Value>> {
        let said = self.0.finish(Duration::from_secs(60))?;
        let lines = said.lines().map(|line| serde_json::from_str(line).context("an attempt"));
        lines.collect()
    }

    /// All attempts that have ended so far; see `traffic/watch.rs`.
    #[must_use]
    pub fn attempts(&self) -> Vec<Value> {
        // The last line may be half written.
        self.0.stdout().lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }
}
