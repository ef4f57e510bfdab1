//! Starts a program: the open file, its pipes, its group. Everything here may block, so a thread of its own runs it.
//!
//! How the opened file is run: as `/proc/PID/fd/N`, with our own PID. That path stays what was opened, whatever becomes of the
//! file's own path; a `#!` interpreter, which is handed the path and opens it once more, finds the same file; and nobody
//! inherits a descriptor, which `/proc/self/fd/N` would need (execve closes it before the interpreter looks). The price:
//! `$0` of a script is that path.
//!
//! The standard library gives the child an empty signal mask and the default action for SIGPIPE; handlers end with the old
//! program. What it inherits otherwise (umask, limits) is the daemon's own, to be set where the daemon is started.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::group::Group;
use super::trust::{self, Untrusted};
use super::{Call, Ending, Output};

/// Where a program finds the commands of the system.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much is read at once.
const CHUNK: usize = 8 * 1024;

/// A program that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) group: Group,
    pub(super) streams: Streams,
    /// An interpreter may not have opened it yet.
    _file: OwnedFd,
}

/// Our ends of its pipes.
#[derive(Debug)]
pub(super) struct Streams {
    /// What it has not read yet; none once it was told all, or closed its end.
    input: Option<(pipe::Sender, Vec<u8>)>,
    /// None once nobody holds the other end.
    output: Option<pipe::Receiver>,
    said: Output,
}

/// Starts it. Needs the context of a runtime.
pub(super) fn start(call: Call) -> Result<Running, Ending> {
    let Call { command, variables, input, rest, .. } = call;
    let file = trust::open(&command.program).map_err(|error| match error {
        Untrusted::Distrust(distrust) => Ending::NotTrusted(distrust),
        Untrusted::Io { source, .. } => Ending::LocalFault(source),
    })?;
    let (streams, stdin, stdout, stderr) = pipes(input).map_err(Ending::LocalFault)?;
    let path = path_of(&file).map_err(Ending::LocalFault)?;
    let child = Command::new(path)
        .arg0(&command.program)
        .args(&command.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(variables)
        .current_dir("/")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(blamed)?;
    let group = Group::new(child, rest).map_err(Ending::LocalFault)?;
    Ok(Running { group, streams, _file: file })
}

/// Whose fault it is that a program wasn't started.
fn blamed(error: io::Error) -> Ending {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => Ending::LocalFault(error),
        _ => Ending::NotStarted(error),
    }
}

/// Where procfs shows one of our descriptors, also to a process that isn't us.
fn path_of(file: &OwnedFd) -> io::Result<PathBuf> {
    // The PID by which procfs knows us, which may be that of another PID namespace.
    let own = fs::read_link("/proc/self")?;
    Ok(Path::new("/proc").join(own).join("fd").join(file.as_raw_fd().to_string()))
}

/// Our ends, and the program's stdin, stdout and stderr.
fn pipes(input: Vec<u8>) -> io::Result<(Streams, io::PipeReader, fs::File, fs::File)> {
    let (stdin, sender) = io::pipe()?;
    let (receiver, stdout) = io::pipe()?;
    // Open for reading as well, the pipe has a reader for as long as the program lives: a hook that goes on when the
    // daemon has ended, and says something, is not killed by SIGPIPE; it has the pipe's 64 KiB of room.
    let both = format!("/proc/self/fd/{}", stdout.as_raw_fd());
    let stdout = OpenOptions::new().read(true).write(true).open(both)?;
    let stderr = stdout.try_clone()?;
    let sender = pipe::Sender::from_owned_fd(sender.into())?;
    let receiver = pipe::Receiver::from_owned_fd(receiver.into())?;
    let input = (!input.is_empty()).then_some((sender, input));
    Ok((Streams { input, output: Some(receiver), said: Output::default() }, stdin, stdout, stderr))
}

impl Streams {
    /// One step: some bytes in or out. Never ready when both ends are closed. Cancelling loses nothing.
    pub(super) async fn go_on(&mut self) {
        let mut chunk = [0; CHUNK];
        tokio::select! {
            written = feed(&mut self.input) => match (&mut self.input, written) {
                (Some((_, rest)), Ok(written)) if written < rest.len() => drop(rest.drain(..written)),
                // All of it; or EPIPE: it doesn't want it.
                _ => self.input = None,
            },
            read = listen(&mut self.output, &mut chunk) => match read {
                Ok(read) if read > 0 => self.said.push(&chunk[..read]),
                _ => self.output = None,
            },
        }
    }

    /// Whether it may still say something.
    pub(super) const fn are_heard(&self) -> bool {
        self.output.is_some()
    }

    /// Nothing more goes in.
    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// What it said so far; the rest is only thrown away.
    pub(super) fn take(&mut self) -> Output {
        std::mem::take(&mut self.said)
    }
}

async fn feed(input: &mut Option<(pipe::Sender, Vec<u8>)>) -> io::Result<usize> {
    match input {
        Some((sender, rest)) => sender.write(rest).await,
        None => std::future::pending().await,
    }
}

async fn listen(output: &mut Option<pipe::Receiver>, chunk: &mut [u8]) -> io::Result<usize> {
    match output {
        Some(receiver) => receiver.read(chunk).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_programs_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
            assert!(matches!(blamed(errno.into()), Ending::LocalFault(_)), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::TXTBSY, Errno::TOOBIG] {
            assert!(matches!(blamed(errno.into()), Ending::NotStarted(_)), "{errno}");
        }
    }
}
