//! One directive of nginx's, with its place, and as it is shown to people.

use std::fmt::{self, Display, Formatter};
use std::rc::Rc;

/// A directive in a comment or a message is cut here.
const SHOWN_CHARS: usize = 100;

/// Where a directive stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: Rc<str>,
    /// From 1.
    pub(super) line: usize,
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file, self.line)
    }
}

/// One directive, with its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) place: Place,
    pub(super) block: Option<Vec<Self>>,
}

impl Directive {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The directives within it.
    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The first argument.
    pub(super) fn argument(&self) -> Option<&str> {
        self.arguments.first().map(String::as_str)
    }

    /// As nginx would read it, on one line and not too long.
    pub(super) fn shown(&self) -> String {
        let end = if self.block.is_some() { " { … }" } else { ";" };
        shown(&self.name, &self.arguments, end)
    }
}

/// As nginx would read it; cut where a line would get too long.
pub(super) fn shown(name: &str, arguments: &[String], end: &str) -> String {
    let mut text = word(name);
    for argument in arguments {
        if text.len() > SHOWN_CHARS * 4 {
            break;
        }
        text.push(' ');
        text.push_str(&word(argument));
    }
    if text.chars().nth(SHOWN_CHARS).is_some() {
        text = text.chars().take(SHOWN_CHARS).chain(['…']).collect();
    }
    text + end
}

/// In quotes where it needs them.
fn word(word: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || matches!(c, ';' | '{' | '}' | '"' | '\'');
    if word.is_empty() || word.contains(ends_word) && !word.starts_with('$') {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;

    #[test]
    fn a_directive_is_shown_on_one_short_line() {
        let parsed = parse(&format!("a 'b c' {};\nd {{ e; }}", "x".repeat(300)), &Rc::from("f"), 9).unwrap();
        let shown: Vec<String> = parsed.directives.iter().map(Directive::shown).collect();
        assert!(shown[0].starts_with("a \"b c\" xxx") && shown[0].ends_with("x…;"), "{shown:?}");
        assert_eq!((shown[0].chars().count(), shown[1].as_str()), (102, "d { … }"));
    }
}
