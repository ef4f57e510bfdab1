//! What the operator may ask of a pool, and the answers.
//!
//! Names come as typed and are looked up by the policy, so that every refusal is said in one voice. Deliberately not
//! here: who may ask (the control socket), and how it is carried out (`failover`).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::health::Health;
use super::settings::BackendIndex;
use super::switching::Moved;
use super::view::Admin;

/// What the operator asks of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The pool's name.
    pub pool: String,
    /// What is asked of it.
    pub ask: Ask,
}

/// What the operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Make another backend the active one.
    Failover {
        /// The backend's name; without: the next eligible one after the active one in role order, wrapping.
        to: Option<String>,
        /// Take one that isn't eligible as well; named, it also ends what is held.
        force: bool,
        /// End the flows of the one before.
        reset: bool,
    },
    /// Return to the first eligible backend in order, and let the policy decide again.
    Failback,
    /// Take a backend out of use.
    Withdraw {
        /// Its name.
        backend: String,
        /// What becomes of its flows.
        how: Withdrawal,
        /// Though no other backend is eligible.
        force: bool,
    },
    /// Put a backend back into use.
    PutBack {
        /// Its name.
        backend: String,
    },
    /// Let a change that is held go on.
    Resume {
        /// Without what it was held for; else once more.
        skip: bool,
    },
}

/// What becomes of the flows of a backend that is taken out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// They may end.
    Drain {
        /// Those left after this are cut; the pool's, if not said.
        deadline: Option<Duration>,
    },
    /// They are cut.
    Maint,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is there already.
    AlreadyActive {
        /// The active backend.
        active: BackendIndex,
    },
    /// It is the active one from now on; the decision waits to be polled.
    Moved {
        /// The active backend.
        active: BackendIndex,
        /// The id of the change.
        transition: u64,
    },
    /// Steps are taken first; it becomes the active one when they have succeeded.
    Begun {
        /// The active backend to be.
        to: BackendIndex,
        /// The id of the change.
        transition: u64,
    },
    /// The backend is in or out of use now.
    Set {
        /// The backend.
        backend: BackendIndex,
        /// What it was.
        from: Admin,
        /// What it is.
        to: Admin,
        /// The change of the active backend that it takes, made or under way.
        transition: Option<u64>,
    },
    /// The change goes on.
    Resumed {
        /// The active backend to be.
        to: BackendIndex,
        /// Its id.
        transition: u64,
    },
}

impl Accepted {
    pub(super) const fn of(moved: Moved, to: BackendIndex) -> Self {
        match moved {
            Moved::Not => Self::AlreadyActive { active: to },
            Moved::There { transition } => Self::Moved { active: to, transition },
            Moved::UnderWay { transition } => Self::Begun { to, transition },
        }
    }
}

/// Why a command was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No pool has this name.
    UnknownPool {
        /// As typed.
        pool: String,
    },
    /// No backend of the pool has this name.
    UnknownBackend {
        /// The pool.
        pool: String,
        /// As typed.
        backend: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The configuration leaves it out; not even force takes it.
    Disabled {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
    },
    /// The operator took it out of use.
    NotReady {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// What it is instead.
        admin: Admin,
    },
    /// A change is under way.
    Switching {
        /// The pool.
        pool: String,
        /// The change's id.
        transition: u64,
        /// The active backend to be.
        to: String,
    },
    /// A change is held.
    Held {
        /// The pool.
        pool: String,
        /// The change's id.
        transition: u64,
        /// What for.
        why: String,
    },
    /// Nobody knows who was active.
    Doubtful {
        /// The pool.
        pool: String,
    },
    /// `resume`, and nothing is held.
    NotHeld {
        /// The pool.
        pool: String,
    },
    /// `resume --skip`, and flows are left that must not outlive the change.
    Uncut {
        /// The pool.
        pool: String,
        /// What it is held for.
        why: String,
    },
    /// It is the active one, and no other backend is eligible.
    NoSuccessor {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
    },
    /// `resume --retry`, and the backend to be is down or in probation.
    TargetLost {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// Its health.
        health: Health,
        /// Its last failure.
        evidence: Option<String>,
    },
    /// It is down or in probation.
    NotEligible {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// Its health.
        health: Health,
        /// Its last failure.
        evidence: Option<String>,
    },
    /// `failover` without a name, and no other backend is eligible.
    NoOther {
        /// The pool.
        pool: String,
    },
    /// `failback`, and no backend is eligible.
    NoneEligible {
        /// The pool.
        pool: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPool { pool } => {
                write!(f, "there is no pool {pool:?}; `balancer status` lists the pools")
            }
            Self::UnknownBackend { pool, backend, known } => {
                write!(f, "pool {pool:?} has no backend {backend:?}; it has: {}", known.join(", "))
            }
            Self::Disabled { pool, backend } => write!(
                f,
                "backend {backend:?} of pool {pool:?} is disabled in the configuration; remove `disabled` there and reload"
            ),
            Self::NotReady { pool, backend, admin } => write!(
                f,
                "backend {backend:?} of pool {pool:?} is in {}; `balancer ready {pool} {backend}` puts it back into use",
                admin.token()
            ),
            Self::Switching { pool, transition, to } => write!(
                f,
                "pool {pool:?} is switching to {to:?} (transition {transition}); wait until that is over"
            ),
            Self::Held { pool, transition, why } => write!(
                f,
                "pool {pool:?} is held in transition {transition}: {why}; `balancer resume {pool} --retry` or `--skip` \
                 goes on, `balancer failover {pool} --to BACKEND --force` gives it up for another"
            ),
            Self::Doubtful { pool } => write!(
                f,
                "who was active in pool {pool:?} is not known, and its hooks must not run for the wrong one; \
                 `balancer failover {pool} --to BACKEND --force` says who it shall be"
            ),
            Self::NotHeld { pool } => write!(f, "pool {pool:?} is not held; there is nothing to resume"),
            Self::Uncut { pool, why } => write!(
                f,
                "{why}; that can't be left out: clients would be connected to the old backend and to the new one of pool \
                 {pool:?} at once. `balancer resume {pool} --retry` tries it again, `balancer failover {pool} --to BACKEND \
                 --force` names another or goes back"
            ),
            Self::NoSuccessor { pool, backend } => write!(
                f,
                "{backend:?} is the active backend of pool {pool:?} and no other is eligible; `--force` takes it out all \
                 the same"
            ),
            Self::TargetLost { pool, backend, health, evidence }
            | Self::NotEligible { pool, backend, health, evidence } => {
                write!(f, "backend {backend:?} of pool {pool:?} is {}", health.token())?;
                if let Some(evidence) = evidence {
                    write!(f, " ({evidence})")?;
                }
                match self {
                    Self::TargetLost { .. } => {
                        write!(f, "; `balancer resume {pool} --skip` goes on to it all the same")
                    }
                    _ => write!(f, "; `--force` makes it active all the same"),
                }
            }
            Self::NoOther { pool } => write!(
                f,
                "no other backend of pool {pool:?} is eligible; `--force` takes the next one whatever its health"
            ),
            Self::NoneEligible { pool } => write!(
                f,
                "no backend of pool {pool:?} is eligible; `balancer failover {pool} --to BACKEND --force` names one"
            ),
        }
    }
}

impl Error for Refusal {}
