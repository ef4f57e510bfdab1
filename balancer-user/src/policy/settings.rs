//! What the policy is told about the pools: the part of the configuration that decides who gets the new flows.
//!
//! The daemon makes these from the validated configuration, in its order; from then on a pool, a backend or a service
//! is named by its position. Deliberately not here: addresses, ports, certificates. The policy never needs them.

use std::time::Duration;

/// A pool's position in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(pub usize);

/// A backend's position among its pool's backends, as listed (not in role order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub usize);

/// A service's position among its pool's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceIndex(pub usize);

/// One pool: what fails over as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name, which commands use.
    pub name: String,
    /// Whether it returns by itself.
    pub failback: Failback,
    /// Its services. A backend is as well as the worst of them says.
    pub services: Vec<ServiceSettings>,
    /// Its backends, in list order.
    pub backends: Vec<BackendSettings>,
}

/// Whether a pool returns by itself to the first eligible backend in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// It stays where it is until the operator says otherwise.
    Manual,
    /// It returns once that backend has been up without interruption for `delay`.
    Auto {
        /// Counted from when the backend is up.
        delay: Duration,
    },
}

/// One service of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Its name, which evidence uses.
    pub name: String,
    /// How often it is probed; `None` for `kind = "none"`: never.
    pub probe: Option<ProbeSchedule>,
}

/// How often one service is probed on each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSchedule {
    /// From the start of one probe to the start of the next; never later.
    pub interval: Duration,
    /// The same while suspect or in probation.
    pub fast_interval: Duration,
    /// When the prober gives up and reports a failure.
    pub timeout: Duration,
    /// Good signals in probation before the backend is up again; 0 means 1.
    pub rise: u32,
}

/// One backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Its name, which commands use.
    pub name: String,
    /// Failures within `fail_timeout` that make it down; 0: never.
    pub max_fails: u32,
    /// The window in which failures count, and how long it then stays down.
    pub fail_timeout: Duration,
    /// Comes after all that aren't, whatever the list order.
    pub backup: bool,
    /// nginx's `down`: never probed, never active.
    pub disabled: bool,
}
