//! What happened, the newest first: over both files of the journal, with a bounded part of it in memory.
//!
//! The daemon's reader reads like this, while its writer goes on, and so does a verb that finds no daemon.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::{journal, lines, why};
use crate::control::protocol::Record;

/// A file is a little longer than its bound at most; what is far longer was not written by a journal.
const MAX_READ_BYTES: u64 = 2 * journal::MAX_BYTES;

/// The journal, and what could not be written to it yet.
#[derive(Debug)]
pub struct Past<'a> {
    directory: BorrowedFd<'a>,
    unwritten: &'a [Arc<Record>],
    /// What has a greater number in the files was written later.
    last_in_files: u64,
}

impl<'a> Past<'a> {
    /// What the journal in this directory tells.
    #[must_use]
    pub const fn in_directory(directory: BorrowedFd<'a>) -> Self {
        Self { directory, unwritten: &[], last_in_files: u64::MAX }
    }

    /// What it tells together with these, up to the record with this number.
    pub(super) fn with(directory: BorrowedFd<'a>, unwritten: &'a [Arc<Record>], last: u64) -> Self {
        let unwritten = &unwritten[..unwritten.partition_point(|record| record.id <= last)];
        let last_in_files = unwritten.first().map_or(last, |first| first.id.saturating_sub(1));
        Self { directory, unwritten, last_in_files }
    }

    /// The newest records, oldest first; of all pools, or of one.
    ///
    /// # Errors
    /// When a file is there and can't be read.
    pub fn newest(&self, pool: Option<&str>, limit: u64) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.newest_first(&mut |record| {
                if pool.is_none_or(|pool| record.pool.as_deref() == Some(pool)) {
                    found.push(record);
                }
                if found.len() as u64 == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        found.reverse();
        Ok(found)
    }

    /// What led to a pool's active backend, newest first; see `why`.
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn why(&self, pool: &str, active: &str) -> io::Result<Vec<Record>> {
        let mut chain = why::Chain::new(pool, active);
        self.newest_first(&mut |record| chain.consider(record))?;
        Ok(chain.finish())
    }

    /// The id of the last record; 0 when there is none.
    pub(super) fn last_id(&self) -> io::Result<u64> {
        let mut last = 0;
        self.newest_first(&mut |record| {
            last = record.id;
            ControlFlow::Break(())
        })?;
        Ok(last)
    }

    /// Whether there is a journal at all.
    ///
    /// # Errors
    /// When that can't be found out.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.open(journal::NAME)?.is_some() || self.open(journal::OLD)?.is_some())
    }

    fn newest_first(&self, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> io::Result<()> {
        for record in self.unwritten.iter().rev() {
            if visit(Record::clone(record)).is_break() {
                return Ok(());
            }
        }
        for file in self.files()? {
            let end = lines::backwards(&file, MAX_READ_BYTES, &mut |line| {
                // Torn, empty or damaged: there is nothing to tell.
                let record = serde_json::from_slice(line).ok();
                let record = record.filter(|record: &Record| record.id <= self.last_in_files);
                record.map_or(ControlFlow::Continue(()), &mut *visit)
            })?;
            if end.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Those that there are, the newest first. Opened together: the newest may become the one before at any moment, and is then
    /// there under both names.
    fn files(&self) -> io::Result<Vec<File>> {
        let (new, old) = (self.open(journal::NAME)?, self.open(journal::OLD)?);
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        if let (Some(new), Some(old)) = (&new, &old)
            && identity(new)? == identity(old)?
        {
            return Ok(vec![new.try_clone()?]);
        }
        Ok(new.into_iter().chain(old).collect())
    }

    fn open(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            Err(io::Error::other(format!("{name} is no file")))
        }
    }
}
