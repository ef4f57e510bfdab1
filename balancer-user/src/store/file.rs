//! `state.json` on the disk: written whole or not at all, read with suspicion, set aside when it can't be trusted.
//!
//! A damaged state never stops a start: in the kernel's maps everything may still be as it was, and a gateway without a
//! memory is better than none. Of one that another version has written all is used that this one can read (`parts`); if that is not
//! all, it is kept too. Deliberately not here: when to write (`writer`), and what the document says (`state`).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, linkat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use serde::Deserialize;
use tracing::{error, warn};

use super::parts::Lost;
use super::state::{self, FORMAT, State};
use super::{FILE_MODE, parts};
use crate::directory::LockedDirectory;

pub(super) const NAME: &str = "state.json";
/// One daemon at most has the directory locked, so one name is enough.
const TEMPORARY: &str = "state.json.new";
/// Where those are kept for people to look at of which something is lost, the newest first.
const DAMAGED: [&str; 3] = ["state.json.damaged", "state.json.damaged.1", "state.json.damaged.2"];
/// The largest configuration (256 pools of 16 backends with 16 services) makes about 10 MiB; pools that have left it, host
/// names and a configuration to go back to some 7 more.
const MAX_BYTES: u64 = 24 * 1024 * 1024;

/// Why a state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The kernel refused.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
    /// Something else stands there.
    #[error("it is no regular file")]
    NoFile,
    /// No state is as long.
    #[error("it is longer than any state ({MAX_BYTES} bytes)")]
    TooLong,
    /// No JSON, or not of this shape.
    #[error("it is no state document: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Of another version of balancer.
    #[error("its format is {0:?}, and this version reads {FORMAT:?}: another version of balancer wrote it")]
    Format(String),
    /// More than a configuration can have.
    #[error("it has too many {0}")]
    TooMany(&'static str),
    /// Changed after it was written.
    #[error("its checksum is wrong: it was damaged, or changed by hand")]
    Checksum,
}

/// What a start finds.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// Not all of it may be readable; `lacks_pools`: of some pool it is not known any more how it was.
    State {
        state: Box<State>,
        lacks_pools: bool,
    },
    Damaged,
}

/// What every version has; read before the rest.
#[derive(Deserialize)]
struct FormatOf {
    format: String,
}

/// Reads the state in this directory, if there is one, as far as this version can; changes nothing.
///
/// # Errors
/// See [`Unreadable`].
pub fn read_state(directory: impl AsFd) -> Result<Option<State>, Unreadable> {
    Ok(read(directory)?.map(|(state, _)| state))
}

/// The same, and what is left out.
fn read(directory: impl AsFd) -> Result<Option<(State, Vec<Lost>)>, Unreadable> {
    // Whatever stands there, opening it neither waits nor leads elsewhere.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, NAME, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Unreadable::NoFile),
        Err(error) => return Err(Unreadable::Io(error.into())),
    };
    if FileType::from_raw_mode(fstat(&file).map_err(io::Error::from)?.st_mode) != FileType::RegularFile {
        return Err(Unreadable::NoFile);
    }
    let mut text = Vec::new();
    File::from(file).take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Unreadable::TooLong);
    }
    let FormatOf { format } = serde_json::from_slice(&text)?;
    if format != FORMAT {
        return Err(Unreadable::Format(format.chars().take(FORMAT.len() * 2).collect()));
    }
    let is_whole = state::is_whole(&text);
    let (state, lost) = match serde_json::from_slice::<State>(&text) {
        Ok(state) => (state, Vec::new()),
        // Another version's words.
        Err(_) if is_whole => parts::readable(&text)?,
        Err(error) => return Err(error.into()),
    };
    if let Some(what) = state.excess() {
        return Err(Unreadable::TooMany(what));
    }
    if !is_whole {
        return Err(Unreadable::Checksum);
    }
    Ok(Some((state, lost)))
}

/// Reads the state for a start: one that can't be used is set aside, and told; so is what can't be of one that can.
pub(super) fn take(directory: &LockedDirectory) -> Found {
    let path = directory.path().join(NAME);
    let told = |what: &str, kept: io::Result<()>| match kept {
        Ok(()) => format!("{what} is kept as {} for you to look at", DAMAGED[0]),
        Err(error) => format!("{what} could not be kept as {}: {error}", DAMAGED[0]),
    };
    match read(directory) {
        Ok(None) => Found::Nothing,
        Ok(Some((state, lost))) => {
            let kept =
                lost.first().map(|_| told("the whole file", keep(directory.as_fd()))).unwrap_or_default();
            for lost in &lost {
                warn!(
                    event = "state_of_another_version",
                    path = %path.display(),
                    lost = %lost,
                    "another version of balancer has written that, and this one can't read it: it is forgotten; {kept}",
                );
            }
            let lacks_pools = lost.iter().any(Lost::is_of_pools);
            Found::State { state: Box::new(state), lacks_pools }
        }
        Err(problem) => {
            let kept = told("it", set_aside(directory.as_fd()));
            error!(
                event = "state_damaged",
                path = %path.display(),
                problem = %problem,
                "the remembered state can't be used; {kept}. Where the kernel's maps are still there, nothing changes; \
                 else it is forgotten who was active and what the operator asked for, and the first backend that is up \
                 becomes active: look at `balancer status`, and put right what isn't with `balancer failover`",
            );
            Found::Damaged
        }
    }
}

/// Under the first of the names, and no more under its own.
fn set_aside(directory: BorrowedFd<'_>) -> io::Result<()> {
    make_room(directory)?;
    renameat(directory, NAME, directory, DAMAGED[0])?;
    Ok(())
}

/// Under the first of the names, and under its own until it is replaced: until then it is the only one.
fn keep(directory: BorrowedFd<'_>) -> io::Result<()> {
    let file =
        |name| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
    // A start before this one has kept it, and none has replaced it since.
    if file(DAMAGED[0]).ok() == Some(file(NAME)?) {
        return Ok(());
    }
    make_room(directory)?;
    linkat(directory, NAME, directory, DAMAGED[0], AtFlags::empty())?;
    Ok(())
}

/// What has the names moves on by one, and the last one goes.
fn make_room(directory: BorrowedFd<'_>) -> io::Result<()> {
    for pair in DAMAGED.windows(2).rev() {
        match renameat(directory, pair[0], directory, pair[1]) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Replaces the state: after a crash at any moment there is the old one or the new one.
pub(super) fn write(directory: impl AsFd, state: State) -> io::Result<()> {
    let directory = directory.as_fd();
    let text = state.sealed()?;
    let written = temporary(directory).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| Ok(renameat(directory, TEMPORARY, directory, NAME)?));
    if replaced.is_err() {
        // What was written takes space that the next try needs; there may be nothing.
        let _ = unlinkat(directory, TEMPORARY, AtFlags::empty());
    }
    replaced?;
    Ok(fsync(directory)?)
}

/// A new file, never one that stood there: that is a killed daemon's, half written.
fn temporary(directory: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = || openat(directory, TEMPORARY, flags, FILE_MODE);
    let made = match make() {
        Err(Errno::EXIST) => unlinkat(directory, TEMPORARY, AtFlags::empty()).and_then(|()| make()),
        made => made,
    };
    Ok(made?.into())
}
