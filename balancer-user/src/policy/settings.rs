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
    /// Whether it leaves a backend that fails by itself.
    pub failover: Failover,
    /// Whether it returns by itself.
    pub failback: Failback,
    /// What becomes of new flows while no backend is eligible.
    pub when_all_down: WhenAllDown,
    /// What becomes of the flows of a backend that failed, once the pool has moved away.
    pub on_backend_down: OnBackendDown,
    /// What a client's connection attempt that a backend did not take says about that backend.
    pub passive: Passive,
    /// With [`Passive::Count`] such attempts are one failure of a backend within this at most.
    pub connect_timeout: Duration,
    /// How long a `cold` backend may take to come up.
    pub start_timeout: Duration,
    /// How long a drained backend's flows may go on, if the operator doesn't say.
    pub drain_deadline: Duration,
    /// Steps around a change of the active backend, in their order.
    pub hooks: Vec<HookSettings>,
    /// Its services. A backend is as well as the worst of them says.
    pub services: Vec<ServiceSettings>,
    /// Its backends, in list order.
    pub backends: Vec<BackendSettings>,
}

impl PoolSettings {
    /// Whether a service that isn't probed is tried by live connections when its time down is over: only where it matters
    /// to a pool that returns by itself, where they also tell that it fails, and where nobody but the active backend's
    /// place is taken by hooks.
    pub(super) fn tries_live(&self) -> bool {
        let waits = self.hooks.iter().any(|hook| hook.when == HookWhen::Before);
        matches!(self.failback, Failback::Auto { .. }) && self.passive == Passive::Count && !waits
    }
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

/// Whether a pool leaves a backend that fails by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// To the first eligible one.
    Auto,
    /// It asks the operator, and stays.
    Manual,
}

/// What becomes of new flows while no backend is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// They go on to the last active one.
    Last,
    /// They are refused.
    Reject,
}

/// What becomes of the flows of a backend that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBackendDown {
    /// Both sides are told that they are over.
    Reset,
    /// They are left alone.
    Keep,
}

/// What clients' own connection attempts say about a backend that did not take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passive {
    /// That it is worth asking at once.
    Probe,
    /// That it failed, as a probe would.
    Count,
    /// Nothing.
    Off,
}

/// One step around a change of the active backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// Its name, which events use.
    pub name: String,
    /// When it runs.
    pub when: HookWhen,
    /// What its failure means.
    pub on_error: OnError,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookWhen {
    /// Before anything new reaches any backend.
    Before,
    /// Once the change is made.
    After,
}

/// What a hook's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnError {
    /// Stop there and wait for the operator.
    Hold,
    /// Go on.
    Continue,
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
    /// How long relapses may keep it down; as long as `fail_timeout`: no longer than that.
    pub fail_timeout_max: Duration,
    /// Comes after all that aren't, whatever the list order.
    pub backup: bool,
    /// A standby that doesn't run until the hooks have started it: not probed while it is one.
    pub cold: bool,
    /// nginx's `down`: never probed, never active.
    pub disabled: bool,
}
