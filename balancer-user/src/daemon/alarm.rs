//! Events that want a person, as the notify command reads them.

use serde::Serialize;
use tracing::error;

use crate::control::protocol::Timestamp;

use super::Daemon;

/// One event; null where there is nothing to tell.
#[derive(Debug, Default, Serialize)]
pub(super) struct Alarm<'a> {
    /// The word that the log uses.
    pub(super) event: &'static str,
    pub(super) pool: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
    pub(super) evidence: Option<&'a str>,
}

/// The same, with the time before it.
#[derive(Serialize)]
struct Dated<'a> {
    at: Timestamp,
    #[serde(flatten)]
    alarm: &'a Alarm<'a>,
}

impl Daemon {
    /// Hands an event to the notify command, if there is one.
    pub(super) fn alarm(&mut self, alarm: &Alarm<'_>) {
        let at = self.clock.wall(self.clock.now()).into();
        let Some(notifier) = &mut self.notifier else { return };
        match line(&Dated { at, alarm }) {
            Ok(line) => notifier.notify(line),
            Err(error) => error!(event = "notify", error = %error, "an event could not be written as JSON"),
        }
    }
}

fn line(alarm: &Dated<'_>) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(alarm)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_one_line_with_every_key() {
        let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let alarm = Alarm {
            event: "all_down",
            pool: Some("passwords"),
            evidence: Some("web: \"refused\"\n"),
            ..Alarm::default()
        };
        assert_eq!(
            String::from_utf8(line(&Dated { at, alarm: &alarm }).unwrap()).unwrap(),
            "{\"at\":\"2026-01-02T03:04:05.678Z\",\"event\":\"all_down\",\"pool\":\"passwords\",\"backend\":null,\
             \"from\":null,\"to\":null,\"reason\":null,\"evidence\":\"web: \\\"refused\\\"\\n\"}\n"
        );
    }
}
