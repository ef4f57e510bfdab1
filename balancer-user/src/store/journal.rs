//! `events.jsonl`: one record a line, appended and never changed, in two files of bounded size.
//!
//! A line that was torn (a crash, a full disk) stays alone on its line and is skipped by readers. Deliberately not here:
//! reading (`past`), and who writes when (`writer`).

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{OFlags, fsync, openat, renameat};

use super::FILE_MODE;
use crate::control::protocol::Record;

pub(super) const NAME: &str = "events.jsonl";
/// The one before, which ends where the other begins.
pub(super) const OLD: &str = "events.jsonl.1";
/// A file that would become longer makes place for a new one: some 20,000 records.
pub(super) const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Records that are written at once; with the bounds of a record, 256 KiB at most.
const AT_ONCE: usize = 64;

/// The file that records are appended to.
#[derive(Debug)]
pub(super) struct Journal {
    max_bytes: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
    /// Its last line has no end.
    torn: bool,
}

impl Journal {
    /// Nothing is opened before something is appended.
    pub(super) const fn new(max_bytes: u64) -> Self {
        Self { max_bytes, open: None }
    }

    /// Appends as many as it can, in order; says how many those are, and why not all.
    pub(super) fn append(
        &mut self,
        directory: BorrowedFd<'_>,
        records: &[impl Borrow<Record>],
    ) -> (usize, io::Result<()>) {
        let mut appended = 0;
        for records in records.chunks(AT_ONCE) {
            if let Err(error) = self.write(directory, records) {
                return (appended, Err(error));
            }
            appended += records.len();
        }
        let synced = self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data());
        (appended, synced)
    }

    fn write(&mut self, directory: BorrowedFd<'_>, records: &[impl Borrow<Record>]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record.borrow())?;
            lines.push(b'\n');
        }
        let open = self.file(directory)?;
        if open.length > 0 && open.length + lines.len() as u64 > self.max_bytes {
            self.open = None;
            renameat(directory, NAME, directory, OLD)?;
        }
        self.file(directory)?.append(lines)
    }

    /// The file by that name now; one that was removed under it is made anew.
    fn file(&mut self, directory: BorrowedFd<'_>) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) if open.file.metadata()?.nlink() > 0 => open,
            _ => Open::new(directory)?,
        };
        Ok(self.open.insert(open))
    }
}

impl Open {
    fn new(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = File::from(openat(directory, NAME, flags, FILE_MODE)?);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is no regular file: remove it"));
        }
        let length = found.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        } else {
            fsync(directory)?;
        }
        Ok(Self { file, length, torn: last != [b'\n'] })
    }

    fn append(&mut self, mut lines: Vec<u8>) -> io::Result<()> {
        if self.torn {
            lines.insert(0, b'\n');
        }
        let written = self.file.write_all(&lines);
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.torn = false;
            }
            // What was written of it would be written again; taking it back needs no space.
            Err(_) => self.torn |= self.file.set_len(self.length).is_err(),
        }
        written
    }
}
