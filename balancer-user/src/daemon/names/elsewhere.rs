//! A backend whose name leads to another address than the one in use, and when it goes there.
//!
//! One answer may be wrong, so it goes when two in a row lead to the same other address. A name of which each answer has one of
//! many addresses may never say the same twice: of that the own address is taken for gone when some answers in a row were
//! without it, and it goes to the last one. Pure, but for the log.

use std::net::IpAddr;

use tracing::{info, warn};

/// So many answers in a row without the address in use, each with another one: it is gone. Four come within two minutes, and a
/// name that has up to four addresses in turn has shown it by then if it still has it.
const GONE: u32 = 4;

/// What answers in a row have said of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// Where it is.
    at: IpAddr,
    /// Where the last of them leads.
    to: IpAddr,
    /// Whether the one before led there, too.
    is_said_again: bool,
    /// How many there were, none of them with the address where it is.
    answers: u32,
}

impl Elsewhere {
    /// One more answer leads `to` somewhere else than where it is `at`. `before`: what those before it have said.
    pub(super) fn seen(before: Option<&Self>, at: IpAddr, to: IpAddr) -> Self {
        // What was said of where it was before says nothing of where it is.
        let before = before.filter(|before| before.at == at);
        Self {
            at,
            to,
            is_said_again: before.is_some_and(|before| before.to == to),
            answers: before.map_or(0, |before| before.answers).saturating_add(1),
        }
    }

    /// Whether it goes there.
    pub(super) const fn is_believed(&self) -> bool {
        self.is_said_again || self.answers >= GONE
    }

    /// For the log.
    pub(super) fn tell(&self, pool: &str, backend: &str) {
        let Self { at, to, is_said_again, answers } = self;
        if *is_said_again {
            // What comes of it is told.
        } else if *answers >= GONE {
            warn!(
                event = "address", pool, backend, from = %at, %to, answers,
                "its name leads to another address each time, and so many answers in a row were without its own: that is gone, \
                 and it goes to the last one"
            );
        } else if *answers > 1 {
            info!(
                event = "address", pool, backend, at = %at, %to, answers,
                "its name leads to another address each time: it stays until two answers in a row lead to the same one, or \
                 {GONE} are without its own"
            );
        } else {
            info!(event = "address", pool, backend, %to, "its name leads there now: it goes there if the next answer says so, too");
        }
    }
}
