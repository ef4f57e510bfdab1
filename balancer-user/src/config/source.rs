//! The text of a configuration and where things stand in it.
//!
//! Lines and columns count from 1, columns in characters, as editors do.

use std::ops::Range;

use super::problem::Excerpt;

/// At most this many characters of a line are shown around an error.
const EXCERPT_CHARS: usize = 120;

/// How much of a long line is shown before the error.
const BEFORE_CHARS: usize = 30;

/// Bytes `start..end` of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: usize,
    /// Behind the last byte.
    pub(super) end: usize,
}

impl Span {
    /// The very beginning: for what is missing from the whole text.
    pub(super) const BEGINNING: Self = Self { start: 0, end: 0 };
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands.
    pub(super) span: Span,
}

/// A configuration's text under the name that messages give it.
#[derive(Debug)]
pub(super) struct SourceText {
    /// The path, or `<stdin>`.
    pub(super) name: String,
    /// All of it.
    pub(super) text: String,
    /// The offset at which each line starts.
    line_starts: Vec<usize>,
}

impl SourceText {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(ends).collect();
        Self { name: name.to_owned(), text: text.to_owned(), line_starts }
    }

    /// The line that holds this byte.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset).max(1)
    }

    /// Line and column of this byte.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.line_starts[line - 1];
        let end = self.boundary(offset).max(start);
        (line, self.text[start..end].chars().count() + 1)
    }

    /// The line of `span`'s start, cut to a readable width, and what to mark in it.
    pub(super) fn excerpt(&self, span: Span) -> Excerpt {
        let line = self.line(span.start);
        let start = self.line_starts[line - 1];
        let rest = &self.text[start..];
        let text = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let end = start + text.len();

        let mark_start = self.boundary(span.start).clamp(start, end);
        let mark_end = self.boundary(span.end).clamp(mark_start, end);
        let before: usize =
            self.text[start..mark_start].chars().rev().take(BEFORE_CHARS).map(char::len_utf8).sum();
        let cut = if text.chars().nth(EXCERPT_CHARS).is_none() { start } else { mark_start - before };
        let shown: String = self.text[cut..end].chars().take(EXCERPT_CHARS).collect();
        let mark = (mark_start - cut).min(shown.len())..(mark_end - cut).min(shown.len());
        Excerpt { text: shown, mark }
    }

    /// The nearest character boundary at or before `offset`, within the text.
    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let source = SourceText::new("x", "ä = 1\r\nöö = 2\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position("ä".len()), (1, 2));
        assert_eq!(source.position("ä = 1\r\nöö".len()), (2, 3));
        assert_eq!(source.position(source.text.len()), (3, 1));
        assert_eq!(SourceText::new("x", "").position(0), (1, 1));
    }

    #[test]
    fn an_excerpt_is_the_line_without_its_end() {
        let source = SourceText::new("x", "a = 1\r\nbb = 22\r\n");
        let excerpt = source.excerpt(Span { start: 12, end: 14 });
        assert_eq!((excerpt.text.as_str(), &excerpt.text[excerpt.mark.clone()]), ("bb = 22", "22"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_error() {
        let text = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let excerpt = SourceText::new("x", &text).excerpt(Span { start: 5000, end: 5004 });
        assert_eq!(&excerpt.text[excerpt.mark.clone()], "HERE");
        assert_eq!(excerpt.text.len(), EXCERPT_CHARS);
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_has_a_position_and_an_excerpt(
            text in "(\\PC|\n|\r){0,300}", start in 0..1300_usize, length in 0..1300_usize,
        ) {
            let source = SourceText::new("x", &text);
            let (line, column) = source.position(start);
            prop_assert!(line >= 1 && column >= 1);
            let excerpt = source.excerpt(Span { start, end: start + length });
            prop_assert!(excerpt.text.get(excerpt.mark).is_some());
        }
    }
}
