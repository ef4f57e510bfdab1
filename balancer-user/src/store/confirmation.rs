//! What is remembered of a reload that waits for its confirmation, or that was taken back while the file still holds it.
//!
//! Which of the two it is, is said, and doesn't follow from the time that is left: that may run out while there is no daemon, and
//! then nothing was taken back yet. Deliberately not here: what comes of it (`daemon::choice`, `daemon::confirmation`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reload that is taken back unless somebody confirms it, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// How much is left until then.
    pub ends_in_ms: u64,
    /// The SHA-256, in hex, of the configuration that waits, or was taken back.
    pub of: String,
    /// The configuration before it.
    pub before: String,
    /// It was taken back, and that was told; not written as long as it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<Why>,
}

/// Why a reload was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No start could be made with it: what was wrong, in a line.
    NoStart(String),
    /// The time for its confirmation was over.
    Late,
}

/// To be said of the reload.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStart(problem) => {
                write!(f, "was not confirmed, and no start could be made with what it brought ({problem})")
            }
            Self::Late => f.write_str("was not confirmed in time"),
        }
    }
}
