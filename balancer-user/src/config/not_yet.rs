//! What the configuration can say and the data plane can't do yet: refused, never ignored.
//!
//! Such keys are read and checked like all others; then this table is asked. Supporting one means to use its value and
//! to remove its line.

use toml::de::DeValue;

use super::notes::Notes;
use super::problem::Fault;
use super::source::Span;

/// Which values of a key are refused.
#[derive(Debug)]
enum When {
    /// Any.
    Written,
    /// This word.
    Is(&'static str),
}
use When::{Is, Written};

/// One thing that can't be done yet.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What it is; the message goes on with "is not supported yet".
    what: &'static str,
    /// What to write as long as that is so.
    instead: &'static str,
}

impl Refusal {
    pub(super) fn fault(&self) -> Fault {
        Fault::new(format!("{} is not supported yet", self.what), self.instead)
    }
}

/// Refused as soon as it is written: the key, which of its values, what that is, and what to write instead.
#[rustfmt::skip]
const REFUSED: &[(&str, When, &str, &str)] = &[
    ("http",                        Written,          "the dashboard",             "leave the table out"),
    ("pool.passive",                Is("probe"),      "watching clients' SYNs",    "write \"off\""),
    ("pool.passive",                Is("count"),      "watching clients' SYNs",    "write \"off\""),
    ("pool.connect_retry",          Is("instant"),    "retrying a connection",     "write \"off\""),
    ("pool.connect_retry",          Is("retransmit"), "retrying a connection",     "write \"off\""),
    ("pool.connect_timeout",        Written,          "watching clients' SYNs",    "leave it out"),
    ("pool.service.redirect_http",  Written,          "redirecting plain HTTP",    "leave it out"),
    ("pool.service.redirect_hosts", Written,          "redirecting plain HTTP",    "leave it out"),
];

/// A backend given by name: refused after a look at more than one key.
pub(super) const HOST_NAME: Refusal =
    Refusal { what: "a host name as address", instead: "give its IP address" };

/// Keys whose default isn't carried out: what to write, and what happens instead.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("passive", "passive = \"off\"", "a refused connection is seen by the probes only"),
    ("connect_retry", "connect_retry = \"off\"", "a refused connection is seen by its client"),
];

/// Why this value of this key is refused, if it is. The value has passed all other checks.
pub(super) fn refusal(key: &str, value: &DeValue<'_>) -> Option<Fault> {
    let applies = |when: &When| match (when, value) {
        (Written, _) => true,
        (Is(word), DeValue::String(text)) => word == text,
        (Is(_), _) => false,
    };
    let (_, _, what, instead) = REFUSED.iter().find(|(name, when, ..)| *name == key && applies(when))?;
    Some(Refusal { what, instead }.fault())
}

/// One warning for the whole configuration: which defaults of the pools aren't carried out, and what happens instead.
/// `pools` has each pool's place and the keys that it writes.
pub(super) fn warn_of_defaults(pools: &[(Span, Vec<&'static str>)], notes: &Notes<'_>) {
    let silent = |key: &str| pools.iter().find(|(_, written)| !written.contains(&key));
    let missing: Vec<_> =
        DEFAULTS.iter().filter_map(|row| silent(row.0).map(|(span, _)| (*span, row))).collect();
    let Some(first) = missing.iter().map(|(span, _)| *span).min() else { return };
    let defaults: Vec<String> = missing.iter().map(|(_, row)| format!("{} ({})", row.0, row.2)).collect();
    let lines: Vec<&str> = missing.iter().map(|(_, row)| row.1).collect();
    notes.warning(
        first,
        format!(
            "these defaults are not carried out yet, and what happens instead: {}; write {} to accept that",
            defaults.join(", "),
            lines.join(", ")
        ),
    );
}

/// The keys of a pool that [`warn_of_defaults`] asks for.
pub(super) fn keys_with_defaults() -> impl Iterator<Item = &'static str> {
    DEFAULTS.iter().map(|(key, _, _)| *key)
}

/// For the test that each row has a case.
#[cfg(test)]
pub(super) fn refused_keys() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(key, ..)| *key)
}
