//! How the program ends: the contract's exit codes, and failures that carry one.
//!
//! Also the only place that writes to stdout: a reader that went away (`balancer status | head -1`) is no failure.

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit codes of the contract; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, or refused with a reason.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is invalid or missing.
    Config = 3,
    /// No daemon answers.
    NoDaemon = 4,
    /// A permission or capability is missing (the control socket's too), or the kernel is too old.
    Permission = 5,
    /// `status --exit-code`: a pool is not on an up backend.
    Degraded = 6,
    /// Another instance or a foreign XDP program is in the way.
    Conflict = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// `message` says what, where, why and what to do.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Tells the user. A closed stderr is no reason to fail differently.
    pub fn report(&self) {
        say(&format!("balancer: {self}"));
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writes prose to stderr; nobody may be reading.
pub fn say(prose: &str) {
    let _closed = writeln!(io::stderr(), "{prose}");
}

/// Writes data to stdout.
///
/// # Errors
/// When it can't be written, as on a full disk; not when nobody wants to read it any more.
pub fn print(data: &str) -> Result<(), Failure> {
    offer(data).map(drop)
}

/// As [`print`], and tells whether somebody still reads.
///
/// # Errors
/// As [`print`].
pub fn offer(data: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failed, format_args!("cannot write to stdout: {error}"))),
    }
}
