//! The control socket's place in the file system: made safely, taken over only from the dead, removed by its owner.
//!
//! What is deliberately not here: a lock. Two daemons that start at the same moment with one socket path but
//! different state directories could both find a stale socket and the later one wins; with one state directory the
//! lock on that, taken before, keeps them apart.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::directory::{DirectoryError, PrivateDirectory};

/// Its members may read, if the group exists.
pub(crate) const READERS: &str = "balancer";
/// Owner and group may connect; the peer's credentials then decide what it may do.
const MODE: Mode = Mode::from_bits_retain(0o660);
/// Nobody but the owner, for the moment in which the group isn't set yet.
const MODE_AT_FIRST: Mode = Mode::from_bits_retain(0o600);
/// Clients that may wait to be accepted: room for a thousand idle ones at once.
const BACKLOG: i32 = 1024;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A process answers on it (exit code 7).
    #[error(
        "{path}: a daemon is listening there: stop it first, or give this one its own --socket, --state-dir and \
         --pin-dir", path = path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that isn't a socket stands there (exit code 7).
    #[error("{path}: there is a {kind}, which is not replaced: remove it or name another --socket", path = path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Its directory can't be used (exit code 5).
    #[error("the control socket's directory: {0}")]
    Directory(#[from] DirectoryError),
    /// The path can't be a socket's at all (exit code 2).
    #[error("{path}: {why}: name another --socket", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel refused (exit code 5 when the source says so, else 1).
    #[error("{path}: cannot {action} the control socket: {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The socket file that this process made. It stays when this is dropped, as it does when the process is killed:
/// the next daemon replaces it.
#[derive(Debug)]
pub struct ControlSocket {
    directory: PrivateDirectory,
    name: OsString,
    made: Identity,
}

/// What tells this file from a later one of the same name; inode numbers alone are used again.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl ControlSocket {
    /// Listens at `path`; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketError`]; nothing was changed then, apart from a directory that may have been made.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let bad_path = |why| SocketError::Path { path: path.to_owned(), why };
        let name = path.file_name().ok_or_else(|| bad_path("this names no file"))?.to_owned();
        let address = SocketAddrUnix::new(path)
            .map_err(|_| bad_path("a unix socket's path must be shorter than 108 bytes"))?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = PrivateDirectory::open(parent)?;
        clear_the_way(&directory, &name, &address, path)?;

        let socket = listen(&directory, &name, &address, path)?;
        let found = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fails("look at", path))?;
        let made = Identity::of(&found);
        let listener = UnixListener::from_std(socket.into()).map_err(fails("listen on", path))?;
        Ok((Self { directory, name, made }, listener))
    }

    /// Removes the file if it is still the one that was made: after a takeover it is another daemon's.
    ///
    /// # Errors
    /// What the kernel said, other than that the file is gone.
    pub fn remove(self) -> io::Result<()> {
        let gone = match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if Identity::of(&found) == self.made => {
                rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match gone {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Identity {
    fn of(found: &Stat) -> Self {
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            changed: (found.st_ctime, found.st_ctime_nsec as i64),
        }
    }
}

/// Removes a socket that nobody listens on; anything else in the way is an error.
fn clear_the_way(
    directory: &PrivateDirectory,
    name: &OsStr,
    address: &SocketAddrUnix,
    path: &Path,
) -> Result<(), SocketError> {
    let found = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fails("look at", path)(error)),
    };
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::Socket => match stream_socket().and_then(|socket| rustix::net::connect(socket, address)) {
            Err(Errno::CONNREFUSED) => {
                tracing::info!(path = %path.display(), "replacing a control socket that nobody listens on");
                return rustix::fs::unlinkat(directory, name, AtFlags::empty())
                    .map_err(fails("replace", path));
            }
            // "Again" means that too many are waiting to be accepted already: slow, stopped perhaps, but not dead.
            Ok(()) | Err(Errno::AGAIN) => return Err(SocketError::InUse { path: path.to_owned() }),
            Err(error) => return Err(fails("connect to", path)(error)),
        },
        FileType::Symlink => "symlink",
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        _ => "special file",
    };
    Err(SocketError::Foreign { path: path.to_owned(), kind })
}

