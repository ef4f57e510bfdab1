//! A pool as it is now, for `status`.
//!
//! The tokens are the contract's. Deliberately not here: numbers of flows and packets, which the policy never sees.

use super::Moment;
use super::decision::ActiveReason;
use super::health::Health;
use super::settings::BackendIndex;

/// What a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolState {
    /// Waiting for the first signals; nothing is active. Never again after the first decision.
    Starting,
    /// New flows go to a backend that isn't known to fail, or to one that the operator forced.
    Serving,
    /// Steps are taken before another backend becomes active; new flows are held.
    Switching,
    /// Such a step failed, or nobody knows who was active: it is up to the operator.
    Held,
    /// The active backend fails; the operator is asked where to go.
    Waiting,
    /// No backend is eligible; new flows still go to the last active one, or are refused.
    AllDown,
}

impl PoolState {
    /// The word that status uses; instead of `starting` it says where the pool is about to go.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Switching => "switching",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::AllDown => "all_down",
        }
    }
}

/// What the operator wants with a backend; kept apart from its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Admin {
    /// In use.
    #[default]
    Ready,
    /// Gets no new flows; those that it has may end.
    Drain,
    /// Gets no flows.
    Maint,
    /// Left out by the configuration.
    Disabled,
}

impl Admin {
    /// The word that status uses.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Disabled => "disabled",
        }
    }
}

/// What the operator's last `failover` still asks of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Nothing: the policy decides.
    #[default]
    Automatic,
    /// No failback by itself, until `failback` or until the active backend fails.
    Stay,
    /// The active backend stays although it wasn't eligible, until it has been up; then as `Stay`.
    Forced,
}

/// One pool as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// What it is doing.
    pub state: PoolState,
    /// The active backend; `None` while new flows are refused.
    pub active: Option<BackendIndex>,
    /// The same, also while they are refused: nobody else has its role before it has been taken from it. `None`: nobody has had
    /// it yet, or nobody can tell who has.
    pub holder: Option<BackendIndex>,
    /// Since when.
    pub since: Moment,
    /// Why.
    pub reason: ActiveReason,
    /// What the operator asked for, to be kept over a restart.
    pub wish: Wish,
    /// Its backends, in list order.
    pub backends: Vec<BackendView>,
    /// The change that is under way.
    pub transition: Option<TransitionView>,
}

/// A change that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionView {
    /// Its id.
    pub id: u64,
    /// The active backend before.
    pub from: Option<BackendIndex>,
    /// The active backend to be, or that is.
    pub to: BackendIndex,
    /// Why.
    pub reason: ActiveReason,
    /// The hook that is due, runs or failed, by its number.
    pub step: Option<usize>,
    /// When it began.
    pub started: Moment,
    /// What it waits for the operator for.
    pub held: Option<String>,
}

/// One backend as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// The worst of its services'.
    pub health: Health,
    /// What the operator wants with it.
    pub admin: Admin,
    /// Failures in the window now: the most that any of its services has.
    pub fails: usize,
    /// `service: failure`, when a failure explains its health.
    pub reason: Option<String>,
    /// Since when its health is what it is.
    pub since: Moment,
}
