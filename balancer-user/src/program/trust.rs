//! Whether a file is one that only root can have written, and the open file: a program to run, or a secret to read.
//!
//! The daemon runs programs as root, so whoever can write one, or replace a folder on the way to it, is root. Walks down from
//! `/` with one descriptor at a time, so that what was looked at is what is gone through; a symlink anywhere is refused.
//! Unlike a directory of the daemon's own, a sticky folder is refused, too: in it anybody may put a file in the place of
//! one that was removed.
//!
//! Deliberately not here: what the program itself reads, and its interpreter; what a secret says.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use crate::directory::{Remedy, exposure};

/// Its owner may run it.
const OWNER_MAY_RUN: rustix::fs::RawMode = 0o100;

/// Group or others may do anything with it.
const OTHERS_MAY_ANYTHING: rustix::fs::RawMode = 0o077;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// A folder above what is wanted.
    Folder,
    /// A file that is run.
    Program,
    /// A file that is read, and nobody else's to read.
    Secret,
}

/// Why a file is not used.
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

/// The bytes of a secret's file, at most `limit` of them.
///
/// # Errors
/// See [`Untrusted`].
pub fn secret(path: &Path, limit: usize) -> Result<Vec<u8>, Untrusted> {
    let file = walk(path, Wanted::Secret)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| Untrusted::Io { path: path.to_owned(), source })?;
    if bytes.len() > limit {
        return Err(distrust(
            path,
            &format!("is larger than {limit} bytes"),
            Remedy::ByHand("write the right path"),
        ));
    }
    Ok(bytes)
}

/// The open file: good for nothing but to be looked at, and run.
pub(super) fn open(program: &Path) -> Result<OwnedFd, Untrusted> {
    walk(program, Wanted::Program)
}

fn walk(wanted: &Path, what: Wanted) -> Result<OwnedFd, Untrusted> {
    let mut parts = wanted.components().peekable();
    if parts.next() != Some(Component::RootDir) {
        return Err(distrust(
            wanted,
            "is not an absolute path",
            Remedy::ByHand("write the whole path, from `/`"),
        ));
    }
    let mut path = PathBuf::from("/");
    let mut file = step(CWD, OsStr::new("/"), &path, Wanted::Folder)?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(distrust(wanted, "contains `..`", Remedy::ByHand("write the path without it")));
        };
        let here = if parts.peek().is_some() { Wanted::Folder } else { what };
        path.push(name);
        file = step(&file, name, &path, here)?;
        look(&fstat(&file).map_err(|error| failed(&path, error))?, &path, here)?;
    }
    if path == Path::new("/") {
        return Err(distrust(wanted, "is a folder", Remedy::ByHand(what.instead())));
    }
    Ok(file)
}

impl Wanted {
    const fn instead(self) -> &'static str {
        match self {
            Self::Folder => "write another path",
            Self::Program => "write the path of a program",
            Self::Secret => "write the path of a file",
        }
    }
}

fn step(
    folder: impl std::os::fd::AsFd,
    name: &OsStr,
    path: &Path,
    wanted: Wanted,
) -> Result<OwnedFd, Untrusted> {
    let how = match wanted {
        // With O_PATH a symlink itself is opened, and neither a FIFO nor a device is touched.
        Wanted::Folder | Wanted::Program => OFlags::PATH,
        // Read by the descriptor that is looked at; a FIFO that stands there isn't waited for.
        Wanted::Secret => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    };
    openat(folder, name, how | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error
    {
        Errno::NOENT => {
            distrust(path, "does not exist", Remedy::ByHand("install it there, or write another path"))
        }
        // What O_PATH would open is refused to who wants to read it.
        Errno::LOOP => distrust(path, SYMLINK.0, SYMLINK.1),
        Errno::ACCESS => {
            distrust(path, "can't be reached by this user", Remedy::ByHand("run the daemon as root"))
        }
        Errno::NAMETOOLONG => {
            distrust(path, "has a name that is too long", Remedy::ByHand("write another path"))
        }
        error => failed(path, error),
    })
}

const SYMLINK: (&str, Remedy) =
    ("is a symlink", Remedy::ByHand("write the path that it leads to (`readlink -f`)"));

fn look(found: &Stat, path: &Path, wanted: Wanted) -> Result<(), Untrusted> {
    let refuse = |why: &str, remedy| Err(distrust(path, why, remedy));
    let by_hand = |why: &str| Err(distrust(path, why, Remedy::ByHand(wanted.instead())));
    match (FileType::from_raw_mode(found.st_mode), wanted) {
        (FileType::Symlink, _) => return refuse(SYMLINK.0, SYMLINK.1),
        (FileType::Directory, Wanted::Folder) => {}
        (FileType::RegularFile, Wanted::Program | Wanted::Secret) => {}
        (_, Wanted::Folder) => return by_hand("is not a folder"),
        (FileType::Directory, _) => return by_hand("is a folder"),
        (_, _) => return by_hand("is not a regular file"),
    }
    if wanted == Wanted::Secret && found.st_uid == 0 && found.st_mode & OTHERS_MAY_ANYTHING != 0 {
        let why = format!("is open to others than its owner (mode {:04o})", found.st_mode & 0o7777);
        return refuse(&why, Remedy::ByHand("chmod it to 0600"));
    }
    if let Some((why, remedy)) = exposure(found, &[0], 0) {
        return refuse(&why, remedy);
    }
    if wanted == Wanted::Program && found.st_mode & OWNER_MAY_RUN == 0 {
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
