//! What to write instead of what newcomers write: other notations, other programs' keys, keys in the wrong table.
//!
//! A hint is a guess from the text around an error, and never decides whether there is one.

use std::sync::LazyLock;

use super::shape::{Shape, Shapes};
use super::source::Span;

/// Every key that there is, to find the table of one that stands in another.
static ALL: LazyLock<Shapes> = LazyLock::new(Shapes::of_all);

/// A line is looked at so far: a longer one is no line of a configuration.
const LINE_BYTES: usize = 200;

/// Keys of other programs, and what does the same here.
const FOREIGN: &[(&str, &str)] = &[
    ("weight", "there are no weights: all new flows go to one backend, the first in order that is up"),
    ("port", "the port on the backends is the service's `backend_port`"),
    ("down", "write disabled = true"),
    ("enabled", "write disabled = true to leave it out"),
    ("check", "write [pool.probe] with a `kind`"),
    ("balance", "leave it out: all new flows go to one backend, the first in order that is up"),
    ("mode", "leave it out: TCP is passed through; `forwarding` says whose address backends see"),
    ("protocol", "leave it out: it is always TCP"),
    ("server", "write [[pool.backend]] with a name and an address"),
];

/// What to write where the text at `span` isn't TOML.
pub(super) fn syntax(text: &str, span: Span) -> &'static str {
    let line = line(text, span.start);
    let trimmed = line.trim_start();
    let at = text.floor_char_boundary(span.start.min(text.len()));
    let here = text[at..].chars().next();
    let before = text[..at].trim_end_matches([' ', '\t']);
    let opens = |words: &[&str]| words.iter().any(|word| trimmed.starts_with(word));
    if trimmed.ends_with('{')
        || trimmed.ends_with(';')
        || opens(&["upstream ", "server ", "http {", "stream {"])
    {
        return "this looks like nginx's configuration, from which `balancer import nginx FILE` makes one";
    }
    if opens(&["{", "\""]) {
        return "this looks like JSON: write key = value on a line each, below [table] headers";
    }
    if line.contains(['“', '”', '‘', '’', '„']) {
        return "write straight quotes, \" and \"";
    }
    let is_key = |key: &str| {
        !key.is_empty()
            && key.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    if trimmed.split_once(':').is_some_and(|(key, _)| is_key(key)) {
        return "write key = value, with `=` instead of `:`";
    }
    if line.matches('"').count() % 2 == 1 {
        return "close the string with a \"";
    }
    if here == Some('"') && before.ends_with('"') {
        return "write a comma between the two";
    }
    let value = trimmed.split_once('=').map(|(_, value)| value.trim());
    if value.is_some_and(|value| {
        matches!(value.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "true" | "false")
    }) {
        return "write true or false; a word stands in quotes";
    }
    "correct this; a string stands in quotes"
}

/// The line that holds this byte, without its end.
fn line(text: &str, at: usize) -> &str {
    let at = text.floor_char_boundary(at.min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let start = text.floor_char_boundary(start.max(at.saturating_sub(LINE_BYTES)));
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let end = text.floor_char_boundary(end.min(at + LINE_BYTES));
    text[start..end.max(start)].trim_end_matches('\r')
}

/// What to write where a key stands twice. A table may stand once, one of an array with two brackets each time.
pub(super) fn repeated(text: &str, span: Span) -> Repeated {
    let header = line(text, span.start).trim();
    let Some(path) = header.strip_prefix('[').filter(|rest| !rest.starts_with('[')) else {
        return Repeated::Key;
    };
    let path = path.split(']').next().unwrap_or_default().trim();
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let known = ALL.table(table).iter().find(|(known, _)| *known == key);
    match known {
        Some((_, Shape::Tables(_))) => {
            Repeated::OneOfSeveral(format!("write [[{path}]], with two brackets, each time"))
        }
        _ => Repeated::Table,
    }
}

/// What it is that stands twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    Key,
    /// Its keys seem to stand twice as well.
    Table,
    /// As above; and what to write.
    OneOfSeveral(String),
}