/// The file is never open to anyone who shouldn't have it: Linux gives it the mode that the socket has when it is
/// bound, and nobody can connect before `listen`.
fn listen(
    directory: &PrivateDirectory,
    name: &OsStr,
    address: &SocketAddrUnix,
    path: &Path,
) -> Result<OwnedFd, SocketError> {
    let socket = stream_socket().map_err(fails("make", path))?;
    rustix::fs::fchmod(&socket, MODE_AT_FIRST).map_err(fails("make", path))?;
    rustix::net::bind(&socket, address).map_err(|error| match error {
        Errno::ADDRINUSE => SocketError::InUse { path: path.to_owned() },
        error => fails("make", path)(error),
    })?;
    give_to_readers(directory, name, path);
    rustix::fs::chmodat(directory, name, MODE, AtFlags::empty()).map_err(fails("set the mode of", path))?;
    rustix::net::listen(&socket, BACKLOG).map_err(fails("listen on", path))?;
    Ok(socket)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Without the group, or without the right to give the file to it, the socket is for its owner alone: less than
/// asked for, but never too much, so the daemon goes on.
fn give_to_readers(directory: &PrivateDirectory, name: &OsStr, path: &Path) {
    let given = match Group::from_name(READERS) {
        Ok(None) => return,
        Ok(Some(group)) => {
            let gid = Gid::from_raw(group.gid.as_raw());
            rustix::fs::chownat(directory, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = given {
        tracing::warn!(path = %path.display(), %error, "the group {READERS} cannot be given the control socket");
    }
}

fn fails<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { path, action, source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        (root, path)
    }

    #[tokio::test]
    async fn the_socket_has_mode_0660_and_its_group_may_read() {
        let (_root, path) = place();
        let (_socket, _listener) = ControlSocket::bind(&path).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o660);
        if let Some(group) = Group::from_name(READERS).unwrap() {
            assert_eq!(found.gid(), group.gid.as_raw());
        }
    }

    #[tokio::test]
    async fn a_live_socket_is_a_conflict_and_stays_alive() {
        let (_root, path) = place();
        let (_socket, _listener) = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_root, path) = place();
        drop(ControlSocket::bind(&path).unwrap());
        assert!(path.exists(), "a killed daemon leaves its socket behind");
        let (_socket, _listener) = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_never_replaced() {
        let (root, path) = place();
        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("there is a file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let link = root.path().join("link.sock");
        symlink(&path, &link).unwrap();
        let error = ControlSocket::bind(&link).unwrap_err().to_string();
        assert!(error.contains("there is a symlink"), "{error}");
    }

    #[tokio::test]
    async fn a_symlinked_directory_is_refused() {
        let (root, _) = place();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        let error = ControlSocket::bind(&root.path().join("link/control.sock")).unwrap_err();
        assert!(matches!(error, SocketError::Directory(_)), "{error}");
        assert_eq!(fs::read_dir(root.path().join("real")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_the_own_socket_is_removed() {
        let (_root, path) = place();
        let (first, listener) = ControlSocket::bind(&path).unwrap();
        drop(listener);
        let (second, _listener) = ControlSocket::bind(&path).unwrap();
        first.remove().unwrap();
        assert!(path.exists(), "it is the second one's by now");
        second.remove().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn removing_a_socket_that_is_gone_is_no_error() {
        let (_root, path) = place();
        let (socket, _listener) = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        socket.remove().unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_so() {
        let (root, _) = place();
        let error = ControlSocket::bind(&root.path().join("x".repeat(120))).unwrap_err().to_string();
        assert!(error.contains("shorter than 108 bytes"), "{error}");
    }
}
