//! Claims about whole configurations. In a text, `«` marks where an error is expected.

mod accepted;
mod hooks;
mod hostile;
mod hosts;
mod machine;
mod refused;

use super::{ConfigErrors, Parsed, parse};

/// A small configuration without errors and warnings; cases replace one of its lines.
const BASE: &str = r#"[gateway]
interfaces = ["wan0", "lan0"]

[[pool]]
name = "passwords"
on_backend_down = "keep"
passive = "off"
connect_retry = "off"

[pool.probe]
server_name = "pw.example.org"

[[pool.service]]
name = "web"
listen = "203.0.113.10:443"

[[pool.backend]]
name = "server1"
address = "10.0.2.11"
"#;

// The lines of BASE that cases replace, or behind which they write.
const INTERFACES: &str = r#"interfaces = ["wan0", "lan0"]"#;
const POOL: &str = r#"name = "passwords""#;
const PASSIVE: &str = r#"passive = "off""#;
const RETRY: &str = r#"connect_retry = "off""#;
const PROBE: &str = r#"server_name = "pw.example.org""#;
const SERVICE: &str = r#"name = "web""#;
const LISTEN: &str = r#"listen = "203.0.113.10:443""#;
const BACKEND: &str = r#"name = "server1""#;
const ADDRESS: &str = r#"address = "10.0.2.11""#;

/// Another pool, whose listening address and names differ.
const SECOND_POOL: &str = r#"
[[pool]]
name = "mail"
[pool.probe]
kind = "tcp"
[[pool.service]]
name = "smtp"
listen = "203.0.113.11:25"
[[pool.backend]]
name = "server1"
address = "10.0.2.11"
"#;

/// BASE with one line replaced.
fn replaced(line: &str, by: &str) -> String {
    assert_eq!(BASE.matches(line).count(), 1, "{line} is not one line of BASE");
    BASE.replace(line, by)
}

/// BASE with lines behind one of its lines.
fn behind(line: &str, lines: &str) -> String {
    replaced(line, &format!("{line}\n{lines}"))
}

/// The text without its mark, and the mark's line and column.
fn marked(text: &str) -> (String, (usize, usize)) {
    let at = text.find('«').unwrap_or_else(|| panic!("no « in {text}"));
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (text.replacen('«', "", 1), (line, column))
}

fn accepted(text: &str) -> Parsed {
    parse("f.toml", text).unwrap_or_else(|errors| panic!("refused:\n{errors}\nin:\n{text}"))
}

fn refused(text: &str) -> ConfigErrors {
    match parse("f.toml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors,
    }
}

/// Exactly one error, at the mark, with these words.
fn assert_refused(text: &str, words: &str) {
    let (text, position) = marked(text);
    assert_error(&refused(&text), position, words, &text);
}

fn assert_error(errors: &ConfigErrors, position: (usize, usize), words: &str, text: &str) {
    let shown = errors.to_string();
    assert_eq!(errors.count(), 1, "wanted one error with {words:?}, got:\n{shown}\nin:\n{text}");
    let (line, column) = position;
    assert!(shown.starts_with(&format!("f.toml:{line}:{column}: ")), "wanted {line}:{column}, got:\n{shown}");
    assert!(shown.contains(words), "wanted {words:?}, got:\n{shown}");
    assert!(!errors.errors()[0].instead().is_empty(), "nothing to write instead:\n{shown}");
}
