//! What the configuration can say and the data plane can't do yet: refused, never ignored.
//!
//! Such keys are read and checked like all others; then this table is asked. Supporting one means to use its value and
//! to remove its line.

use super::problem::Fault;

/// Refused as soon as it is written: the key, what it is, and what to write instead.
const REFUSED: &[(&str, &str, &str)] = &[
    ("pool.service.redirect_http", "redirecting plain HTTP", "leave it out"),
    ("pool.service.redirect_hosts", "redirecting plain HTTP", "leave it out"),
];

/// Why this key is refused, if it is. Its value has passed all other checks.
pub(super) fn refusal(key: &str) -> Option<Fault> {
    let (_, what, instead) = REFUSED.iter().find(|(name, ..)| *name == key)?;
    Some(Fault::new(format!("{what} is not supported yet"), *instead))
}

/// For the test that each row has a case.
#[cfg(test)]
pub(super) fn refused_keys() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(key, ..)| *key)
}
