//! Whether a program's file is one that only root can have written, and the open file to run.
//!
//! The daemon runs it as root, so whoever can write it, or replace a folder on the way to it, is root. Walks down from
//! `/` with one descriptor at a time, so that what was looked at is what is gone through; a symlink anywhere is refused.
//! Unlike a directory of the daemon's own, a sticky folder is refused, too: in it anybody may put a file in the place of
//! one that was removed.
//!
//! Deliberately not here: what the program itself reads, and its interpreter.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use crate::directory::{Remedy, exposure};

/// Its owner may run it.
const OWNER_MAY_RUN: rustix::fs::RawMode = 0o100;

/// Why a program's file is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {why}: {remedy}", path = path.display())]
pub struct Distrust {
    /// The file that is wrong, or the folder above it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What to do about it.
    pub remedy: Remedy,
}

/// What stopped the look at a file.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The file's own fault.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// This process could not look.
    #[error("{path}: cannot open it: {source}", path = path.display())]
    Io {
        /// How far it came.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Looks at a program's file, as is done before each run.
///
/// # Errors
/// See [`Untrusted`].
pub fn trusted(program: &Path) -> Result<(), Untrusted> {
    open(program).map(drop)
}

/// The open file: good for nothing but to be looked at, and run.
pub(super) fn open(program: &Path) -> Result<OwnedFd, Untrusted> {
    let mut parts = program.components().peekable();
    if parts.next() != Some(Component::RootDir) {
        return Err(distrust(
            program,
            "is not an absolute path",
            Remedy::ByHand("write the whole path, from `/`"),
        ));
    }
    let mut path = PathBuf::from("/");
    let mut file = step(CWD, OsStr::new("/"), &path)?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(distrust(program, "contains `..`", Remedy::ByHand("write the path without it")));
        };
        path.push(name);
        file = step(&file, name, &path)?;
        look(&fstat(&file).map_err(|error| failed(&path, error))?, &path, parts.peek().is_some())?;
    }
    if path == Path::new("/") {
        return Err(distrust(program, "is a folder", Remedy::ByHand("write the path of a program")));
    }
    Ok(file)
}

fn step(folder: impl std::os::fd::AsFd, name: &OsStr, path: &Path) -> Result<OwnedFd, Untrusted> {
    // With O_PATH a symlink itself is opened, and neither a FIFO nor a device is touched.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => {
            distrust(path, "does not exist", Remedy::ByHand("install it there, or write another path"))
        }
        Errno::ACCESS => {
            distrust(path, "can't be reached by this user", Remedy::ByHand("run the daemon as root"))
        }
        Errno::NAMETOOLONG => {
            distrust(path, "has a name that is too long", Remedy::ByHand("write another path"))
        }
        error => failed(path, error),
    })
}

fn look(found: &Stat, path: &Path, is_above: bool) -> Result<(), Untrusted> {
    let refuse = |why: &str, remedy| Err(distrust(path, why, remedy));
    let by_hand = |why: &str, what| Err(distrust(path, why, Remedy::ByHand(what)));
    match (FileType::from_raw_mode(found.st_mode), is_above) {
        (FileType::Symlink, _) => {
            return by_hand("is a symlink", "write the path that it leads to (`readlink -f`)");
        }
        (FileType::Directory, true) | (FileType::RegularFile, false) => {}
        (_, true) => return by_hand("is not a folder", "write another path"),
        (FileType::Directory, false) => return by_hand("is a folder", "write the path of a program"),
        (_, false) => return by_hand("is not a regular file", "write the path of a program"),
    }
    if let Some((why, remedy)) = exposure(found, &[0], 0) {
        return refuse(&why, remedy);
    }
    if !is_above && found.st_mode & OWNER_MAY_RUN == 0 {
        return refuse("is not executable", Remedy::Chmod);
    }
    Ok(())
}

fn distrust(path: &Path, why: &str, remedy: Remedy) -> Untrusted {
    Distrust { path: path.to_owned(), why: why.to_owned(), remedy }.into()
}

fn failed(path: &Path, error: Errno) -> Untrusted {
    Untrusted::Io { path: path.to_owned(), source: error.into() }
}
