//! Programs of the operator's: an exec probe, a hook, the notify command. Runs one once and says what came of it.
//!
//! What holds for each of them:
//! - Its file is one that only root can have written ([`trust`]); it is checked again on the opened file before each run, and
//!   that open file is what runs.
//! - It gets a fixed environment, its input on stdin, `/` as its folder, a process group of its own, and no descriptor
//!   beyond 0 to 2.
//! - It has a deadline. Then its group gets TERM, and KILL a little later ([`keeper`]).
//! - Its output is read to the end, whatever it is; 64 KiB of it are kept ([`output`]).
//! - The result is the program's own: children that hold its pipes don't delay it.
//!
//! None of this blocks the caller's thread: what may, runs on a thread for it. Deliberately not here: which program runs
//! when, how often, and what its result means.

mod deputy;
mod group;
mod keeper;
mod output;
mod start;
mod trust;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

pub use self::output::Output;
pub use self::trust::{Distrust, Untrusted, secret, trusted};

/// Programs that run, or that can't be ended, at once. Beside the 64 probes in flight and as many that are being ended,
/// each of 256 pools may run a hook; twice that is a machine on which programs don't end any more.
pub const AT_ONCE: usize = 512;

/// Held by each program until its group is over.
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// A program and its arguments, as the configuration names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The absolute path of its file.
    pub program: PathBuf,
    /// What stands behind it; no shell ever reads them.
    pub arguments: Vec<String>,
}

/// One run of a program.
#[derive(Clone, Debug)]
pub struct Call {
    /// What to run.
    pub command: CommandLine,
    /// Its environment, beside a fixed `PATH`.
    pub variables: Vec<(&'static str, String)>,
    /// What it reads from stdin.
    pub input: Vec<u8>,
    /// From the call until it must have ended.
    pub timeout: Duration,
    /// What becomes of its process group.
    pub rest: Rest,
}

/// What becomes of a program's process group when the program has ended, or when nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is killed at once, with the program if that still runs.
    Killed,
    /// It is left alone until the deadline; without a daemon there is none.
    LeftToDeadline,
}

/// What came of one run.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// From the call until then.
    pub took: Duration,
    /// What it said until then.
    pub output: Output,
}

/// How a run ended: one variant for each cause.
#[derive(Debug)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, which was not sent from here.
    Signalled(i32),
    /// It hadn't ended at its deadline.
    TimedOut,
    /// It never ran: somebody else may have written its file, or it isn't there.
    NotTrusted(Distrust),
    /// It never ran: the kernel refused its file (no interpreter, no executable, a mount that forbids it).
    NotStarted(io::Error),
    /// This machine lacked what it takes to run any program (descriptors, memory, processes).
    LocalFault(io::Error),
}

impl Ending {
    /// Whether the program can't have done anything.
    #[must_use]
    pub const fn never_ran(&self) -> bool {
        matches!(self, Self::NotTrusted(_) | Self::NotStarted(_))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("not done in time, and ended"),
            Self::NotTrusted(distrust) => write!(f, "not run: {distrust}"),
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
            Self::LocalFault(error) => write!(f, "this host could not run it: {error}"),
        }
    }
}

impl Report {
    fn unheard(ending: Ending, took: Duration) -> Self {
        Self { ending, took, output: Output::default() }
    }

    /// Exit code 0.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self.ending, Ending::Exited(0))
    }

    /// One short line: how it ended, and the last line that it said.
    #[must_use]
    pub fn evidence(&self) -> String {
        match self.output.last_line() {
            Some(line) => format!("{}: {line}", self.ending),
            None => self.ending.to_string(),
        }
    }
}

/// Runs a program once. Needs a tokio runtime with time and I/O.
///
/// With [`Rest::Killed`] the report comes at the deadline at the latest, and dropping the future ends the group. With
/// [`Rest::LeftToDeadline`] a program that hasn't ended at the deadline is ended first, which takes some seconds more;
/// dropping the future changes nothing, and neither does the end of this process.
pub async fn run(call: Call) -> Report {
    let Ok(place) = PLACES.try_acquire() else {
        let fault = format!("{AT_ONCE} programs run already, or can't be ended");
        return Report::unheard(Ending::LocalFault(io::Error::other(fault)), Duration::ZERO);
    };
    let (asker, answer) = oneshot::channel();
    tokio::spawn(async move {
        keeper::keep(call, asker).await;
        drop(place);
    });
    answer.await.unwrap_or_else(|_| {
        let fault = io::Error::other("the daemon ends");
        Report::unheard(Ending::LocalFault(fault), Duration::ZERO)
    })
}

/// Closes what this process was handed beyond stdin, stdout and stderr, so that no program gets it either (all that is
/// opened later closes itself). To be called first of all: everything above 2 is taken for handed.
pub fn close_inherited_descriptors() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // All names first: the listing has a descriptor of its own, which is closed by then.
    let handed: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for number in handed {
        let _ = nix::unistd::close(number);
    }
}
