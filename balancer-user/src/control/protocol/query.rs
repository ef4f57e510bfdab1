//! The query of a URI, `pool=passwords&limit=10`, in both directions: keys are known words, values are any text.

use std::fmt;

/// Writes those that have a value.
pub(super) fn write(values: &[(&str, Option<&str>)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let named = values.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    for (index, (key, value)) in named.enumerate() {
        write!(f, "{}{key}=", if index == 0 { "" } else { "&" })?;
        escape(value, f)?;
    }
    Ok(())
}

/// What a query says.
pub(super) struct Values<'a> {
    values: Vec<(&'a str, String)>,
}

impl<'a> Values<'a> {
    /// # Errors
    /// A key that is not known or comes twice, so that a misspelt one never lists everything, or a value that is no text.
    pub(super) fn parse(query: &'a str, known: &[&str]) -> Result<Self, String> {
        let mut values: Vec<(&str, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} has no value"))?;
            let value = unescape(value).ok_or_else(|| format!("{part:?} is not text"))?;
            if !known.contains(&key) {
                return Err(format!("{key:?} is none of {}", known.join(", ")));
            }
            if values.iter().any(|(before, _)| *before == key) {
                return Err(format!("{key:?} is there twice"));
            }
            values.push((key, value));
        }
        Ok(Self { values })
    }

    /// The value of a key, if it has one.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.values.iter().position(|(known, _)| *known == key)?;
        Some(self.values.swap_remove(at).1)
    }
}

/// What RFC 3986 (2.3) leaves unreserved stays; every other byte is escaped.
fn escape(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    value.bytes().try_for_each(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            write!(f, "{}", char::from(byte))
        }
        _ => write!(f, "%{byte:02X}"),
    })
}

fn unescape(value: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = value.bytes();
    let mut text = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4 | digit(bytes.next()?)?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(text).ok()
}
