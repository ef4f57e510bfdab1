//! What a daemon that is dead left in its state directory, for verbs that tell of the past.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::{Paths, layout};
use crate::control::client::ClientError;
use crate::exit::{Exit, Failure, say};
use crate::store::{Past, State, read_state};

/// A state directory without a daemon.
pub(super) struct LeftBehind<'a> {
    path: &'a Path,
    directory: File,
}

impl<'a> LeftBehind<'a> {
    /// Instead of an answer; says so on stderr.
    ///
    /// # Errors
    /// `error` itself, when a daemon answers, or left no journal behind.
    pub(super) fn instead_of(error: ClientError, paths: &'a Paths) -> Result<Self, Failure> {
        let ClientError::NoDaemon { socket, .. } = &error else { return Err(error.into()) };
        let path = paths.state_dir.as_path();
        let found = match File::open(path) {
            Ok(directory) => {
                let found = Self { path, directory };
                found.past().exists().map_err(|error| found.failed(&error))?.then_some(found)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::new(
                    Exit::Permission,
                    format_args!("{}: {error}: do this as root", path.display()),
                ));
            }
            Err(_) => None,
        };
        let Some(found) = found else { return Err(error.into()) };
        say(&format!("no daemon answers at {}: this is what {} holds", socket.display(), path.display()));
        Ok(found)
    }

    pub(super) fn past(&self) -> Past<'_> {
        Past::in_directory(self.directory.as_fd())
    }

    /// # Errors
    /// When there is none, or none that can be used.
    pub(super) fn state(&self) -> Result<State, Failure> {
        let path = self.path.join("state.json");
        let wrong = |problem: &dyn std::fmt::Display| {
            let text = format!("{}: {problem}: nothing tells which backend was active", path.display());
            Failure::new(Exit::Failed, layout::printable(&text))
        };
        read_state(&self.directory)
            .map_err(|problem| wrong(&problem))?
            .ok_or_else(|| wrong(&"there is no state"))
    }

    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failed,
        };
        Failure::new(exit, format_args!("the journal in {} can't be read: {error}", self.path.display()))
    }
}
