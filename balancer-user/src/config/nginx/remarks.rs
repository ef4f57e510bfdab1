//! What a person must hear about an import, and how text of the file is made fit to be shown.

use std::fmt::{self, Display, Formatter};

use super::directive::Place;

/// More remarks help nobody: the rest is counted, and stands in the comments.
const REMARKS: usize = 100;

/// Something that isn't as it was with nginx, or couldn't be read; one line without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark(String);

impl Display for Remark {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The first hundred remarks, and how many came after them.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    first: Vec<Remark>,
    more: usize,
}

impl Remarks {
    pub(super) fn push(&mut self, place: &Place, message: impl Display) {
        let remark = Remark(printable(&format!("{place}: {message}")));
        if self.first.contains(&remark) {
            return;
        }
        if self.first.len() < REMARKS { self.first.push(remark) } else { self.more += 1 }
    }

    pub(super) fn into_list(mut self) -> Vec<Remark> {
        if self.more > 0 {
            self.first.push(Remark(format!("{} more warnings: read the comments", self.more)));
        }
        self.first
    }
}

/// On one line, and without characters that steer a terminal or that TOML doesn't allow in a comment.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_graphic() || character == ' ' {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn remarks_are_bounded_and_stand_once() {
        let mut remarks = Remarks::default();
        let place = Place { file: Rc::from("f"), line: 1 };
        for number in 0..300 {
            remarks.push(&place, number / 2);
        }
        let list = remarks.into_list();
        assert_eq!((list.len(), list[0].to_string().as_str()), (REMARKS + 1, "f:1: 0"));
        assert!(list[REMARKS].to_string().ends_with("more warnings: read the comments"), "{}", list[REMARKS]);
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(printable("a\x1b[2J\n\u{202e}ä\"\\"), "a\\u{1b}[2J\\n\\u{202e}ä\"\\");
    }
}
