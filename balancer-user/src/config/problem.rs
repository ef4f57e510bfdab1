//! What is wrong with a configuration: where, which key, why, and what to write instead.
//!
//! All errors are collected, so that a person corrects a file once. Deliberately absent: severities; what isn't an
//! error is a [`Warning`](super::Warning).

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::limits::ERRORS_SHOWN;
use super::source::{SourceText, Span};

/// What a value does wrong, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is wrong, and why that is a mistake.
    pub(super) message: String,
    /// What to write instead.
    pub(super) instead: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { message: message.into(), instead: instead.into() }
    }
}

/// A fault and its place; ordered as in the text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) instead: String,
}

/// The first [`ERRORS_SHOWN`] problems of a text, each once, and how many came after them.
#[derive(Debug, Default)]
pub(super) struct Problems {
    first: BTreeSet<Problem>,
    more: usize,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.first.insert(problem);
        if self.first.len() > ERRORS_SHOWN {
            self.first.pop_last();
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The errors with lines and columns.
    pub(super) fn locate(self, source: &SourceText) -> ConfigErrors {
        let locate = |problem: Problem| {
            let (line, column) = source.position(problem.span.start);
            let place = Place { line, column, excerpt: source.excerpt(problem.span) };
            ConfigError {
                place: Some(place),
                key: problem.key,
                message: problem.message,
                instead: problem.instead,
            }
        };
        let errors = self.first.into_iter().map(locate).collect();
        ConfigErrors { source: source.name.clone(), errors, more: self.more }
    }
}

/// A piece of one line, and the bytes of it to mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) text: String,
    pub(super) mark: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    excerpt: Excerpt,
}

/// One error of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// None when the text couldn't be read at all.
    place: Option<Place>,
    key: String,
    message: String,
    instead: String,
}

impl ConfigError {
    /// Line and column, from 1; none when the text couldn't be read at all.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }

    /// The key with its tables, as in `pool.service.listen`; empty when the text isn't TOML.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write or do instead.
    pub fn instead(&self) -> &str {
        &self.instead
    }

    /// `FILE:LINE:COLUMN: key: message`, without what isn't known.
    fn headline(&self, source: &str) -> String {
        let mut headline = source.to_owned();
        if let Some((line, column)) = self.position() {
            headline.push_str(&format!(":{line}:{column}"));
        }
        for part in [self.key.as_str(), self.message.as_str()] {
            if !part.is_empty() {
                headline.push_str(": ");
                headline.push_str(part);
            }
        }
        headline
    }

    fn render(&self, source: &str, renderer: &Renderer) -> String {
        let title = Level::ERROR.no_name().primary_title(self.headline(source));
        let group = match &self.place {
            Some(place) => Group::with_title(title).element(
                Snippet::source(place.excerpt.text.as_str()).line_start(place.line).annotation(
                    AnnotationKind::Primary.span(place.excerpt.mark.clone()).label(self.instead.as_str()),
                ),
            ),
            None => Group::with_title(title).element(Level::HELP.message(self.instead.as_str())),
        };
        renderer.render(&[group])
    }
}

/// All errors of a configuration, in the order of the text; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    source: String,
    errors: Vec<ConfigError>,
    more: usize,
}

impl ConfigErrors {
    /// A configuration that can't even be read.
    pub(super) fn unreadable(source: &str, fault: Fault) -> Self {
        let error =
            ConfigError { place: None, key: String::new(), message: fault.message, instead: fault.instead };
        Self { source: source.to_owned(), errors: vec![error], more: 0 }
    }

    /// The first 50 errors.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// How many there are, with those that aren't kept.
    pub fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Every error: `FILE:LINE:COLUMN: key: message` on its first line, then the source line with what to write
    /// instead. Colour is an addition; nothing is said by it alone.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut parts: Vec<String> =
            self.errors.iter().map(|error| error.render(&self.source, &renderer)).collect();
        if self.more > 0 {
            parts.push(format!("{}: {} more", self.source, self.more));
        }
        parts.join("\n\n")
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}

/// What was written, for a message: short, and without control characters.
pub(super) fn quoted(written: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let mut shown: String = written.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if written.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `did you mean …` for the closest of `known`, if one is close.
pub(super) fn did_you_mean(written: &str, known: &[&str]) -> Option<String> {
    // Jaro-Winkler favours a common prefix, which is how keys are mistyped; the length bound keeps it cheap.
    const CLOSE: f64 = 0.8;
    if written.len() > 64 {
        return None;
    }
    let (likeness, closest) = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(written, candidate), candidate))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= CLOSE).then(|| format!("did you mean `{closest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(start: usize) -> Problem {
        let span = Span { start, end: start + 1 };
        Problem { span, key: "k".into(), message: "is wrong".into(), instead: "write it right".into() }
    }

    #[test]
    fn the_first_errors_of_the_text_are_kept_and_the_rest_counted() {
        let source = SourceText::new("f.toml", &"x\n".repeat(200));
        let mut problems = Problems::default();
        for line in (0..120).rev() {
            problems.push(problem(line * 2));
        }
        let errors = problems.locate(&source);
        assert_eq!(errors.errors().len(), ERRORS_SHOWN);
        assert_eq!(errors.errors()[0].position(), Some((1, 1)));
        assert_eq!(errors.count(), 120);
        assert!(errors.to_string().ends_with("f.toml: 70 more"), "{errors}");
    }

    #[test]
    fn the_same_error_is_reported_once() {
        let mut problems = Problems::default();
        problems.push(problem(0));
        problems.push(problem(0));
        assert_eq!(problems.locate(&SourceText::new("f", "x")).count(), 1);
    }

    #[test]
    fn an_error_starts_with_its_place_and_marks_what_to_change() {
        let source = SourceText::new("f.toml", "max_fail = 1\n");
        let mut problems = Problems::default();
        problems.push(Problem {
            span: Span { start: 0, end: 8 },
            key: "pool.backend.max_fail".into(),
            message: "unknown key".into(),
            instead: "did you mean `max_fails`?".into(),
        });
        let errors = problems.locate(&source);
        assert_eq!(
            errors.to_string(),
            "f.toml:1:1: pool.backend.max_fail: unknown key\n  \
             |\n1 | max_fail = 1\n  | ^^^^^^^^ did you mean `max_fails`?"
        );
        assert!(errors.render(true).contains('\u{1b}'), "asked for colour, got none");
    }

    #[test]
    fn what_was_written_is_shown_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert!(quoted(&"x".repeat(1 << 20)).len() < 80);
    }

    #[test]
    fn only_a_close_key_is_suggested() {
        assert_eq!(
            did_you_mean("max_fail", &["address", "max_fails"]),
            Some("did you mean `max_fails`?".into())
        );
        assert_eq!(did_you_mean("colour", &["address", "max_fails"]), None);
    }
}
