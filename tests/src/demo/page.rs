//! What the demo prints: a timeline on stdout, no line wider than [`WIDTH`], plain where colours aren't wanted.
//!
//! A colour is only ever added to words that say the same. Deliberately not here: what there is to say.

use std::{
    env,
    io::{self, IsTerminal, Write},
    time::SystemTime,
};

use anyhow::{Context, Result};

/// Fits a terminal beside an editor, and a page of documentation.
const WIDTH: usize = 100;

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Title,
    Good,
    Bad,
}

impl Tone {
    /// The terminal's code for it.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Title => Some("1"),
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
        }
    }
}

/// Where the timeline goes; its times are counted from the moment the page was opened.
#[derive(Debug)]
pub(super) struct Page {
    opened: SystemTime,
    is_coloured: bool,
}

impl Page {
    pub(super) fn open() -> Self {
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_coloured = io::stdout().is_terminal() && !is_unwanted && !is_dumb;
        Self { opened: SystemTime::now(), is_coloured }
    }

    /// A line of the timeline.
    pub(super) fn event(&self, at: SystemTime, tone: Tone, text: &str) -> Result<()> {
        let offset = at.duration_since(self.opened).unwrap_or_default().as_secs_f64();
        self.write(tone, &format!("{offset:>7.2} s  "), text)
    }

    /// Lines as they are, but for those too wide.
    pub(super) fn text(&self, tone: Tone, text: &str) -> Result<()> {
        text.lines().try_for_each(|line| self.write(tone, "", line))
    }

    /// Further lines of the timeline, below the last event.
    pub(super) fn below(&self, text: &str) -> Result<()> {
        text.lines().try_for_each(|line| self.write(Tone::Plain, "  ", line))
    }

    fn write(&self, tone: Tone, head: &str, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        let code = tone.code().filter(|_| self.is_coloured && !text.is_empty());
        let mut write = || -> io::Result<()> {
            for line in folded(head, text) {
                match code {
                    Some(code) => writeln!(stdout, "\x1b[{code}m{line}\x1b[0m")?,
                    None => writeln!(stdout, "{line}")?,
                }
            }
            stdout.flush()
        };
        write().context("write to stdout")
    }
}

/// Breaks a line at blanks, so that none of the results is wider than `WIDTH`; a word that is too long stays whole:
/// a path that is broken can't be copied. What follows is indented four columns more than what it belongs to.
fn folded(head: &str, text: &str) -> Vec<String> {
    let own_indent = text.chars().take_while(|letter| *letter == ' ').count();
    let indent = " ".repeat(head.chars().count() + own_indent + 4);
    let mut lines = Vec::new();
    let mut line = format!("{head}{text}").trim_end().to_owned();
    while line.chars().count() > WIDTH {
        let limit = line.char_indices().nth(WIDTH).map_or(line.len(), |(byte, _)| byte);
        let start = line.len() - line.trim_start().len();
        // Also the first blank beyond the limit will do, where a long word leaves no other.
        let blank = line[start..limit].rfind(' ').map(|at| start + at);
        let Some(blank) = blank.or_else(|| line[limit..].find(' ').map(|at| limit + at)) else { break };
        let rest = format!("{indent}{}", line[blank..].trim_start());
        line.truncate(blank);
        lines.push(line.trim_end().to_owned());
        line = rest;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_line_goes_on_below_and_loses_no_word() {
        let words = "word ".repeat(50);
        let lines = folded("   1.00 s  ", &words);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert!(lines[1].starts_with(&" ".repeat(15)), "{lines:?}");
        assert_eq!(lines.join(" ").matches("word").count(), 50);
    }

    #[test]
    fn a_line_that_fits_stays_as_it_is() {
        let exact = "●".repeat(WIDTH);
        assert_eq!(folded("", &exact), [exact]);
        assert_eq!(folded("", ""), [""]);
        assert_eq!(folded("", "  ends with blanks  "), ["  ends with blanks"]);
    }

    #[test]
    fn a_word_that_is_too_long_stays_whole() {
        let path = format!("/{}", "x".repeat(2 * WIDTH));
        assert_eq!(folded("    ", &path), [format!("    {path}")]);
        assert_eq!(
            folded("", &format!("see {path} there")),
            ["see".to_owned(), format!("    {path}"), "    there".to_owned()]
        );
    }
}
