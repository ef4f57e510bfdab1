//! `balancer.status/1`: pools, backends, who is active and why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Timestamp};

/// The `schema` field of [`Status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum StatusSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.status/1")]
    V1,
}

/// `GET /v1/status`: everything that a person looks at first.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Status {
    /// Name and version of this document.
    pub schema: StatusSchema,
    /// When it was filled in.
    pub as_of: Timestamp,
    /// Who answers; `None` when this was read from what a dead daemon left behind.
    pub daemon: Option<Daemon>,
    /// One for each configured interface, in the configuration's order.
    pub attachments: Vec<Attachment>,
    /// In the configuration's order.
    pub pools: Vec<Pool>,
    /// Packets dropped, by reason: every reason, zero included.
    pub drops: BTreeMap<String, u64>,
    /// What of the daemon itself does not work as it should, a sentence each.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// What of the configuration is still to come, a sentence each.
    #[serde(default)]
    pub pending: Vec<String>,
}

impl Document for Status {
    const SCHEMA: &'static str = "balancer.status/1";
    const PATH: &'static str = "/v1/status";
}

/// The process that answers.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Daemon {
    /// Its process id, in its own PID namespace.
    pub pid: u32,
    /// Its version, as in `balancer --version`.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// 1 at the start, one more for each accepted reload.
    pub config_generation: u64,
}

/// The XDP program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// How it is attached; `None` when it isn't.
    pub mode: Option<XdpMode>,
    /// The kernel's id of the program (`bpftool prog show id`).
    pub program_id: Option<u32>,
    /// The kernel's id of the link (`bpftool link show id`).
    pub link_id: Option<u32>,
    /// Why it isn't attached.
    pub error: Option<String>,
}

/// What fails over as one.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// Where new flows go; the old one while switching; `None` only when all are down and clients are rejected.
    pub active: Option<String>,
    /// What the pool is doing.
    pub state: PoolState,
    /// When the active backend became active.
    pub since: Timestamp,
    /// Why it did.
    pub reason: PoolReason,
    /// Whether it goes back by itself.
    pub failback: FailbackPolicy,
    /// In the configuration's order.
    pub services: Vec<Service>,
    /// In order: those without `backup` first.
    pub backends: Vec<Backend>,
    /// The change that is under way.
    pub transition: Option<Transition>,
    /// The last change because of a failure that this daemon has seen.
    #[serde(default)]
    pub last_failover: Option<LastFailover>,
}

/// A listening address of a pool.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// The virtual address and port that clients connect to.
    pub listen: SocketAddr,
    /// The port on the backends.
    pub backend_port: u16,
    /// Handshakes that were completed.
    pub new_flows: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Backend {
    /// Its name in the configuration.
    pub name: String,
    /// The IP address in use.
    pub address: String,
    /// The host name that leads there; not there if it is given by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether it stands behind those without this flag.
    pub backup: bool,
    /// What the signals say.
    pub health: Health,
    /// What the operator wants.
    pub admin: Admin,
    /// Failures within `fail_timeout` now.
    pub fails: u32,
    /// Why it has the health that it has; `None` when nothing is wrong.
    pub reason: Option<String>,
    /// When its health last changed.
    pub since: Timestamp,
    /// Established flows that have not closed.
    pub flows: u64,
    /// The latest probe's outcome; `None` before the first.
    pub last_probe: Option<LastProbe>,
}

/// The outcome of one probe.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct LastProbe {
    /// The service that was probed.
    pub service: String,
    /// Whether it was good.
    pub ok: bool,
    /// What was wrong.
    pub reason: Option<String>,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// When the backend's certificate runs out; `None` where the probe saw none.
    pub certificate_expires: Option<Timestamp>,
}

/// One change of the active backend that is not over yet.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Transition {
    /// The same for all hooks of this change, and after a restart in its middle.
    pub id: u64,
    /// The backend that is left.
    pub from: Option<String>,
    /// The backend that becomes active.
    pub to: String,
    /// Why.
    pub reason: PoolReason,
    /// Which hook is running or failed, counted from 0.
    pub step: Option<u32>,
    /// That hook's name.
    pub hook: Option<String>,
    /// When the change began.
    pub started: Timestamp,
}

/// A change of the active backend because of a failure, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct LastFailover {
    /// The change's own.
    pub id: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// The backend that failed.
    pub from: String,
    /// The backend that became active.
    pub to: String,
    /// From the last good answer of the one that failed, to a probe or a client, to the decision, in milliseconds; `None`:
    /// it had never given one.
    pub detection_ms: Option<u64>,
    /// From the decision to the first answer of the new one to a client, in milliseconds; `None` before that.
    pub recovery_ms: Option<u64>,
}

/// An enum whose JSON word is also what people read.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )+};
}

words! {
    /// How XDP runs on an interface.
    XdpMode {
        /// In the driver.
        Native,
        /// In the kernel's stack, after the driver: slower.
        Generic,
    }
    /// What a pool is doing.
    PoolState {
        /// New flows go to the active backend.
        Serving,
        /// A `before` hook runs.
        Switching,
        /// A hook failed: waiting for the operator's `resume`.
        Held,
        /// `failover = "manual"`: the operator is asked.
        Waiting,
        /// No backend is eligible.
        AllDown,
    }
    /// Why a backend became active.
    PoolReason {
        /// The first decision, without any history.
        Initial,
        /// The one before went down.
        BackendDown,
        /// `balancer failover`.
        Operator,
        /// The return to the first in order, by itself or by `balancer failback`.
        Failback,
        /// The one before was drained.
        Drain,
        /// The one before was taken into maintenance.
        Maint,
        /// The configuration changed.
        Config,
        /// It was active before the daemon started.
        Restored,
    }
    /// Whether a pool returns to the first eligible backend by itself.
    FailbackPolicy {
        /// Only when told to.
        Manual,
        /// By itself.
        Auto,
    }
    /// What the signals say about a backend.
    Health {
        /// Good.
        Up,
        /// Failed too often; not counted until `fail_timeout` is over.
        Down,
        /// `fail_timeout` is over; the next signals decide.
        Probation,
        /// No signal yet.
        Unknown,
    }
    /// What the operator wants of a backend.
    Admin {
        /// Takes part.
        Ready,
        /// No new flows; old ones finish.
        Drain,
        /// No flows.
        Maint,
        /// Out by configuration.
        Disabled,
    }
}
