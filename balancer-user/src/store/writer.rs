//! The thread that does all writing, and what the daemon's loop holds of it. The loop puts things down and goes on: a disk
//! that is full, read-only or stuck costs memory for what waits, which is bounded, and nothing else.
//!
//! Of several states that wait only the newest is written, before records are: hooks wait for a state, nobody for a record.
//! What could not be written is tried again with the next write and every few seconds. Trouble is told once when it comes
//! and once when it goes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::journal::{self, Journal};
use super::mailbox::{Mailbox, Reader, Waiting};
use super::readers::{MAX_READERS, Readers};
use super::state::State;
use super::{file, past::Past};
use crate::control::protocol::Record;
use crate::directory::LockedDirectory;

/// How soon what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Records that wait for the thread, and as many that wait for the disk: a failover of every pool that there may be, at 4 KiB
/// each at most.
const MAX_WAITING: usize = 1024;

/// How far the disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The newest generation of the state that is on the disk; 0 before the first.
    pub saved: u64,
    /// The newest generation that was tried.
    pub tried: u64,
    /// Why the newest one that was tried is not on the disk.
    pub state_problem: Option<String>,
    /// Why records are not on the disk.
    pub journal_problem: Option<String>,
}

impl Written {
    /// What a person has to know: which file it is about, and a sentence.
    #[must_use]
    pub fn degraded(&self) -> Vec<(&'static str, String)> {
        let of = |file, problem: &Option<String>, lost: &str| {
            problem.as_ref().map(|text| (file, format!("{text}: {lost}")))
        };
        let lost = "a reboot would forget who is active and what the operator asked for";
        let state = of(file::NAME, &self.state_problem, lost);
        let journal = of(journal::NAME, &self.journal_problem, "new events are in memory only");
        state.into_iter().chain(journal).collect()
    }
}

/// Why a state is not known to be on the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsaved {
    /// The disk refused.
    #[error("{0}")]
    Failed(String),
    /// Nothing is known yet.
    #[error("the disk has not answered within {0:?}")]
    Late(Duration),
    /// The thread has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The loop's side.
#[derive(Debug)]
pub struct Store {
    mailbox: Arc<Mailbox>,
    generation: u64,
    written: watch::Receiver<Written>,
}

/// What a start finds in a state directory.
#[derive(Debug)]
pub struct Remembered {
    /// The state, if there is one that can be used.
    pub state: Option<State>,
    /// There was one that can't be used, or a part of it about a pool; that was told.
    pub was_damaged: bool,
    /// The id of the last record ever made, as far as anything tells.
    pub last_event: u64,
}

impl Store {
    /// Reads what is there and starts the thread, which keeps the directory locked.
    ///
    /// # Errors
    /// When the kernel has no thread for it. What is wrong with files is told, and no error.
    pub fn open(directory: LockedDirectory) -> io::Result<(Self, Remembered)> {
        let (state, was_damaged) = match file::take(&directory) {
            file::Found::State { state, lacks_pools } => (Some(*state), lacks_pools),
            file::Found::Nothing => (None, false),
            file::Found::Damaged => (None, true),
        };
        let in_journal = Past::in_directory(directory.as_fd()).last_id().unwrap_or_else(|error| {
            let path = directory.path().join(journal::NAME);
            warn!(event = "journal", path = %path.display(), error = %error, "earlier events can't be read");
            0
        });
        let last_event = in_journal.max(state.as_ref().map_or(0, |state| state.last_event));
        let mailbox = Arc::<Mailbox>::default();
        let (told, written) = watch::channel(Written::default());
        let readers = Readers::start(directory.as_fd())?;
        let writer = Writer {
            directory,
            readers,
            last: last_event,
            journal: Journal::new(journal::MAX_BYTES),
            unsaved: None,
            unwritten: VecDeque::new(),
            told,
        };
        let of_thread = mailbox.clone();
        thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&of_thread))?;
        Ok((Self { mailbox, generation: 0, written }, Remembered { state, was_damaged, last_event }))
    }

    /// Has a state written, in place of any that waits. Returns its generation, for [`Self::written`].
    pub fn save(&mut self, state: State) -> u64 {
        self.generation += 1;
        self.mailbox.put(|waiting| waiting.state = Some((self.generation, state)));
        self.generation
    }

    /// Has a record appended to the journal. One that finds no place is lost, which is told.
    pub fn append(&self, record: Record) {
        let lost = self.mailbox.put(|waiting| {
            if waiting.records.len() < MAX_WAITING {
                waiting.records.push(record);
                return 0;
            }
            waiting.lost += 1;
            waiting.lost
        });
        if lost == 1 {
            warn!(event = "journal", "the disk of the state directory does not keep up: events are lost");
        }
    }

    /// Has the past read, with all that was appended before; `None` for `reader`: too many wait for that already.
    pub fn read(&self, reader: impl FnOnce(Option<&Past<'_>>) + Send + 'static) {
        let mut reader: Option<Reader> = Some(Box::new(reader));
        self.mailbox.put(|waiting| {
            if waiting.readers.len() < MAX_READERS {
                let last = waiting.records.last().map(|record| record.id);
                waiting.readers.extend(reader.take().map(|reader| (last, reader)));
            }
        });
        if let Some(refused) = reader {
            refused(None);
        }
    }

    /// How far the disk is, now and with each change.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<Written> {
        self.written.clone()
    }

    /// Ends when everything that was saved so far is on the disk.
    pub fn saved(&self, limit: Duration) -> impl Future<Output = Result<(), Unsaved>> + use<> {
        let (generation, mut written) = (self.generation, self.written.clone());
        async move {
            let known = written.wait_for(|written| written.tried >= generation);
            let written = tokio::time::timeout(limit, known).await.map_err(|_| Unsaved::Late(limit))?;
            let written = written.map_err(|_| Unsaved::Stopping)?;
            match &written.state_problem {
                Some(problem) if written.saved < generation => Err(Unsaved::Failed(problem.clone())),
                _ => Ok(()),
            }
        }
    }

    /// Has everything written that waits, and waits for that, within bounds.
    pub fn finish(self, limit: Duration) {
        self.mailbox.put(|waiting| waiting.ending = true);
        if !self.mailbox.has_ended(limit) {
            error!(
                event = "store",
                "the disk of the state directory does not answer: the last events are lost"
            );
        }
    }
}

