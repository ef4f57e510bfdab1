//! What the configuration can say and the data plane can't do yet: refused, never ignored.
//!
//! Such keys are read and checked like all others; then this table is asked. Supporting one means to use its value and
//! to remove its line.

use super::problem::Fault;

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

/// Refused as soon as it is written: the key, what it is, and what to write instead.
const REFUSED: &[(&str, &str, &str)] = &[
    ("http.token_file", "the dashboard", "leave it out"),
    ("pool.service.redirect_http", "redirecting plain HTTP", "leave it out"),
    ("pool.service.redirect_hosts", "redirecting plain HTTP", "leave it out"),
];

/// A backend given by name: refused after a look at more than one key.
pub(super) const HOST_NAME: Refusal =
    Refusal { what: "a host name as address", instead: "give its IP address" };

/// Why this key is refused, if it is. Its value has passed all other checks.
pub(super) fn refusal(key: &str) -> Option<Fault> {
    let (_, what, instead) = REFUSED.iter().find(|(name, ..)| *name == key)?;
    Some(Refusal { what, instead }.fault())
}

/// For the test that each row has a case.
#[cfg(test)]
pub(super) fn refused_keys() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|(key, ..)| *key)
}
