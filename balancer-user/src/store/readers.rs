//! The thread that reads the past for those who ask, so that no write waits for a read.
//!
//! Who asks comes by the writer, which adds what is not on the disk yet, and the number of the last record by then: what is
//! written while the thread reads is not told, as if nothing had been.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use rustix::fs::{Mode, OFlags, openat};

use super::mailbox::Reader;
use super::past::Past;
use crate::control::protocol::Record;

/// Readers that wait for the thread.
pub(super) const MAX_READERS: usize = 64;

/// The writer's side.
#[derive(Debug)]
pub(super) struct Readers {
    questions: SyncSender<Question>,
}

struct Question {
    unwritten: Arc<[Arc<Record>]>,
    last: u64,
    reader: Reader,
}

impl Readers {
    /// Starts the thread; it ends with this value, once it has answered those who wait.
    pub(super) fn start(directory: impl AsFd) -> io::Result<Self> {
        // Opened anew, so that it has no part in the lock: a read that is stuck keeps nobody from the directory.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(directory, ".", flags, Mode::empty())?;
        let (questions, asked) = sync_channel(MAX_READERS);
        thread::Builder::new().name("store-reader".to_owned()).spawn(move || answer(&directory, &asked))?;
        Ok(Self { questions })
    }

    /// Has the past read up to the record with this number, or refuses.
    pub(super) fn ask(&self, reader: Reader, unwritten: Arc<[Arc<Record>]>, last: u64) {
        let refused = self.questions.try_send(Question { unwritten, last, reader });
        if let Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) = refused {
            (question.reader)(None);
        }
    }
}

fn answer(directory: &OwnedFd, asked: &Receiver<Question>) {
    for Question { unwritten, last, reader } in asked {
        reader(Some(&Past::with(directory.as_fd(), &unwritten, last)));
    }
}
