//! One attempt every so often, each told at once: who serves, second by second. Attempts don't wait for each other, so
//! a server that has gone silent doesn't hide the moment from which the next one answers.

use std::{
    io::Write,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{attempt::Target, load::millis};

/// What a silent server can hold up at 3 ms and a timeout of 5 s. Beyond it attempts are left out.
const IN_FLIGHT_MAX: usize = 2048;

/// Prints one JSON line per attempt as it ends: `{"t_ms", "unix_ms", "took_ms", "error"}`, or instead of an error
/// `"name"`, `"connect_ms"` until both handshakes were done, and `"local"`, who the client was. Both times are of the
/// attempt's start, `t_ms` from the first attempt on. Ends after `duration`, or with the process.
///
/// # Errors
/// When stdout is gone or the interval is zero.
pub async fn watch(target: &Target, every: Duration, duration: Option<Duration>) -> Result<()> {
    ensure!(!every.is_zero(), "--interval must be above 0");
    let mut ticks = interval(every);
    // After a pause of the machine one late attempt says all; a burst of them would only be load.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if duration.is_some_and(|duration| started.elapsed() >= duration) {
                    break;
                }
                if running.len() < IN_FLIGHT_MAX {
                    let target = target.clone();
                    running.spawn(async move { told_attempt(&target, started).await });
                }
            }
            Some(told) = running.join_next() => told.context("an attempt")??,
        }
    }
    while let Some(told) = running.join_next().await {
        told.context("an attempt")??;
    }
    Ok(())
}

async fn told_attempt(target: &Target, started: Instant) -> Result<()> {
    let at = Instant::now();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let outcome = target.attempt().await;
    let (t_ms, unix_ms) = (millis(at - started), millis(unix));
    let line = match outcome {
        Ok(answered) => json!({
            "t_ms": t_ms,
            "unix_ms": unix_ms,
            "took_ms": millis(answered.took),
            "name": answered.name,
            "connect_ms": millis(answered.connect),
            "local": answered.local,
        }),
        Err(error) => json!({
            "t_ms": t_ms,
            "unix_ms": unix_ms,
            "took_ms": millis(at.elapsed()),
            "error": error.to_string(),
        }),
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write to stdout")
}
