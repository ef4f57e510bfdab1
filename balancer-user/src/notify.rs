//! The notify command: a program that is run for every event that wants a person, with the event on its stdin.
//!
//! One at a time, in the order of the events, and never in anybody's way: a queue that is full loses the newest, because
//! the oldest tell how it began. Deliberately not here: which events want a person, and what they look like.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::program::{self, Call, CommandLine, Rest};

/// Events that wait: more than a person would read.
const WAITING: usize = 64;

/// Long enough to hand over a mail or call an API, short enough for the next event.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Hands events to the notify command.
#[derive(Debug)]
pub struct Notifier {
    queue: mpsc::Sender<Vec<u8>>,
    /// Since one was taken last.
    lost: u64,
}

impl Notifier {
    /// Runs the command for each event from now on, until this value is dropped. Needs a tokio runtime.
    #[must_use]
    pub fn new(command: CommandLine) -> Self {
        let (queue, events) = mpsc::channel(WAITING);
        tokio::spawn(hand_over(command, events));
        Self { queue, lost: 0 }
    }

    /// Has the command run with this on its stdin; returns at once.
    pub fn notify(&mut self, event: Vec<u8>) {
        if self.queue.try_send(event).is_err() {
            self.lost += 1;
            if self.lost == 1 {
                warn!(
                    event = "notify",
                    waiting = WAITING,
                    "the notify command is too slow: events are lost until it catches up"
                );
            }
        } else if self.lost > 0 {
            info!(event = "notify", lost = self.lost, "the notify command catches up");
            self.lost = 0;
        }
    }
}

async fn hand_over(command: CommandLine, mut events: mpsc::Receiver<Vec<u8>>) {
    while let Some(input) = events.recv().await {
        let call = Call {
            command: command.clone(),
            variables: Vec::new(),
            input,
            timeout: TIMEOUT,
            rest: Rest::LeftToDeadline,
        };
        let report = program::run(call).await;
        if !report.is_good() {
            warn!(
                event = "notify",
                program = %command.program.display(),
                evidence = report.evidence(),
                "the notify command failed: nobody may have been told",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::program::tests::{Folder, PATIENT, runtime};

    /// Lets the runtime go on until a file has this many lines.
    async fn lines(folder: &Folder, name: &str, wanted: usize) -> Vec<String> {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(folder.at(name)).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= wanted {
                return lines;
            }
            assert!(began.elapsed() < PATIENT, "{name} has {lines:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn each_event_is_handed_over_once_and_in_order_whatever_came_of_the_last() {
        let folder = Folder::new();
        let command = folder.script("cat >> $folder/events; echo >> $folder/events; exit 1");
        runtime().block_on(async {
            let mut notifier = Notifier::new(command);
            for event in ["one", "two", "three"] {
                notifier.notify(event.into());
            }
            assert_eq!(lines(&folder, "events", 3).await, ["one", "two", "three"]);
        });
    }

    #[test]
    fn of_too_many_events_the_newest_are_lost_and_nobody_waits() {
        let folder = Folder::new();
        let command = folder.script(
            "until [ -e $folder/go ]; do sleep 0.01; done; cat >> $folder/events; echo >> $folder/events",
        );
        runtime().block_on(async {
            let mut notifier = Notifier::new(command);
            // Nothing is taken out of the queue before this task waits.
            for n in 0..100 {
                notifier.notify(format!("{n}").into());
            }
            assert_eq!(notifier.lost, 100 - WAITING as u64);
            std::fs::write(folder.at("go"), "").unwrap();
            let seen = lines(&folder, "events", WAITING).await;
            assert_eq!(seen, (0..WAITING).map(|n| n.to_string()).collect::<Vec<_>>());
            notifier.notify("next".into());
            assert_eq!(notifier.lost, 0);
            assert_eq!(lines(&folder, "events", WAITING + 1).await.last().map(String::as_str), Some("next"));
        });
    }
}
