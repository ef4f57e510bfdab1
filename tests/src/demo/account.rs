//! The account of all connections: who may have answered when, and when one may have failed. Pure: attempts and the
//! moments of the show in, numbers or the first connection that broke the law out.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};

use super::attempt::{Attempt, Fate};
use super::site::{FIRST, SECOND};

/// What happened when. The order of the fields is the order of the moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    /// Just before the first server was killed.
    pub(super) killed: SystemTime,
    /// Just after the switch was in the kernel.
    pub(super) switched: SystemTime,
    /// Just before the daemon was killed.
    pub(super) daemon_killed: SystemTime,
    /// Just after the new daemon was ready.
    pub(super) daemon_back: SystemTime,
    /// Just before the operator asked for the failback.
    pub(super) failback_asked: SystemTime,
    /// Just after the command had returned.
    pub(super) failback_done: SystemTime,
}

/// The numbers at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) made: usize,
    pub(super) answered: BTreeMap<String, usize>,
    /// Started between kill and switch, and failed: how many, by cause.
    pub(super) failed: BTreeMap<String, usize>,
    /// Started before the kill, and cut off by it.
    pub(super) cut_off: usize,
    /// Started while there was no daemon.
    pub(super) without_daemon: Tally,
    /// Started since the operator asked for the failback.
    pub(super) since_failback: Tally,
    /// From the kill until the second server's first answer was complete.
    pub(super) first_answer_after: Option<Duration>,
}

/// Connections of some time, and how many of them failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) made: usize,
    pub(super) failed: usize,
}

impl Tally {
    /// Counts those that started when `is_counted` says.
    pub(super) fn of(attempts: &[Attempt], is_counted: impl Fn(SystemTime) -> bool) -> Self {
        let counted: Vec<_> = attempts.iter().filter(|attempt| is_counted(attempt.started)).collect();
        Self { made: counted.len(), failed: counted.iter().filter(|attempt| attempt.has_failed()).count() }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} failed", self.made, self.failed)
    }
}

impl Account {
    /// # Errors
    /// The first connection that was answered by the wrong server, or failed when none may.
    pub(super) fn of(attempts: &[Attempt], moments: &Moments) -> Result<Self> {
        let mut account = Self { made: attempts.len(), ..Self::default() };
        for attempt in attempts {
            let started = attempt.started;
            match &attempt.fate {
                Fate::AnsweredBy(server) => {
                    if let Some(wanted) = wanted(started, moments).filter(|wanted| wanted != server) {
                        bail!("{} was answered by {server} instead of {wanted}", described(attempt, moments));
                    }
                    *account.answered.entry(server.clone()).or_default() += 1;
                }
                Fate::Failed(_) if started < moments.killed && attempt.ended >= moments.killed => {
                    account.cut_off += 1;
                }
                Fate::Failed(cause) if started >= moments.killed && started <= moments.switched => {
                    *account.failed.entry(cause.clone()).or_default() += 1;
                }
                Fate::Failed(cause) => bail!("{} failed: {cause}", described(attempt, moments)),
            }
        }
        account.without_daemon =
            Tally::of(attempts, |at| at >= moments.daemon_killed && at < moments.daemon_back);
        account.since_failback = Tally::of(attempts, |at| at >= moments.failback_asked);
        let by_second = attempts.iter().filter(|attempt| attempt.is_answered_by(SECOND));
        account.first_answer_after =
            by_second.filter_map(|attempt| attempt.ended.duration_since(moments.killed).ok()).min();
        Ok(account)
    }

    /// All that failed.
    pub(super) fn failed(&self) -> usize {
        self.cut_off + self.failed.values().sum::<usize>()
    }
}

/// Who must answer a connection that started then, where there is only one.
fn wanted(started: SystemTime, moments: &Moments) -> Option<&'static str> {
    if started < moments.killed || started > moments.failback_done {
        Some(FIRST)
    } else if started > moments.switched && started < moments.failback_asked {
        Some(SECOND)
    } else {
        // While the one dies, or the operator's command is under way, both are right.
        None
    }
}

fn described(attempt: &Attempt, moments: &Moments) -> String {
    let offset_ms = match attempt.started.duration_since(moments.killed) {
        Ok(after) => after.as_secs_f64() * 1000.0,
        Err(before) => before.duration().as_secs_f64() * -1000.0,
    };
    format!("a connection to {} that started {offset_ms:+.2} ms from the kill of {FIRST}", attempt.service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn moments() -> Moments {
        Moments {
            killed: at(1000),
            switched: at(1400),
            daemon_killed: at(3000),
            daemon_back: at(4200),
            failback_asked: at(5000),
            failback_done: at(5010),
        }
    }

    fn attempt(started: u64, ended: u64, fate: Fate) -> Attempt {
        Attempt { service: "web", started: at(started), ended: at(ended), fate }
    }

    fn answered(started: u64, server: &str) -> Attempt {
        attempt(started, started + 5, Fate::AnsweredBy(server.to_owned()))
    }

    fn failed(started: u64) -> Attempt {
        attempt(started, started + 5, Fate::Failed("refused".to_owned()))
    }

    fn refusal(attempt: Attempt) -> String {
        Account::of(&[attempt], &moments()).unwrap_err().to_string()
    }

    #[test]
    fn the_numbers_add_up() {
        let attempts = [
            answered(900, FIRST),
            failed(998),
            failed(1000),
            failed(1400),
            answered(1400, SECOND),
            answered(3000, SECOND),
            answered(4199, SECOND),
            answered(4200, SECOND),
            answered(5005, SECOND),
            answered(5006, FIRST),
            answered(5011, FIRST),
        ];
        let account = Account::of(&attempts, &moments()).unwrap();
        let expected = Account {
            made: 11,
            answered: BTreeMap::from([(FIRST.to_owned(), 3), (SECOND.to_owned(), 5)]),
            failed: BTreeMap::from([("refused".to_owned(), 2)]),
            cut_off: 1,
            without_daemon: Tally { made: 2, failed: 0 },
            since_failback: Tally { made: 3, failed: 0 },
            first_answer_after: Some(Duration::from_millis(405)),
        };
        assert_eq!(account, expected);
        assert_eq!(account.failed(), 3);
    }

    #[test]
    fn a_failure_outside_of_the_switch_breaks_the_law() {
        for started in [994, 1401, 3500, 5005, 5011] {
            let refusal = refusal(failed(started));
            assert!(refusal.ends_with("failed: refused"), "{started}: {refusal}");
        }
    }

    #[test]
    fn an_answer_by_the_wrong_server_breaks_the_law() {
        for (started, wrong) in [(999, SECOND), (1401, FIRST), (4999, FIRST), (5011, SECOND)] {
            let refusal = refusal(answered(started, wrong));
            assert!(refusal.contains(&format!("answered by {wrong} instead of")), "{started}: {refusal}");
        }
    }

    #[test]
    fn an_answer_by_a_stranger_breaks_the_law_while_one_server_must_answer() {
        assert!(refusal(answered(2000, "server3")).contains("server3 instead of server2"));
    }
}
