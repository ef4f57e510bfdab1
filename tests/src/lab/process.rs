//! Commands that must succeed, and processes that end with their guard. What a process prints goes to files in the
//! lab's directory: a pipe nobody reads would stop it, and a test can look at any time.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::poll::poll_until;

/// How much of a process's last words goes into a message.
const TAIL_LINES: usize = 40;

/// Processes started so far: keeps the files of two servers on one host apart.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Runs a command to its end, without input.
///
/// # Errors
/// When it can't be started or exits with anything but 0; the message holds the command and what it said.
pub(super) fn checked(mut command: Command) -> Result<Output> {
    let shown = shown(&command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{shown}`"))?;
    ensure!(
        output.status.success(),
        "`{shown}` failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(output)
}

/// A running process and its process group; dropping it kills and reaps them.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
    stdout_file: PathBuf,
    stderr_file: PathBuf,
    is_left_running: bool,
}

impl Process {
    pub(super) fn start(mut command: Command, role: &str, dir: &Path) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let stdout_file = dir.join(format!("{role}-{number}.out"));
        let stderr_file = dir.join(format!("{role}-{number}.err"));
        let create = |file: &Path| File::create(file).with_context(|| format!("create {}", file.display()));
        let shown = shown(&command);
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout_file)?)
            .stderr(create(&stderr_file)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{shown}`"))?;
        Ok(Self { child, shown, stdout_file, stderr_file, is_left_running: false })
    }

    /// The process id; also that of its process group. `nsenter` replaces itself, so it is the program's own.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text_of(&self.stdout_file)
    }

    /// What it has complained about so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text_of(&self.stderr_file)
    }

    /// Waits until a line of its stdout is exactly `line`.
    ///
    /// # Errors
    /// After `patience`, or at once when the process has ended; with what it had said.
    pub fn wait_for_line(&mut self, line: &str, patience: Duration) -> Result<()> {
        let what = format!("{line:?} from `{}`", self.shown);
        poll_until(patience, &what, || {
            // First the status, then the output: what it printed just before its end is not missed.
            let ended = self.child.try_wait();
            if self.stdout().lines().any(|l| l == line) {
                return Ok(Ok(()));
            }
            match ended {
                Ok(None) => Err(self.last_words()),
                Ok(Some(status)) => Ok(Err(format!("it ended ({status}): {}", self.last_words()))),
                Err(error) => Ok(Err(error.to_string())),
            }
        })?
        .map_err(|reason| anyhow::anyhow!("waited for {what}: {reason}"))
    }

    /// Waits for its own end and hands the status on, whatever it is.
    ///
    /// # Errors
    /// After `patience`, with its last words; it is still running then.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("the end of `{}`", self.shown);
        poll_until(patience, &what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.last_words()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits for its own end, which must be a good one, and hands its stdout on.
    ///
    /// # Errors
    /// When it exits with anything but 0, or not within `patience`.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        let status = self.wait(patience)?;
        ensure!(status.success(), "`{}` failed ({status}): {}", self.shown, self.last_words());
        Ok(self.stdout())
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to its whole process group; one that has ended meanwhile is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Once reaped, the id may belong to a stranger.
        if !self.is_running() {
            return Ok(());
        }
        let group = Pid::from_child(&self.child);
        kill_process_group(group, signal)
            .or_else(|error| if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) })
            .with_context(|| format!("send {signal:?} to `{}`", self.shown))
    }

    /// SIGKILL, as a crash does it, and waits until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// Leaves it running: it ends with the lab.
    pub fn leave_running(mut self) {
        self.is_left_running = true;
    }

    fn last_words(&self) -> String {
        format!("stdout {:?}, stderr {:?}", tail(&self.stdout()), tail(&self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_left_running {
            return;
        }
        if thread::panicking() {
            eprintln!("`{}` when the test failed: {}", self.shown, self.last_words());
        }
        // Children that outlived it end with the lab: its group's id may belong to a stranger by now.
        if self.is_running() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn text_of(file: &Path) -> String {
    fs::read(file).map_or_else(
        |error| format!("(can't read {}: {error})", file.display()),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
