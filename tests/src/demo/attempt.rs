//! What a client loop tells: each of its connections, with its times and its fate.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The service's name.
    pub(super) service: &'static str,
    /// Just before its SYN.
    pub(super) started: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) fate: Fate,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// A full answer, over TLS, by the server of this name.
    AnsweredBy(String),
    /// Why there was none.
    Failed(String),
}

impl Attempt {
    /// Reads a line of `lab-host watch`.
    pub(super) fn parse(service: &'static str, line: &str) -> Result<Self> {
        let read = || -> Option<Self> {
            let fields: Value = serde_json::from_str(line).ok()?;
            let ms = |key: &str| Duration::try_from_secs_f64(fields[key].as_f64()? / 1000.0).ok();
            let started = SystemTime::UNIX_EPOCH.checked_add(ms("unix_ms")?)?;
            let fate = match (fields["name"].as_str(), fields["error"].as_str()) {
                (Some(name), None) => Fate::AnsweredBy(name.to_owned()),
                (None, Some(error)) => Fate::Failed(cause(error)),
                _ => return None,
            };
            Some(Self { service, started, ended: started.checked_add(ms("took_ms")?)?, fate })
        };
        read().with_context(|| format!("the client loop of {service} said {line:?}"))
    }

    pub(super) fn is_answered_by(&self, server: &str) -> bool {
        matches!(&self.fate, Fate::AnsweredBy(name) if name == server)
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.fate, Fate::Failed(_))
    }
}

/// A refusal in one word, as it is what people expect; anything else as it was told, less the number of the error.
fn cause(error: &str) -> String {
    if error.starts_with("Connect:") && error.contains("refused") {
        return "refused".to_owned();
    }
    error.split(" (os error").next().unwrap_or(error).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(rest: &str) -> Fate {
        let line = format!(r#"{{"t_ms":1.5,"unix_ms":1767323045250.125,"took_ms":4.5,{rest}}}"#);
        Attempt::parse("web", &line).unwrap().fate
    }

    #[test]
    fn an_answer_and_both_kinds_of_failure_are_understood() {
        assert_eq!(fate(r#""name":"server1""#), Fate::AnsweredBy("server1".to_owned()));
        let refused = fate(r#""error":"Connect: Connection refused (os error 111)""#);
        assert_eq!(refused, Fate::Failed("refused".to_owned()));
        let cut = fate(r#""error":"Answer: Connection reset by peer (os error 104)""#);
        assert_eq!(cut, Fate::Failed("Answer: Connection reset by peer".to_owned()));
    }

    #[test]
    fn it_ends_when_it_has_taken_its_time() {
        let line = r#"{"t_ms":0,"unix_ms":1000,"took_ms":250,"name":"server1"}"#;
        let attempt = Attempt::parse("web", line).unwrap();
        assert_eq!(attempt.ended.duration_since(attempt.started).unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error_that_shows_it() {
        for line in [
            "",
            "{}",
            r#"{"unix_ms":-1,"took_ms":1,"name":"x"}"#,
            r#"{"unix_ms":1e300,"took_ms":1,"name":"x"}"#,
        ] {
            let error = Attempt::parse("web", line).unwrap_err().to_string();
            assert!(error.contains(&format!("{line:?}")), "{error}");
        }
    }
}
