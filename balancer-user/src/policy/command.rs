//! What the operator may ask of a pool, and the answers.
//!
//! Names come as typed and are looked up by the policy, so that every refusal is said in one voice. Deliberately not
//! here: who may ask (the control socket), and how it is carried out (`failover`).

use std::error::Error;
use std::fmt;

use super::health::Health;
use super::settings::BackendIndex;

/// What the operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make another backend the active one.
    Failover {
        /// The pool's name.
        pool: String,
        /// The backend's name; without: the next eligible one after the active one in role order, wrapping.
        to: Option<String>,
        /// Take one that isn't eligible as well.
        force: bool,
    },
    /// Return to the first eligible backend in order, and let the policy decide again.
    Failback {
        /// The pool's name.
        pool: String,
    },
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
            Self::NotEligible { pool, backend, health, evidence } => {
                write!(f, "backend {backend:?} of pool {pool:?} is {}", health.token())?;
                if let Some(evidence) = evidence {
                    write!(f, " ({evidence})")?;
                }
                write!(f, "; `--force` makes it active all the same")
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
