//! Commands and what they come to. A key that is not known is refused, so that a misspelt `force` is never ignored.

use serde::{Deserialize, Serialize};

/// What the operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a backend active.
    Failover(FailoverCommand),
    /// Return to the first eligible backend.
    Failback(FailbackCommand),
}

/// `POST /v1/failover`: make a backend active now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverCommand {
    /// The pool's name.
    pub pool: String,
    /// The backend's name; without it, the next eligible one after the active one.
    #[serde(default)]
    pub to: Option<String>,
    /// Go to it although it isn't eligible.
    #[serde(default)]
    pub force: bool,
}

impl FailoverCommand {
    /// Where it is posted to.
    pub const PATH: &'static str = "/v1/failover";
}

/// `POST /v1/failback`: return to the first eligible backend in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailbackCommand {
    /// The pool's name.
    pub pool: String,
}

impl FailbackCommand {
    /// Where it is posted to.
    pub const PATH: &'static str = "/v1/failback";
}

/// What a command that was carried out came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the active backend is another one now.
    pub changed: bool,
    /// The active backend now.
    pub active: Option<String>,
    /// The same as a sentence.
    pub message: String,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, why, and what to do.
    pub error: String,
}
