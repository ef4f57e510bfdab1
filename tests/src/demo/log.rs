//! The daemon's log, as far as the timeline tells it: one JSON object a line, with the contract's fields.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::page::Tone;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) at: SystemTime,
    pub(super) event: Event,
}

/// What it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// The daemon has its maps; `is_adopted` when they were pinned by an earlier one.
    Started { is_adopted: bool },
    /// The program is on an interface.
    Attached { interface: String, mode: String },
    /// The first decision is in the kernel.
    Ready,
    /// The health of a backend changed.
    Health { backend: String, from: String, to: String, reason: String },
    /// The active backend changed; `took` from the decision until it was in the kernel.
    Transition { to: String, reason: String, took: Duration },
    /// A warning, an error, or something that isn't a log line at all.
    Complaint(String),
    /// What the timeline leaves out.
    Other,
}

impl Entry {
    /// Reads a line; `now` is for one without a time.
    pub(super) fn parse(line: &str, now: SystemTime) -> Self {
        let Ok(fields) = serde_json::from_str::<Value>(line) else {
            return Self { at: now, event: Event::Complaint(line.to_owned()) };
        };
        let at = fields["timestamp"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
        let event = if fields["level"] == "INFO" { told(&fields) } else { Event::Complaint(line.to_owned()) };
        Self { at: at.unwrap_or(now), event }
    }

    /// For the timeline; `killed` is when the active backend was killed, if it was.
    pub(super) fn told(&self, killed: Option<SystemTime>) -> Option<(Tone, String)> {
        Some(match &self.event {
            Event::Attached { interface, mode } => {
                (Tone::Plain, format!("the XDP program is on {interface} ({mode} mode)"))
            }
            Event::Ready => (Tone::Plain, "the daemon is ready".to_owned()),
            Event::Started { is_adopted: true } => {
                (Tone::Plain, "the new daemon takes over what is pinned in the kernel".to_owned())
            }
            Event::Health { backend, to, reason, .. } if to == "down" => {
                (Tone::Bad, format!("probe of {backend} failed: {reason}; {backend} is down"))
            }
            Event::Health { backend, from, to, .. } if to == "up" => {
                let again = if from == "unknown" { "" } else { " again" };
                (Tone::Plain, format!("probe of {backend} is good: {backend} is up{again}"))
            }
            Event::Transition { to, reason, took } => {
                let since_kill = killed.filter(|_| reason == "backend_down");
                let since_kill = since_kill.and_then(|killed| self.at.duration_since(killed).ok());
                let since_kill = since_kill.map(|time| format!("; {} ms after the kill", time.as_millis()));
                let took_ms = took.as_secs_f64() * 1000.0;
                let text = format!(
                    "● {to} now serves (switched {took_ms:.3} ms after the decision{})",
                    since_kill.unwrap_or_default()
                );
                (Tone::Good, text)
            }
            Event::Complaint(text) => (Tone::Bad, format!("the daemon says: {text}")),
            Event::Started { is_adopted: false } | Event::Health { .. } | Event::Other => return None,
        })
    }
}

fn told(fields: &Value) -> Event {
    let text = |key: &str| fields[key].as_str().unwrap_or("?").to_owned();
    match fields["event"].as_str() {
        Some("started") => Event::Started { is_adopted: fields["adopted"] == true },
        Some("attached") => Event::Attached { interface: text("interface"), mode: text("mode") },
        Some("ready") => Event::Ready,
        Some("health") => Event::Health {
            backend: text("backend"),
            from: text("from"),
            to: text("to"),
            reason: text("reason"),
        },
        Some("transition") => {
            let took = fields["took_ms"].as_f64().map(|ms| Duration::try_from_secs_f64(ms / 1000.0));
            // A time that makes no sense is no time: the demo's own check of it fails.
            let took = took.and_then(Result::ok).unwrap_or(Duration::MAX);
            Event::Transition { to: text("to"), reason: text("reason"), took }
        }
        _ => Event::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: &str = r#"{"timestamp":"2026-01-02T03:04:05.250000Z","level":"INFO","event":"transition","pool":"passwords","from":"server1","to":"server2","reason":"backend_down","id":2,"took_ms":0.04,"evidence":"x"}"#;

    #[test]
    fn a_switch_is_told_with_both_of_its_times() {
        let entry = Entry::parse(SWITCH, SystemTime::UNIX_EPOCH);
        let killed = entry.at - Duration::from_millis(412);
        let (tone, text) = entry.told(Some(killed)).unwrap();
        assert_eq!(tone, Tone::Good);
        assert_eq!(
            text,
            "● server2 now serves (switched 0.040 ms after the decision; 412 ms after the kill)"
        );
    }

    #[test]
    fn what_is_no_log_line_is_passed_on_as_a_complaint() {
        for line in ["balancer: no", "", "[1, 2]", r#"{"level":"WARN","event":"stalled"}"#] {
            let entry = Entry::parse(line, SystemTime::UNIX_EPOCH);
            assert_eq!(entry.event, Event::Complaint(line.to_owned()));
        }
    }

    #[test]
    fn a_switch_without_its_time_is_not_taken_for_a_fast_one() {
        let entry = Entry::parse(&SWITCH.replace("0.04", "-1"), SystemTime::UNIX_EPOCH);
        assert!(matches!(entry.event, Event::Transition { took: Duration::MAX, .. }), "{entry:?}");
    }
}
