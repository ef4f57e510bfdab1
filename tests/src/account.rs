//! What clients' attempts around the failure of their server come to.
//!
//! A failure has a beginning and an end, between which nobody knows better whether the primary still took connections.
//! Who was connected to it by then is lost, whatever stands between: such are counted apart. Deliberately not here: who was
//! affected, which is not to be guessed from times.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::plain::percentile;

/// Later than this after its beginning, and somebody may have noticed.
pub const DELAYED_MS: f64 = 50.0;
/// Twice the usual `connect_timeout`.
pub const SLOW_MS: f64 = 600.0;
/// More different texts than this are one bug with a number in it.
const ERROR_TEXTS_MAX: usize = 8;

/// When the primary failed, in milliseconds of the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// It still took connections then.
    pub began_ms: f64,
    /// It took none any more.
    pub ended_ms: f64,
}

impl Loss {
    /// While this is done, which makes it fail.
    ///
    /// # Errors
    /// What is done returns.
    pub fn during(fail: impl FnOnce() -> Result<()>) -> Result<Self> {
        let began_ms = unix_ms(SystemTime::now())?;
        fail()?;
        Ok(Self { began_ms, ended_ms: unix_ms(SystemTime::now())? })
    }
}

/// Milliseconds of the time of day.
///
/// # Errors
/// Before 1970.
pub fn unix_ms(time: SystemTime) -> Result<f64> {
    Ok(time.duration_since(UNIX_EPOCH).context("the time of day")?.as_secs_f64() * 1000.0)
}

/// One line of `lab-host watch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Of the time of day.
    pub started_ms: f64,
    /// Who answered, or why nobody did.
    pub outcome: Result<Answer, String>,
}

/// What a client that was answered tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Until both handshakes were done.
    pub connect_ms: f64,
    /// The server's name.
    pub server: String,
    /// Who the client was to itself.
    pub client: String,
}

/// The first clients, by when they began, that this server has answered: as many as were sent on to it before it was
/// everybody's.
#[must_use]
pub fn first_answered_by(server: &str, number: u64, attempts: &[Attempt]) -> Vec<String> {
    let answered = attempts.iter().filter_map(|one| Some((one.started_ms, one.outcome.as_ref().ok()?)));
    let mut by_it: Vec<_> = answered.filter(|(_, answer)| answer.server == server).collect();
    by_it.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    by_it.into_iter().take(number).map(|(_, answer)| answer.client.clone()).collect()
}

/// What they come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// All of them.
    pub attempts: usize,
    /// Were not answered, and were not lost with the primary.
    pub failed: usize,
    /// Were connected to the primary when it failed, and lost.
    pub stood: usize,
    /// What connecting took the affected longer than it usually takes.
    pub added_ms: Vec<f64>,
    /// Of those that were not connected before the failure: took longer than [`DELAYED_MS`].
    pub delayed: usize,
    /// Of the same, longer than [`SLOW_MS`].
    pub slow: usize,
    /// Of the same.
    pub slowest_ms: f64,
    /// How the failed ones failed.
    pub errors: BTreeMap<String, usize>,
}

impl Attempt {
    /// What a line says.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn of(line: &Value) -> Result<Self> {
        let number = |key: &str| line[key].as_f64().with_context(|| format!("{key} in {line}"));
        let text = |key: &str| {
            let text = line[key].as_str().with_context(|| format!("{key} in {line}"));
            text.map(str::to_owned)
        };
        let outcome = match &line["error"] {
            Value::Null => Ok(Answer {
                connect_ms: number("connect_ms")?,
                server: text("name")?,
                client: text("local")?,
            }),
            _ => Err(text("error")?),
        };
        Ok(Self { started_ms: number("unix_ms")?, outcome })
    }

    /// Whether it ended because the primary, to which it was connected, failed. Who isn't connected yet is refused, not
    /// reset.
    fn stood_at(&self, loss: Loss, error: &str) -> bool {
        let was_connected = !error.starts_with("Connect:") || error.contains("reset");
        self.started_ms < loss.ended_ms && was_connected
    }
}

