//! `balancer.check/1`: whether a configuration is right, and all that is wrong with it, each with its place. Filled in by
//! `balancer check` itself, not by the daemon.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Severity, Timestamp};

/// The `schema` field of [`Checked`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub enum CheckedSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.check/1")]
    V1,
}

/// What a configuration is like.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Checked {
    /// Name and version of this document.
    pub schema: CheckedSchema,
    /// When it was looked at.
    pub as_of: Timestamp,
    /// `run` would take it: there is no error.
    pub valid: bool,
    /// In the order of the text; with errors there are no warnings.
    pub findings: Vec<Remark>,
    /// Errors that are not among them, as there are too many.
    pub more: u64,
    /// In the order of the text; none with errors.
    pub pools: Vec<CheckedPool>,
}

/// Something that is wrong, or may be.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Remark {
    /// As it was named; `-` is stdin.
    pub file: String,
    /// From 1; null when the file can't be read at all, or this is not about a line of it.
    pub line: Option<u64>,
    /// From 1, in characters; null where there is no line.
    pub column: Option<u64>,
    /// Whether it is refused for this: `error`, or else `warning`.
    pub severity: Severity,
    /// The key with its tables, as in `pool.service.listen`; null when it is about none alone.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write or do instead; null where the message says it.
    pub help: Option<String>,
}

/// A pool of a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct CheckedPool {
    /// Its name.
    pub name: String,
    /// How many services it has.
    pub services: u64,
    /// How many backends it has.
    pub backends: u64,
    /// Ports to send from that are free for it. With `dnat` only flows that would be the same to a backend need one.
    pub ports: u64,
    /// Addresses to send from; null with `dnat`, where these are the clients'.
    pub source_addresses: Option<u64>,
}
