//! A directory that only root, or the daemon's own user, can have put anything into.
//!
//! A socket, a state file or a pin in a place where somebody else may rename or replace things is not ours, whatever
//! its own mode says. So the directory and every one above it must belong to root or to the daemon's user, and must
//! not be writable by others; above it, a sticky directory like `/tmp` will do, because in it nobody can rename
//! what belongs to another.

//!
//! What only one daemon may use is locked as well: the lock is on the directory itself and ends with its holder,
//! however that ends.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, RawMode, Stat, flock, major, minor};

/// Write permission for the group and for others.
const OTHERS_MAY_WRITE: RawMode = 0o022;
/// Only the owner of an entry may rename or remove it.
const STICKY: RawMode = 0o1000;
/// Everybody may look in, only the owner may write.
const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o755);

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It, or one above it, is open to others.
    #[error("{path}: {why}: {remedy}", path = path.display())]
    Unsafe {
        /// The directory that is wrong, which may be one above the one asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        remedy: Remedy,
    },
    /// It can't be made or opened.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process holds its lock.
    #[error("{path} is in use by another balancer{holder}: stop that one, or give this one directories of its own \
             (--state-dir, --pin-dir, --socket)", path = path.display(), holder = in_words(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The holder, where the kernel tells.
        pid: Option<u32>,
    },
}

/// What makes a place safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Root must own it.
    Chown,
    /// Nobody else may write to it.
    Chmod,
    /// A person has to decide.
    ByHand(&'static str),
}

impl Remedy {
    /// What to type.
    #[must_use]
    pub fn command(self, path: &Path) -> Option<String> {
        match self {
            Self::Chown => Some(format!("chown root {}", path.display())),
            Self::Chmod => Some(format!("chmod 0755 {}", path.display())),
            Self::ByHand(_) => None,
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chown => "chown it to root",
            Self::Chmod => "chmod it to 0755",
            Self::ByHand(what) => what,
        })
    }
}

fn in_words(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// A private directory that this process alone uses, for as long as the value lives.
#[derive(Debug)]
pub struct LockedDirectory {
    path: PathBuf,
    directory: PrivateDirectory,
}

impl LockedDirectory {
    /// As [`PrivateDirectory::open`], and locked.
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] when another process holds it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let directory = PrivateDirectory::open(path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), directory }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(DirectoryError::InUse { path: path.to_owned(), pid: lock_holder(&directory) })
            }
            Err(error) => Err(fails("lock", path)(error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for LockedDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Who holds the lock on a directory: the kernel lists locks by device and inode.
fn lock_holder(directory: &PrivateDirectory) -> Option<u32> {
    let found = rustix::fs::fstat(directory).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(found.st_dev), minor(found.st_dev), found.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4242 fd:00:1234 0 EOF
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (kind, pid, file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
        if *kind == "FLOCK" && *file == wanted { pid.parse().ok() } else { None }
    })
}

/// An open directory that passed all checks; the descriptor stays the same directory whatever its path becomes.
#[derive(Debug)]
pub struct PrivateDirectory {
    fd: OwnedFd,
}

impl PrivateDirectory {
    /// Opens `path`, and makes it (mode 0755) when it is missing; the directories above it must exist.
    ///
    /// # Errors
    /// See [`DirectoryError`]. A symlink in place of the directory itself is refused; above it, symlinks
    /// (`/var/run`) are resolved first and what they lead to is checked.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let path = safely_placed(path)?;
        let made = match rustix::fs::mkdir(&path, DIRECTORY_MODE) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(fails("make it", &path)(error)),
        };
        let fd = real(&path, OFlags::empty())?;
        if made {
            // The mode given to mkdir was narrowed by the umask.
            rustix::fs::fchmod(&fd, DIRECTORY_MODE).map_err(fails("set the mode of", &path))?;
        }
        check(&rustix::fs::fstat(&fd).map_err(fails("look at", &path))?, &path, 0)?;
        Ok(Self { fd })
    }

    /// Whether [`PrivateDirectory::open`] would take `path`, and whether it is there; changes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn look(path: &Path) -> Result<Option<Self>, DirectoryError> {
        let path = safely_placed(path)?;
        let fd = match real(&path, OFlags::PATH) {
            Err(DirectoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            found => found?,
        };
        check(&rustix::fs::fstat(&fd).map_err(fails("look at", &path))?, &path, 0)?;
        Ok(Some(Self { fd }))
    }

    /// The process that holds the lock on it, where the kernel tells.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        lock_holder(self)
    }
}

