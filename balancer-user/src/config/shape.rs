//! What may be written in each place of a configuration: what the readers ask for, learned from them while they read.
//!
//! So there is no second list of keys that could say something else than what is read. Deliberately not here: what a key means
//! ([`keys`](super::keys)), and how this is written down for others ([`schema`](super::schema)).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::notes::Notes;
use super::source::SourceText;
use super::{read_tables, syntax};

/// Every table that there is, with nothing in it: reading it asks for every key. A table that were missing here would be one
/// without keys, which a test finds.
const EVERY_TABLE: &str = "\
[gateway]
[http]
[[pool]]
[pool.probe]
[[pool.service]]
[pool.service.probe]
[[pool.backend]]
[[pool.hook]]
";

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number(RangeInclusive<u32>),
    Flag,
    /// One of these words.
    Choice(Vec<&'static str>),
    Duration,
    /// At most so many.
    Texts(usize),
    Table,
    /// From so many to so many.
    Tables(RangeInclusive<usize>),
}

/// The keys of one table, in the order in which they are read, which is the order in which errors list them.
pub(super) type Keys = Vec<(&'static str, Shape)>;

/// What is known of all tables.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    tables: BTreeMap<String, Keys>,
    required: BTreeSet<String>,
}

impl Shapes {
    /// Those of a whole configuration.
    pub(super) fn of_all() -> Self {
        let mut all = Self::default();
        // A table that must be there is only missed where it isn't.
        for text in [EVERY_TABLE, ""] {
            let source = SourceText::new("", text);
            let notes = Notes::new(&source);
            if let Some(tree) = syntax::tree(&source.text, &notes) {
                let _incomplete = read_tables(&tree, &notes);
            }
            let learned = notes.learned();
            all.required.extend(learned.required);
            for (path, keys) in learned.tables {
                all.tables.entry(path).or_insert(keys);
            }
        }
        all
    }

    pub(super) fn learn(&mut self, path: &str, key: &'static str, shape: Shape) {
        if !self.tables.contains_key(path) {
            self.tables.insert(path.to_owned(), Vec::new());
        }
        if let Some(keys) =
            self.tables.get_mut(path).filter(|keys| keys.iter().all(|(known, _)| *known != key))
        {
            keys.push((key, shape));
        }
    }

    pub(super) fn require(&mut self, key: String) {
        self.required.insert(key);
    }

    /// The keys of the table at this path; the top has none.
    pub(super) fn table(&self, path: &str) -> &[(&'static str, Shape)] {
        self.tables.get(path).map_or(&[], Vec::as_slice)
    }

    /// The tables that have such a key.
    pub(super) fn tables_with<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let has = move |keys: &Keys| keys.iter().any(|(known, _)| *known == key);
        self.tables
            .iter()
            .filter(move |(path, keys)| !path.is_empty() && has(keys))
            .map(|(path, _)| path.as_str())
    }

    /// Whether the table at this path is one of several.
    pub(super) fn is_array(&self, path: &str) -> bool {
        let (outer, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.table(outer).iter().any(|(known, shape)| *known == key && matches!(shape, Shape::Tables(_)))
    }

    /// Whether a key, named in full, must be there.
    pub(super) fn is_required(&self, key: &str) -> bool {
        self.required.contains(key)
    }

    /// Every key, named in full, that is no table.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> Vec<(String, Shape)> {
        let is_leaf = |shape: &Shape| !matches!(shape, Shape::Table | Shape::Tables(_));
        let full =
            |path: &str, key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let tables = self.tables.iter();
        let leaves =
            tables.flat_map(|(path, keys)| keys.iter().map(move |(key, shape)| (full(path, key), shape)));
        leaves.filter(|(_, shape)| is_leaf(shape)).map(|(key, shape)| (key, shape.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_can_be_written_is_known_with_its_keys() {
        let all = Shapes::of_all();
        for (path, keys) in &all.tables {
            for (key, shape) in keys {
                if matches!(shape, Shape::Table | Shape::Tables(_)) {
                    let inner = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
                    assert!(!all.table(&inner).is_empty(), "{inner} is missing in EVERY_TABLE");
                }
            }
        }
        assert!(
            all.is_required("gateway.interfaces")
                && all.is_required("gateway")
                && all.is_required("pool.hook.run")
        );
        assert!(!all.is_required("http") && !all.is_required("gateway.notify"));
    }
}
