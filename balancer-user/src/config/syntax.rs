//! From text to TOML's tree, or to the places where it isn't TOML.

use toml::de::{DeTable, Error};

use super::limits::RECOVERED_BYTES;
use super::notes::Notes;
use super::problem::{Fault, quoted};
use super::source::Span;

/// The tree; none when the text isn't TOML, which is then noted. Nesting is bounded by the parser, at 80 levels.
pub(super) fn tree<'t>(text: &'t str, notes: &Notes<'_>) -> Option<DeTable<'t>> {
    let first = match DeTable::parse(text) {
        Ok(tree) => return Some(tree.into_inner()),
        Err(error) => error,
    };
    if text.len() > RECOVERED_BYTES {
        note(text, &first, notes);
    } else {
        // What is left of the tree has holes; errors in it could be echoes of these.
        let (_, errors) = DeTable::parse_recoverable(text);
        errors.iter().for_each(|error| note(text, error, notes));
    }
    None
}

fn note(text: &str, error: &Error, notes: &Notes<'_>) {
    let span = error.span().map_or(Span::BEGINNING, Span::from);
    let fault = match error.message() {
        "duplicate key" => {
            let key = quoted(text.get(span.start..span.end).unwrap_or_default());
            Fault::new(format!("the key {key} stands twice in one table"), "remove one of the two")
        }
        message if message.contains("recursion") || message.contains("recurse") => {
            Fault::new("is nested too deeply", "write tables and arrays as in the example configuration")
        }
        message => Fault::new(format!("is not TOML: {message}"), "correct this; a string stands in quotes"),
    };
    notes.error(span, "", fault);
}