/// The absolute path, if only root or this user can have put anything into the directories above it.
fn safely_placed(path: &Path) -> Result<PathBuf, DirectoryError> {
    let path = std::path::absolute(path).map_err(fails("find", path))?;
    if let Some(parent) = path.parent() {
        let parent = parent.canonicalize().map_err(fails("find", parent))?;
        for ancestor in parent.ancestors() {
            let found = rustix::fs::stat(ancestor).map_err(fails("look at", ancestor))?;
            check(&found, ancestor, STICKY)?;
        }
    }
    Ok(path)
}

/// Opens a directory that isn't a symlink.
fn real(path: &Path, how: OFlags) -> Result<OwnedFd, DirectoryError> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        // The kernel says ELOOP or ENOTDIR for a symlink, depending on what it leads to.
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => DirectoryError::Unsafe {
            path: path.to_owned(),
            why: "is a symlink or no directory".to_owned(),
            remedy: Remedy::ByHand("name a real directory"),
        },
        error => fails("open", path)(error),
    })
}

impl AsFd for PrivateDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `excused_by`: mode bits that make write permission for others harmless.
fn check(found: &Stat, path: &Path, excused_by: RawMode) -> Result<(), DirectoryError> {
    match exposure(found, &[0, rustix::process::geteuid().as_raw()], excused_by) {
        Some((why, remedy)) => Err(DirectoryError::Unsafe { path: path.to_owned(), why, remedy }),
        None => Ok(()),
    }
}

/// How somebody other than `owners` could change what is in a directory or a file, and what to do about it.
/// `excused_by`: mode bits that make write permission for others harmless.
pub(crate) fn exposure(found: &Stat, owners: &[u32], excused_by: RawMode) -> Option<(String, Remedy)> {
    if !owners.contains(&found.st_uid) {
        let why = format!("belongs to uid {}, who could replace what is in it", found.st_uid);
        Some((why, Remedy::Chown))
    } else if found.st_mode & OTHERS_MAY_WRITE != 0 && found.st_mode & excused_by == 0 {
        let mode = found.st_mode & 0o7777;
        Some((format!("others than its owner may write to it (mode {mode:04o})"), Remedy::Chmod))
    } else {
        None
    }
}

fn fails<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { path, action, source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        PrivateDirectory::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_directory_is_made_with_mode_0755() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("balancer");
        PrivateDirectory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        PrivateDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_look_makes_nothing_and_sees_what_opening_would_refuse() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("balancer");
        assert!(PrivateDirectory::look(&path).unwrap().is_none() && !path.exists());
        PrivateDirectory::open(&path).unwrap();
        assert!(PrivateDirectory::look(&path).unwrap().is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        let Err(DirectoryError::Unsafe { remedy, .. }) = PrivateDirectory::look(&path) else {
            panic!("it would be refused")
        };
        assert_eq!(remedy.command(&path), Some(format!("chmod 0755 {}", path.display())));
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o775, 0o757, 0o1777] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refusal = refusal(root.path());
            assert!(refusal.contains(&format!("(mode {mode:04o}): chmod it to 0755")), "{refusal}");
        }
    }

    #[test]
    fn a_directory_below_one_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("balancer");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refusal = refusal(&path);
        assert!(refusal.starts_with(&format!("{}: others", root.path().display())), "{refusal}");
        assert!(!path.exists(), "nothing may be made in an unsafe place");
    }

    #[test]
    fn a_symlink_is_refused_wherever_it_leads() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        for target in ["real", "missing"] {
            let link = root.path().join(format!("to-{target}"));
            symlink(target, &link).unwrap();
            assert!(refusal(&link).contains("is a symlink or no directory"), "{}", refusal(&link));
        }
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("balancer");
        fs::write(&path, "").unwrap();
        assert!(refusal(&path).contains("no directory"), "{}", refusal(&path));
    }

    #[test]
    fn a_locked_directory_names_its_holder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let held = LockedDirectory::open(&path).unwrap();
        let refusal = LockedDirectory::open(&path).unwrap_err().to_string();
        assert!(refusal.contains(&format!("(pid {})", std::process::id())), "{refusal}");
        drop(held);
        LockedDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_missing_parent_is_named() {
        let root = tempfile::tempdir().unwrap();
        let refusal = refusal(&root.path().join("a/b"));
        assert!(refusal.contains(&format!("{}: cannot find", root.path().join("a").display())), "{refusal}");
    }
}
