//! `POST /v1/reload`: the configuration once more, and what came of it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Read the configuration once more, or keep what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadCommand {
    /// Take it back after this, unless it is confirmed.
    #[serde(default)]
    pub confirm_ms: Option<u64>,
    /// Confirm the last one, and read nothing.
    #[serde(default)]
    pub confirmed: bool,
    /// Answer before it is done. Left out where it isn't wanted, which daemons that don't know it understand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_wait: bool,
}

impl ReloadCommand {
    /// Where it is posted to.
    pub const PATH: &'static str = "/v1/reload";

    /// For how long a confirmation is waited for.
    #[must_use]
    pub fn confirm(&self) -> Option<Duration> {
        self.confirm_ms.map(Duration::from_millis)
    }

    /// As it is typed on the command line.
    #[must_use]
    pub fn typed(&self) -> String {
        let confirm = self.confirm_ms.map(|ms| format!(" --confirm {ms}ms")).unwrap_or_default();
        let confirmed = if self.confirmed { " --confirmed" } else { "" };
        let no_wait = if self.no_wait { " --no-wait" } else { "" };
        format!("reload{confirm}{confirmed}{no_wait}")
    }
}

/// What a reload that was accepted came to.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Reloaded {
    /// As in the status document.
    pub config_generation: u64,
    /// What is another way now, a line each; empty: nothing.
    pub changes: Vec<String>,
    /// What is still to come, or waits for a restart, a sentence each.
    pub pending: Vec<String>,
    /// It is taken back then, unless it is confirmed.
    pub confirm_until: Option<Timestamp>,
    /// What was done, as a sentence.
    pub message: String,
}
