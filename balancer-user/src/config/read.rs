//! Reads a file that an operator named: a regular file, of bounded size, without ever waiting for a writer.
//!
//! Ownership and permissions are deliberately not looked at here: what a configuration may start is checked where it
//! is started.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::geteuid;

/// Why a file wasn't read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
    /// The system refused root, which may read what others keep to themselves only with a capability that the daemon drops.
    #[error(
        "{0}: it, or a folder above it, is another user's, and the daemon reads what root owns or everybody may read"
    )]
    Denied(io::Error),
    /// A directory, a device, a FIFO or a socket.
    #[error("is {0}, not a regular file")]
    NotAFile(&'static str),
    /// More than the bound.
    #[error("is larger than {} KiB", .0 >> 10)]
    TooLarge(usize),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied && geteuid().is_root();
        if is_denied { Self::Denied(error) } else { Self::Io(error) }
    }
}

/// What makes a file readable that root was [denied](ReadError::Denied).
pub(super) fn remedy(path: &Path) -> String {
    let shown = path.display();
    format!(
        "`chown root: {shown}`, or let everybody read it (`chmod o+r {shown}`, and o+x for the folders above it)"
    )
}

/// The bytes of a regular file of at most `limit` bytes.
pub(super) fn file(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    // Asked before the open, because opening a device can already do something (a watchdog starts), and again on what
    // was opened. O_NONBLOCK: a FIFO put there in between must not make the open wait for a writer.
    regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    regular(&file.metadata()?)?;
    bounded(file, limit)
}

/// All bytes until the end, at most `limit`; stops reading there.
pub(super) fn bounded(source: impl Read, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    source.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(ReadError::TooLarge(limit)) } else { Ok(bytes) }
}

fn regular(metadata: &Metadata) -> Result<(), ReadError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(())
    } else if kind.is_dir() {
        Err(ReadError::NotAFile("a directory"))
    } else if kind.is_fifo() {
        Err(ReadError::NotAFile("a FIFO"))
    } else if kind.is_char_device() || kind.is_block_device() {
        Err(ReadError::NotAFile("a device"))
    } else {
        Err(ReadError::NotAFile("a socket"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(file(&path, 5).unwrap(), b"12345");
        assert!(matches!(file(&path, 4), Err(ReadError::TooLarge(4))));
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        for (path, kind) in
            [(folder.path(), "a directory"), (fifo.as_path(), "a FIFO"), (Path::new("/dev/zero"), "a device")]
        {
            let refused = file(path, 5).unwrap_err().to_string();
            assert!(refused.contains(kind), "{}: {refused}", path.display());
        }
    }

    #[test]
    fn an_endless_source_is_left_at_the_bound() {
        assert!(matches!(bounded(io::repeat(b'x'), 1000), Err(ReadError::TooLarge(1000))));
    }
}