/// A store that is only dropped ends its thread as well, which nobody waits for.
impl Drop for Store {
    fn drop(&mut self) {
        self.mailbox.put(|waiting| waiting.ending = true);
    }
}

/// The thread's side.
struct Writer {
    directory: LockedDirectory,
    readers: Readers,
    /// The number of the last record that came.
    last: u64,
    journal: Journal,
    /// A state that could not be written.
    unsaved: Option<(u64, State)>,
    /// Records that could not be appended, oldest first.
    unwritten: VecDeque<Arc<Record>>,
    told: watch::Sender<Written>,
}

impl Writer {
    fn run(mut self, mailbox: &Mailbox) {
        loop {
            let is_behind = self.unsaved.is_some() || !self.unwritten.is_empty();
            let Waiting { state, records, lost, readers, ending, .. } =
                mailbox.take(is_behind.then_some(RETRY));
            self.unsaved = state.or(self.unsaved.take());
            self.save();
            let earlier = self.last;
            self.last = records.last().map_or(earlier, |record| record.id);
            self.unwritten.extend(records.into_iter().map(Arc::new));
            self.append(lost);
            if !readers.is_empty() {
                let unwritten: Arc<[_]> = self.unwritten.iter().cloned().collect();
                for (last, reader) in readers {
                    self.readers.ask(reader, unwritten.clone(), last.unwrap_or(earlier));
                }
            }
            if ending {
                // Whoever waits for the end may open the directory again.
                drop(self);
                mailbox.put(|waiting| waiting.ended = true);
                return;
            }
        }
    }

    fn save(&mut self) {
        let Some((generation, state)) = self.unsaved.take() else { return };
        let result = file::write(self.directory.as_fd(), state.clone());
        let problem =
            result.err().map(|error| format!("{} can't be written: {error}", self.path(file::NAME)));
        let before = self.told.borrow().state_problem.clone();
        tell(before.as_deref(), problem.as_deref(), "the state is written again");
        if problem.is_some() {
            self.unsaved = Some((generation, state));
        }
        self.told.send_modify(|written| {
            written.tried = generation;
            written.saved = if problem.is_none() { generation } else { written.saved };
            written.state_problem = problem;
        });
    }

    /// `lost`: records that did not even get here.
    fn append(&mut self, lost: u64) {
        if lost > 0 {
            warn!(event = "journal", lost, "events were lost");
        }
        if self.unwritten.is_empty() {
            return;
        }
        let (appended, result) =
            self.journal.append(self.directory.as_fd(), self.unwritten.make_contiguous());
        self.unwritten.drain(..appended);
        let excess = self.unwritten.len().saturating_sub(MAX_WAITING);
        self.unwritten.drain(..excess);
        let path = self.path(journal::NAME);
        let problem = result.err().map(|error| format!("{path} can't be written: {error}"));
        let before = self.told.borrow().journal_problem.clone();
        tell(before.as_deref(), problem.as_deref(), "events are written again");
        self.told.send_if_modified(|written| {
            let is_news = written.journal_problem != problem;
            written.journal_problem = problem;
            is_news
        });
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

/// Once when trouble comes or becomes another one, and once when it goes.
fn tell(before: Option<&str>, now: Option<&str>, well_again: &str) {
    match now {
        Some(problem) if before != Some(problem) => error!(
            event = "store",
            "{problem}: traffic is not affected, but what happens now is forgotten by a reboot; free or mend the disk of \
             the state directory, it is tried again every {RETRY:?}"
        ),
        None if before.is_some() => info!(event = "store", "{well_again}"),
        _ => {}
    }
}
