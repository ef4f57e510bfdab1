//! A program as a probe: exit code 0 is good, and whatever else it does is the backend's failure.
//!
//! A program that this host can't run (its file is not safe or not there, no descriptor is left) says nothing about a
//! backend, and one that is broken would fail all of them at once: that is a [`LocalFault`](super::LocalFault).
//!
//! Deliberately not here: running it, and what is left of its process group; see [`program`](crate::program).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::program::{self, Call, CommandLine, Ending, Report, Rest};

use super::failure::Failure;
use super::mishap::Mishap;

/// What a backend is to its pool while it is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// New flows go there, or would if it answers well: nobody is the active one yet.
    Active,
    /// The pool is switching to it.
    Candidate,
    /// Any other.
    Standby,
}

impl Role {
    /// As the program is told.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Candidate => "candidate",
            Self::Standby => "standby",
        }
    }
}

/// Runs a program for one backend of a pool.
#[derive(Clone, Debug)]
pub(super) struct Exec {
    run: CommandLine,
    pool: String,
    /// Its name and role.
    backend: (String, Role),
}

impl Exec {
    pub(super) fn new(pool: &str, run: CommandLine) -> Self {
        Self { run, pool: pool.to_owned(), backend: (String::new(), Role::Standby) }
    }

    pub(super) fn for_backend(&self, backend: &str, role: Role) -> Self {
        Self { backend: (backend.to_owned(), role), ..self.clone() }
    }

    pub(super) async fn run(&self, target: SocketAddr, timeout: Duration) -> (Result<(), Mishap>, Duration) {
        let (backend, role) = &self.backend;
        let call = Call {
            command: self.run.clone(),
            variables: vec![
                ("BALANCER_POOL", self.pool.clone()),
                ("BALANCER_BACKEND", backend.clone()),
                ("BALANCER_ADDRESS", target.ip().to_string()),
                ("BALANCER_PORT", target.port().to_string()),
                ("BALANCER_ROLE", role.token().to_owned()),
            ],
            input: Vec::new(),
            timeout,
            rest: Rest::Killed,
        };
        let Report { ending, took, output } = program::run(call).await;
        let said = output.last_line();
        let result = match ending {
            Ending::Exited(0) => Ok(()),
            Ending::Exited(code) => Err(Mishap::Backend(Failure::ExitCode { code, said })),
            Ending::Signalled(signal) => Err(Mishap::Backend(Failure::KilledBySignal { signal, said })),
            Ending::TimedOut => Err(Mishap::Backend(Failure::Timeout { said })),
            Ending::LocalFault(error) => Err(Mishap::Local(error)),
            Ending::NotTrusted(_) | Ending::NotStarted(_) => {
                let why = format!("{} was {ending}", self.run.program.display());
                Err(Mishap::Local(io::Error::other(why)))
            }
        };
        (result, took)
    }
}