/// Where an unknown key of the table at `path` belongs, or what does the same.
pub(super) fn unknown(path: &str, key: &str) -> Option<String> {
    let elsewhere = ALL.tables_with(key).find(|table| *table != path);
    if let Some(table) = elsewhere {
        let header = if ALL.is_array(table) { format!("[[{table}]]") } else { format!("[{table}]") };
        let above = path.starts_with(&format!("{table}."));
        let place = if above { "above the first table within it" } else { "below that header" };
        return Some(format!("`{key}` belongs to {header}: write it there, {place}"));
    }
    FOREIGN.iter().find(|(foreign, _)| *foreign == key).map(|(_, instead)| (*instead).to_owned())
}

/// A string where an array of strings belongs, as one: `"a b"` as `["a", "b"]`.
pub(super) fn as_array(text: &str) -> Option<String> {
    const WORDS: usize = 8;
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let is_plain =
        |word: &&str| word.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    let is_short = !words.is_empty() && words.len() <= WORDS && text.len() <= LINE_BYTES;
    (is_short && words.iter().all(is_plain)).then(|| format!("[\"{}\"]", words.join("\", \"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> &'static str {
        let at = text.find('«').expect("a mark");
        syntax(&text.replacen('«', "", 1), Span { start: at, end: at + 1 })
    }

    #[test]
    fn what_looks_like_another_notation_is_called_that() {
        for (text, words) in [
            ("upstream« x { server 10.0.2.11:443; }", "import nginx"),
            ("a = 1\nserver« {\n", "import nginx"),
            ("«{\"gateway\": {}}", "JSON"),
            ("gateway«:\n  interfaces: [a]", "`=` instead of `:`"),
            ("name = «“x”", "straight quotes"),
            ("name = \"x«\nb = 1", "close the string"),
            ("a = [\"x\" «\"y\"]", "comma"),
            ("backup = «yes", "true or false"),
            ("listen = 203.0«.113.10:443", "a string stands in quotes"),
        ] {
            assert!(hint(text).contains(words), "{text}: {}", hint(text));
        }
    }

    #[test]
    fn a_key_in_the_wrong_table_is_shown_its_own() {
        let of = |path, key| unknown(path, key).unwrap_or_default();
        assert_eq!(
            of("pool.service", "failback"),
            "`failback` belongs to [[pool]]: write it there, above the first table within it"
        );
        assert!(
            of("pool.backend", "interval").contains("[pool.probe]"),
            "{}",
            of("pool.backend", "interval")
        );
        assert!(of("pool.backend", "weight").contains("no weights"));
        assert_eq!(unknown("pool", "nonsense"), None);
    }

    #[test]
    fn one_of_several_tables_has_two_brackets() {
        let repeated = |header: &str| repeated(header, Span { start: 2, end: 3 });
        assert_eq!(
            repeated("[pool.backend]"),
            Repeated::OneOfSeveral("write [[pool.backend]], with two brackets, each time".to_owned())
        );
        assert_eq!(repeated("[gateway]"), Repeated::Table);
        assert_eq!(repeated("name = 1"), Repeated::Key);
    }

    #[test]
    fn a_string_for_an_array_is_shown_as_one() {
        assert_eq!(as_array("wan0, lan0").as_deref(), Some("[\"wan0\", \"lan0\"]"));
        assert_eq!(as_array("/promote db2").as_deref(), Some("[\"/promote\", \"db2\"]"));
        assert_eq!(as_array("a\"b"), None);
        assert_eq!(as_array(""), None);
    }

    #[test]
    fn no_text_makes_a_hint_panic() {
        for text in ["", "ä", "\n\n", "“", "a\r\n“ä", &"x“".repeat(500)] {
            for at in 0..=text.len() + 2 {
                let span = Span { start: at, end: at + 1 };
                let _hint = (syntax(text, span), repeated(text, span));
            }
        }
    }
}
