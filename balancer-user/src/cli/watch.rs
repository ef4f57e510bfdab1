//! `--watch`: the same question again and again, on a terminal in one place, elsewhere one answer behind the other.
//!
//! It ends when it is interrupted, or when nobody reads any more. The terminal is left as it is between two answers, so there
//! is nothing to put back at the end. Deliberately not here: what is asked, and what an answer looks like.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use rustix::termios::tcgetwinsize;
use tokio::time::{MissedTickBehavior, interval};

use super::Output;
use crate::duration;
use crate::exit::{self, Exit, Failure, say};

/// Usual, and what `watch` of procps halves.
const EVERY: Duration = Duration::from_secs(1);
/// More often than that nobody can read it, and the daemon has better things to do.
const SHORTEST: Duration = Duration::from_millis(100);
/// Where nobody tells how high the terminal is.
const USUAL_ROWS: u16 = 24;

/// For verbs that can be asked again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Watch {
    /// Show it again every second until interrupted: on a terminal in place, in JSON one document a line
    #[arg(long)]
    pub watch: bool,
    /// How often, as in `500ms` or `5s` [default: 1s]
    #[arg(long, value_name = "D", requires = "watch", value_parser = every)]
    pub interval: Option<Duration>,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = duration::parse(text).map_err(|error| error.to_string())?;
    if every < SHORTEST {
        return Err(format!("write at least {}", duration::Shown(SHORTEST)));
    }
    Ok(every)
}

impl Watch {
    /// Asks again and again, and shows each answer. The first must be one; a later failure is shown above the last answer.
    ///
    /// # Errors
    /// The first failure, or nothing can be written.
    pub(super) async fn repeat(
        self,
        output: Output,
        mut ask: impl AsyncFnMut() -> Result<String, Failure>,
    ) -> Result<Exit, Failure> {
        let mut ticks = interval(self.interval.unwrap_or(EVERY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut show = Show::new(output);
        loop {
            let answer = tokio::select! {
                _ = &mut interrupted => return Ok(Exit::Ok),
                answer = async { ticks.tick().await; ask().await } => answer,
            };
            if !show.next(answer)? {
                return Ok(Exit::Ok);
            }
        }
    }
}

/// Shows answers.
struct Show {
    way: Way,
    /// The last answer, if there was one.
    last: Option<String>,
    /// What was told last that went wrong.
    told: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over the one before.
    InPlace,
    /// Behind the one before, with an empty line between.
    Behind,
    /// A line each.
    Line,
}

impl Show {
    fn new(output: Output) -> Self {
        let way = match output {
            Output::Json => Way::Line,
            Output::Table if io::stdout().is_terminal() => Way::InPlace,
            Output::Table => Way::Behind,
        };
        Self { way, last: None, told: None }
    }

    /// Returns whether somebody still reads.
    fn next(&mut self, answer: Result<String, Failure>) -> Result<bool, Failure> {
        let is_first = self.last.is_none();
        let text = match answer {
            Ok(answer) => {
                self.told = None;
                self.last.insert(answer).clone()
            }
            Err(failure) => {
                let Some(last) = &self.last else { return Err(failure) };
                let failure = failure.to_string();
                if self.way == Way::InPlace {
                    format!("{failure}; what was last seen:\n\n{last}")
                } else {
                    if self.told.replace(failure.clone()).as_ref() != Some(&failure) {
                        say(&format!("balancer: {failure}"));
                    }
                    return Ok(true);
                }
            }
        };
        exit::offer(&match self.way {
            Way::Line => text,
            Way::Behind if is_first => text,
            Way::Behind => format!("\n{text}"),
            Way::InPlace => in_place(&text, rows(), is_first),
        })
    }
}

/// How high the terminal is.
fn rows() -> u16 {
    tcgetwinsize(io::stdout()).map_or(USUAL_ROWS, |size| size.ws_row).max(2)
}

/// Over whatever is on the terminal: home, each line with what is right of it cleared, then all below. Lines that are too long
/// are cut by the terminal, which doesn't wrap them meanwhile; those that are too many are told.
fn in_place(text: &str, rows: u16, is_first: bool) -> String {
    let room = usize::from(rows) - 1;
    let count = text.lines().count();
    let shown = if count > room { room - 1 } else { count };
    let mut frame = String::from(if is_first { "\x1b[2J\x1b[H\x1b[?7l" } else { "\x1b[H\x1b[?7l" });
    for line in text.lines().take(shown) {
        frame.push_str(line);
        frame.push_str("\x1b[K\r\n");
    }
    if count > shown {
        frame.push_str(&format!(
            "… {} more lines: name a pool, or make the window higher\x1b[K\r\n",
            count - shown
        ));
    }
    frame.push_str("\x1b[J\x1b[?7h");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_stands_over_the_one_before_and_wraps_nothing() {
        let frame = in_place("a\nb\n", 24, true);
        assert_eq!(frame, "\x1b[2J\x1b[H\x1b[?7la\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?7h");
        assert!(in_place("a\n", 24, false).starts_with("\x1b[H\x1b[?7la"));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_scrolls_nothing() {
        for (rows, lines) in [(4, 3), (4, 4), (2, 9), (3, 2), (24, 100)] {
            let frame = in_place(&"x\n".repeat(lines), rows, false);
            let written = frame.matches("\r\n").count();
            assert!(written < usize::from(rows), "{rows} rows, {lines} lines: {frame:?}");
            let (left_out, shown) = (frame.contains("more lines"), frame.matches('x').count());
            assert_eq!(left_out, shown < lines, "{frame:?}");
            assert!(!left_out || frame.contains(&format!("… {} more", lines - shown)), "{frame:?}");
        }
    }

    #[test]
    fn an_interval_is_a_duration_that_eyes_can_follow() {
        assert_eq!(every("500ms"), Ok(Duration::from_millis(500)));
        assert!(every("99ms").is_err() && every("1").is_err());
    }

    #[test]
    fn a_failure_ends_it_only_where_nothing_was_seen_before() {
        let mut show = Show { way: Way::Line, last: None, told: None };
        let failed = || Err(Failure::new(Exit::NoDaemon, "no daemon"));
        assert_eq!(show.next(failed()).map_err(|failure| failure.exit), Err(Exit::NoDaemon));
        show.last = Some("{}\n".to_owned());
        assert!(show.next(failed()).is_ok());
        assert_eq!(show.told.as_deref(), Some("no daemon"));
    }
}