impl Account {
    /// What they come to; of those that were answered, these clients are affected.
    ///
    /// # Errors
    /// When none was answered before the failure.
    pub fn of(attempts: &[Attempt], loss: Loss, affected: &[String]) -> Result<Self> {
        let answered = || attempts.iter().filter_map(|one| Some((one, one.outcome.as_ref().ok()?)));
        let is_before = |one: &Attempt, answer: &Answer| one.started_ms + answer.connect_ms < loss.began_ms;
        let mut usual_ms: Vec<_> = answered()
            .filter(|(one, answer)| is_before(one, answer))
            .map(|(_, answer)| answer.connect_ms)
            .collect();
        let usual_ms = percentile(&mut usual_ms, 50).context("a connection before the failure")?;

        let mut account = Self { attempts: attempts.len(), ..Self::default() };
        for (_, answer) in answered().filter(|(one, answer)| !is_before(one, answer)) {
            account.delayed += usize::from(answer.connect_ms > DELAYED_MS);
            account.slow += usize::from(answer.connect_ms > SLOW_MS);
            account.slowest_ms = account.slowest_ms.max(answer.connect_ms);
            if affected.contains(&answer.client) {
                account.added_ms.push(answer.connect_ms - usual_ms);
            }
        }
        for one in attempts {
            let Err(error) = &one.outcome else { continue };
            if one.stood_at(loss, error) {
                account.stood += 1;
            } else {
                account.failed += 1;
                let is_known = account.errors.contains_key(error) || account.errors.len() < ERROR_TEXTS_MAX;
                let key = if is_known { error.as_str() } else { "(other errors)" };
                *account.errors.entry(key.to_owned()).or_default() += 1;
            }
        }
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOSS: Loss = Loss { began_ms: 1000.0, ended_ms: 1010.0 };

    fn answered(started_ms: f64, connect_ms: f64, server: &str) -> Attempt {
        let (server, client) = (server.to_owned(), format!("203.0.113.7:{}", 40_000.0 + started_ms));
        Attempt { started_ms, outcome: Ok(Answer { connect_ms, server, client }) }
    }

    fn failed(started_ms: f64, error: &str) -> Attempt {
        Attempt { started_ms, outcome: Err(error.to_owned()) }
    }

    #[test]
    fn who_stood_at_the_failure_is_counted_apart_from_who_came_later() {
        let attempts = [
            answered(900.0, 2.0, "server1"),
            failed(999.0, "Handshake: reset"),
            failed(999.0, "Connect: Connection reset by peer (os error 104)"),
            failed(999.0, "Connect: Connection refused (os error 111)"),
            failed(1009.9, "Answer: no progress until the timeout"),
            failed(1010.0, "Handshake: reset"),
        ];
        let account = Account::of(&attempts, LOSS, &[]).unwrap();
        assert_eq!((account.attempts, account.failed, account.stood), (6, 2, 3));
        assert_eq!(account.errors.values().sum::<usize>(), 2);
    }

    #[test]
    fn what_is_usual_is_taken_from_before_and_what_counts_from_after() {
        let attempts = [
            answered(700.0, 100.0, "server1"),
            answered(900.0, 3.0, "server1"),
            answered(910.0, 2.0, "server1"),
            answered(990.0, 60.0, "server2"),
            answered(1020.0, 700.0, "server2"),
            answered(2000.0, 4.0, "server2"),
        ];
        let account = Account::of(&attempts, LOSS, &first_answered_by("server2", 2, &attempts)).unwrap();
        assert_eq!(account.added_ms, [57.0, 697.0]);
        assert_eq!((account.delayed, account.slow, account.slowest_ms), (2, 1, 700.0));
        assert!(Account::of(&attempts[4..], LOSS, &[]).is_err(), "nothing to compare with");
    }

    #[test]
    fn a_line_is_an_answer_or_an_error() {
        let line = json!({"unix_ms": 1.0, "took_ms": 3.0, "connect_ms": 2.0, "name": "server1",
            "local": "203.0.113.7:40001"});
        assert_eq!(Attempt::of(&line).unwrap(), answered(1.0, 2.0, "server1"));
        let line = json!({"unix_ms": 1.0, "took_ms": 3.0, "error": "Connect: refused"});
        assert_eq!(Attempt::of(&line).unwrap(), failed(1.0, "Connect: refused"));
        assert!(Attempt::of(&json!({"unix_ms": 1.0})).is_err());
    }
}
