//! What a program said: a bounded part of it, and that part as lines that a log or a terminal may show.
//!
//! Deliberately not here: telling stdout from stderr. Both are one pipe, so that lines stand in the order in which they were
//! written.

/// The beginning of what it said is kept up to here …
const HEAD: usize = 63 * 1024;
/// … and of what came after that, the end: there a program that fails says why. Together 64 KiB.
const TAIL: usize = 1024;
/// Characters of the last line: a sentence.
const LAST_LINE: usize = 200;
/// Characters of any other line.
const LINE: usize = 1000;

/// What a program said on stdout and stderr, 64 KiB of it at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes between the two that weren't kept.
    lost: u64,
}

impl Output {
    pub(super) fn push(&mut self, said: &[u8]) {
        let room = HEAD - self.head.len();
        let (head, rest) = said.split_at(room.min(said.len()));
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(rest);
        let beyond = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..beyond);
        self.lost += beyond as u64;
    }

    /// What was kept of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [&self.head[..], &self.tail].concat()
    }

    /// How many bytes were thrown away.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// The last line with something on it: short, without control characters.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let bytes = self.bytes();
        let lines = bytes.rsplit(|byte| *byte == b'\n');
        let visible = |line: &[u8]| {
            let text: String =
                String::from_utf8_lossy(line).chars().filter(|char| !char.is_control()).collect();
            let text = text.trim();
            (!text.is_empty()).then(|| shortened(text.chars(), LAST_LINE))
        };
        lines.into_iter().find_map(visible)
    }

    /// All lines with something on them, of bounded length, control characters as `\u{1b}`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let escaped = |line: &[u8]| {
            let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            let plain = text.chars().flat_map(|char| {
                let escape = char.is_control().then(|| char.escape_debug());
                let itself = escape.is_none().then_some(char);
                escape.into_iter().flatten().chain(itself)
            });
            shortened(plain, LINE)
        };
        let parts = [&self.head, &self.tail].into_iter();
        // What was lost between the two parts ends a line.
        let lines = if self.lost > 0 {
            parts.flat_map(|part| part.split(|byte| *byte == b'\n')).map(escaped).collect::<Vec<_>>()
        } else {
            self.bytes().split(|byte| *byte == b'\n').map(escaped).collect()
        };
        lines.into_iter().filter(|line| !line.is_empty()).collect()
    }
}

fn shortened(chars: impl Iterator<Item = char>, longest: usize) -> String {
    let mut chars = chars;
    let mut kept: String = chars.by_ref().take(longest).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(said: &[&[u8]]) -> Output {
        let mut output = Output::default();
        said.iter().for_each(|said| output.push(said));
        output
    }

    #[test]
    fn of_a_flood_the_beginning_and_the_end_are_kept() {
        let mut flood = output(&[b"first\n"]);
        for _ in 0..100_000 {
            flood.push(b"some words\n");
        }
        flood.push(b"last");
        assert_eq!(flood.bytes().len(), HEAD + TAIL);
        assert_eq!(flood.lost(), 1_100_010 - 64 * 1024);
        assert_eq!(flood.last_line().as_deref(), Some("last"));
        assert_eq!(flood.lines().first().map(String::as_str), Some("first"));
        assert_eq!(flood.lines().last().map(String::as_str), Some("last"));
    }

    #[test]
    fn exactly_as_much_as_is_kept_is_all_there() {
        let all: Vec<u8> = (0..HEAD + TAIL).map(|n| b'a' + (n % 26) as u8).collect();
        let (one, other) = all.split_at(HEAD - 3);
        let whole = output(&[one, other]);
        assert!(whole.bytes() == all && whole.lost() == 0, "{} bytes lost", whole.lost());
        assert_eq!(output(&[&all, b"!"]).lost(), 1);
    }

    #[test]
    fn the_last_line_is_one_that_says_something() {
        assert_eq!(output(&[]).last_line(), None);
        assert_eq!(output(&[b"\n \r\n\x1b\n"]).last_line(), None);
        assert_eq!(output(&[b"one\ntwo \r\n\n"]).last_line().as_deref(), Some("two"));
    }

    #[test]
    fn what_a_program_says_is_harmless() {
        let hostile = output(&[b"a\x1b[2J\rb\xff\x00c\n", &[b'x'; 5000]]);
        let last = hostile.last_line().unwrap();
        assert!(last.chars().count() == LAST_LINE + 1 && last.ends_with('…'), "{last}");
        let lines = hostile.lines();
        assert_eq!(lines[0], "a\\u{1b}[2J\\rb\u{fffd}\\0c");
        assert_eq!(lines[1].chars().count(), LINE + 1);
        assert_eq!(output(&[b"a\x1b[2Jb\rc"]).last_line().as_deref(), Some("a[2Jbc"));
    }
}
