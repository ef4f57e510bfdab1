//! A small typed reader over TOML's spanned tree: keys are taken one by one, and what is left over is unknown.
//!
//! Why not serde: it stops at the first error, and loses where a value stood as soon as two of them are compared.
//! Each method returns none when the key is absent *or* wrong; when it is wrong, the error is already noted.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::hints;
use super::limits::TEXT_BYTES;
use super::notes::{Notes, Says};
use super::problem::{Fault, did_you_mean, quoted};
use super::shape::Shape;
use super::source::{Located, Span};
use crate::duration;

/// One table while it is read.
#[must_use = "finish() reports the unknown keys"]
pub(super) struct Table<'t> {
    /// `pool.service`, without the positions in arrays; empty at the top.
    path: String,
    entries: &'t DeTable<'t>,
    span: Span,
    notes: &'t Notes<'t>,
    known: Vec<&'static str>,
}

impl<'t> Table<'t> {
    pub(super) fn top(entries: &'t DeTable<'t>, notes: &'t Notes<'t>) -> Self {
        Self { path: String::new(), entries, span: Span::BEGINNING, notes, known: Vec::new() }
    }

    /// Where the table's header stands.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    pub(super) fn notes(&self) -> &'t Notes<'t> {
        self.notes
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is written, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// All keys that are written here, known or not, and where.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'t str, Span)> + use<'t> {
        self.entries.iter().map(|(key, _)| (key.get_ref().as_ref(), key.span().into()))
    }

    /// Notes an error of `key` at `span`.
    pub(super) fn error(&self, span: Span, key: &str, fault: Fault) {
        self.notes.error(span, self.key(key), fault);
    }

    /// Notes an error of the table as a whole.
    pub(super) fn error_of_table(&self, fault: Fault) {
        self.notes.error(self.span, self.path.clone(), fault);
    }

    pub(super) fn claim(&self, span: Span, key: &str, says: Says) {
        self.notes.claim(span, self.key(key), says);
    }

    /// Notes that a key must be there; `example` is a whole line to write.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.notes.learn_required(self.key(key));
        let fault = Fault::new("is missing", format!("write for example {example}"));
        self.notes.error(self.span, self.key(key), fault);
    }

    /// A string that `parse` understands.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Located<T>> {
        self.read(key, Shape::Text, |value| parse(string(key, value)?))
    }

    /// The same for a key that must be there.
    pub(super) fn required_text<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Located<T>> {
        if !self.has(key) {
            self.missing(key, example);
        }
        self.text(key, parse)
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str, bounds: RangeInclusive<u32>) -> Option<Located<u32>> {
        self.read(key, Shape::Number(bounds.clone()), |value| {
            let range = format!("write a whole number from {} to {}", bounds.start(), bounds.end());
            let DeValue::Integer(integer) = value else {
                return Err(Fault::new(format!("must be a number, not {}", kind(value)), range));
            };
            i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| Fault::new(format!("{} is out of range", quoted(&integer.to_string())), range))
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<Located<bool>> {
        self.read(key, Shape::Flag, |value| match value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(Fault::new(
                format!("must be true or false, not {}", kind(other)),
                format!("write {key} = true or {key} = false, without quotes"),
            )),
        })
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<Located<T>> {
        let shape = Shape::Choice(choices.iter().map(|(word, _)| *word).collect());
        self.read(key, shape, |value| {
            let written = string(key, value)?;
            choices.iter().find(|(word, _)| *word == written).map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
                let instead = match did_you_mean(written, &words) {
                    Some(suggestion) => format!("{suggestion} write {list}"),
                    None => format!("write {list}"),
                };
                Fault::new(format!("unknown value {}", quoted(written)), instead)
            })
        })
    }

    /// A duration of at least `shortest`.
    pub(super) fn duration(&mut self, key: &'static str, shortest: Duration) -> Option<Located<Duration>> {
        self.read(key, Shape::Duration, |value| {
            if let DeValue::Integer(number) = value {
                let number = number.to_string();
                return Err(Fault::new(
                    "a duration is a number with a unit, in quotes",
                    format!("write \"{number}s\" for seconds (units: d, h, m, s, ms)"),
                ));
            }
            let duration = duration::parse(string(key, value)?)
                .map_err(|error| Fault::new("is not a duration", error.to_string()))?;
            if duration < shortest {
                let least = duration::Shown(shortest);
                return Err(Fault::new(
                    format!("\"{}\" is too short", duration::Shown(duration)),
                    format!("write at least \"{least}\""),
                ));
            }
            Ok(duration)
        })
    }

    /// An array of strings, each of which `parse` understands.
    pub(super) fn texts<T>(
        &mut self,
        key: &'static str,
        limit: usize,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Located<Vec<Located<T>>>> {
        let array = self.read(key, Shape::Texts(limit), |value| match value {
            DeValue::Array(array) if array.len() > limit => Err(too_many(array, limit)),
            DeValue::Array(array) => Ok(array),
            other => {
                let shown = other.as_str().and_then(hints::as_array).unwrap_or_else(|| "[\"…\"]".to_owned());
                let message = format!("must be an array of strings, not {}", kind(other));
                Err(Fault::new(message, format!("write {key} = {shown}")))
            }
        })?;
        let mut values = Vec::with_capacity(array.value.len());
        for element in array.value.iter() {
            let span = element.span().into();
            match string(key, element.get_ref()).and_then(&parse) {
                Ok(value) => values.push(Located { value, span }),
                Err(fault) => self.error(span, key, fault),
            }
        }
        (values.len() == array.value.len()).then_some(Located { value: values, span: array.span })
    }

    /// The table under a key.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'t>> {
        let name = self.key(key);
        let found = self.read(key, Shape::Table, |value| match value {
            DeValue::Table(entries) => Ok(entries),
            other => Err(Fault::new(
                format!("must be a table, not {}", kind(other)),
                format!("write [{name}] on a line of its own, once"),
            )),
        })?;
        Some(self.inner(name, found.value, found.span))
    }

    /// The tables of an array, at most as many as `bounds` say; empty when the key is absent, none when it holds something
    /// else. That there are enough is for the reader to see, who knows what is missing without.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<usize>,
    ) -> Option<Vec<Table<'t>>> {
        let limit = *bounds.end();
        let name = self.key(key);
        let wrong = |value: &DeValue<'_>| {
            Fault::new(
                format!("must be an array of tables, not {}", kind(value)),
                format!("write [[{name}]], with two brackets, before the keys of each"),
            )
        };
        let is_there = self.has(key);
        let array = self.read(key, Shape::Tables(bounds), |value| match value {
            DeValue::Array(array) => Ok(array),
            other => Err(wrong(other)),
        });
        if !is_there {
            return Some(Vec::new());
        }
        let array = array?.value;
        if let Some(beyond) = array.get(limit) {
            self.error(beyond.span().into(), key, too_many(array, limit));
        }
        let mut tables = Vec::new();
        for element in array.iter().take(limit) {
            let span = element.span().into();
            match element.get_ref() {
                DeValue::Table(value) => tables.push(self.inner(name.clone(), value, span)),
                other => self.error(span, key, wrong(other)),
            }
        }
        (array.is_empty() || !tables.is_empty()).then_some(tables)
    }

    /// Notes the keys that nobody took.
    pub(super) fn finish(self) {
        for (written, span) in self.written() {
            if !self.known.contains(&written) {
                let instead = hints::unknown(&self.path, written)
                    .or_else(|| did_you_mean(written, &self.known))
                    .unwrap_or_else(|| format!("the keys here are: {}", self.known.join(", ")));
                let name = quoted(written);
                self.notes.error(span, self.path.clone(), Fault::new(format!("unknown key {name}"), instead));
            }
        }
    }

    fn inner(&self, path: String, entries: &'t DeTable<'t>, span: Span) -> Table<'t> {
        Table { path, entries, span, notes: self.notes, known: Vec::new() }
    }

    /// Takes a key: what `parse` makes of it, or a noted error.
    fn read<T>(
        &mut self,
        key: &'static str,
        shape: Shape,
        parse: impl FnOnce(&'t DeValue<'t>) -> Result<T, Fault>,
    ) -> Option<Located<T>> {
        self.known.push(key);
        self.notes.learn(&self.path, key, shape);
        let Some(value): Option<&'t Spanned<DeValue<'t>>> = self.entries.get(key) else {
            // What a probe is without them, those know who merge them.
            if !self.path.ends_with("probe") && key != "probe" {
                self.notes.left_out(self.span, &self.path, key);
            }
            return None;
        };
        let span = value.span().into();
        match parse(value.get_ref()) {
            Ok(parsed) => Some(Located { value: parsed, span }),
            Err(fault) => {
                self.error(span, key, fault);
                None
            }
        }
    }
}

fn string<'v>(key: &str, value: &'v DeValue<'_>) -> Result<&'v str, Fault> {
    let DeValue::String(text) = value else {
        return Err(Fault::new(
            format!("must be a string, not {}", kind(value)),
            format!("write {key} = \"…\", in quotes"),
        ));
    };
    if text.len() > TEXT_BYTES {
        return Err(Fault::new(
            format!("is {} bytes long", text.len()),
            format!("write at most {TEXT_BYTES} bytes"),
        ));
    }
    Ok(text)
}

fn too_many(array: &DeArray<'_>, limit: usize) -> Fault {
    Fault::new(format!("{} are too many", array.len()), format!("write at most {limit}"))
}

/// What a value is, for a message.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
