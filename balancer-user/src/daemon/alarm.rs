//! Events that want a person, as the notify command reads them: the journal's record, as one line of JSON.

use tracing::error;

use crate::control::protocol::Record;

use super::{Daemon, Entry};

impl Daemon {
    /// Writes down what has happened.
    pub(super) fn note(&mut self, entry: Entry) {
        self.journal.note(entry, &self.store);
    }

    /// The same, and hands it to the notify command, if there is one.
    pub(super) fn alarm(&mut self, entry: Entry) {
        let record = self.journal.note(entry, &self.store);
        let Some(notifier) = &mut self.notifier else { return };
        match line(&record) {
            Ok(line) => notifier.notify(line),
            Err(error) => error!(event = "notify", error = %error, "an event could not be written as JSON"),
        }
    }
}

fn line(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_one_line_with_every_key() {
        let record = Record {
            id: 7,
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            event: "all_down".to_owned(),
            pool: Some("passwords".to_owned()),
            backend: None,
            from: None,
            to: None,
            reason: None,
            evidence: Some("web: \"refused\"\n".to_owned()),
        };
        assert_eq!(
            String::from_utf8(line(&record).unwrap()).unwrap(),
            "{\"id\":7,\"at\":\"2026-01-02T03:04:05.678Z\",\"event\":\"all_down\",\"pool\":\"passwords\",\"backend\":null,\
             \"from\":null,\"to\":null,\"reason\":null,\"evidence\":\"web: \\\"refused\\\"\\n\"}\n"
        );
    }
}
