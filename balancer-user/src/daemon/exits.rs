//! Errors of other rooms that end the daemon, with the exit codes of the contract.

use std::fmt::Display;
use std::io;

use crate::control::socket::SocketError;
use crate::dataplane::{DataplaneError, Kind};
use crate::directory::DirectoryError;
use crate::exit::{Exit, Failure};

/// One that has no exit code of its own.
pub(super) fn failed(error: impl Display) -> Failure {
    Failure::new(Exit::Failed, error)
}

impl From<DataplaneError> for Failure {
    fn from(error: DataplaneError) -> Self {
        let exit = match error.kind() {
            Kind::Permission => Exit::Permission,
            Kind::Conflict => Exit::Conflict,
            Kind::Configuration => Exit::Config,
            Kind::Failed => Exit::Failed,
        };
        match error {
            DataplaneError::Directory(error) => error.into(),
            error => Self::new(exit, error),
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        let exit = match &error {
            DirectoryError::InUse { .. } => Exit::Conflict,
            DirectoryError::Unsafe { .. } => Exit::Permission,
            DirectoryError::Io { source, .. } => exit_of(source),
        };
        Self::new(exit, error)
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let exit = match error {
            SocketError::Directory(error) => return error.into(),
            SocketError::InUse { .. } | SocketError::Foreign { .. } => Exit::Conflict,
            SocketError::Path { .. } => Exit::Usage,
            SocketError::Io { ref source, .. } => exit_of(source),
        };
        Self::new(exit, error)
    }
}

fn exit_of(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::Failed,
    }
}
