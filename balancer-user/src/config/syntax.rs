//! From text to TOML's tree, or to the places where it isn't TOML.

use toml::de::{DeTable, Error};

use super::hints::{self, Repeated};
use super::limits::RECOVERED_BYTES;
use super::notes::Notes;
use super::problem::{Fault, quoted};
use super::source::Span;

/// How the parser calls a key or a table that stands twice.
const DUPLICATE: &str = "duplicate key";

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
        note_all(text, &errors, notes);
    }
    None
}

/// Where a table stands twice, the keys in it seem to: those errors are left out.
fn note_all(text: &str, errors: &[Error], notes: &Notes<'_>) {
    let mut echoes_until = 0;
    for error in errors {
        let span = error.span().map_or(Span::BEGINNING, Span::from);
        if error.message() == DUPLICATE && span.start < echoes_until {
            continue;
        }
        if error.message() == DUPLICATE && hints::repeated(text, span) != Repeated::Key {
            let rest = text.get(span.start..).unwrap_or_default();
            echoes_until = rest.find("\n[").map_or(text.len(), |next| span.start + next);
        }
        note(text, error, notes);
    }
}

fn note(text: &str, error: &Error, notes: &Notes<'_>) {
    let span = error.span().map_or(Span::BEGINNING, Span::from);
    let fault = match error.message() {
        DUPLICATE => {
            let key = quoted(text.get(span.start..span.end).unwrap_or_default());
            match hints::repeated(text, span) {
                Repeated::Key => {
                    Fault::new(format!("the key {key} stands twice in one table"), "remove one of the two")
                }
                Repeated::Table => Fault::new(
                    format!("the table {key} stands twice"),
                    "write all its keys below the first header",
                ),
                Repeated::OneOfSeveral(instead) => Fault::new(
                    format!("the table {key} stands twice, as if there could be only one"),
                    instead,
                ),
            }
        }
        message if message.contains("recursion") || message.contains("recurse") => {
            Fault::new("is nested too deeply", "write tables and arrays as in the example configuration")
        }
        message => Fault::new(format!("is not TOML: {message}"), hints::syntax(text, span)),
    };
    notes.error(span, "", fault);
}
