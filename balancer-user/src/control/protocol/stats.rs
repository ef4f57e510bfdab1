//! `balancer.stats/1`: what was counted. Counters grow for as long as the pinned maps live, over daemon restarts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Timestamp};

/// The `schema` field of [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum StatsSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.stats/1")]
    V1,
}

/// `GET /v1/stats`: what was counted.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Stats {
    /// Name and version of this document.
    pub schema: StatsSchema,
    /// When it was filled in.
    pub as_of: Timestamp,
    /// Of all pools, in the configuration's order.
    pub services: Vec<ServiceStats>,
    /// Of all pools, in order.
    pub backends: Vec<BackendStats>,
    /// Packets dropped, by reason: every reason, zero included.
    pub drops: BTreeMap<String, u64>,
    /// Packets answered on purpose (RST, ICMP), by reason: every reason, zero included.
    pub answers: BTreeMap<String, u64>,
    /// Packets that were left to the kernel and are worth a number, by reason: every reason, zero included.
    pub passed: BTreeMap<String, u64>,
}

impl Document for Stats {
    const SCHEMA: &'static str = "balancer.stats/1";
    const PATH: &'static str = "/v1/stats";
}

/// One service's counters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub service: String,
    /// Handshakes that were completed.
    pub new_flows: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// One backend's counters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct BackendStats {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Handshakes that were completed with it.
    pub new_flows: u64,
    /// Established flows that have not closed.
    pub flows: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// SYNs that it refused and that were sent on to another backend.
    pub retried_refused: u64,
    /// SYNs that it left unanswered and that were sent on to another backend.
    pub retried_unanswered: u64,
    /// Flows that it took over after another backend had refused them or left them unanswered.
    pub rescued: u64,
    /// RSTs sent to cut its flows.
    pub resets_sent: u64,
    /// Failed connection attempts that the daemon was not told of, as too many waited for it.
    #[serde(default)]
    pub failures_lost: u64,
}
