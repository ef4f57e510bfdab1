//! A program's process group, and the program that leads it.
//!
//! A group's number is its leader's, and the kernel gives a number away again when neither a process nor a group has it.
//! So a group is signalled without doubt while its leader has not been waited for. Afterwards, [`Group::is_empty`] is
//! asked again and again, tens of milliseconds apart, and never after it was true: in that time the kernel would have
//! to give away all of its (at least 32,768) numbers for this one to be somebody else's.
//!
//! Who has become another user is signalled by a [`deputy`]. Deliberately not here: when to signal.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::io::unix::AsyncFd;

use super::{Rest, deputy};

/// A running program and what it has started, unless that left the group.
#[derive(Debug)]
pub(super) struct Group {
    leader: Child,
    id: Pid,
    /// Readable when the leader has exited.
    pidfd: AsyncFd<OwnedFd>,
    waited_for: bool,
    rest: Rest,
}

impl Group {
    /// `leader` leads its own group. Blocks when that fails: then the group is ended, unless that is because the daemon ends,
    /// and the group may outlive it.
    pub(super) fn new(mut leader: Child, rest: Rest) -> io::Result<Self> {
        let id = Pid::from_child(&leader);
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(io::Error::from).and_then(watched);
        match pidfd {
            Ok(pidfd) => Ok(Self { leader, id, pidfd, waited_for: false, rest }),
            // Not an error of the kernel's: there is no runtime any more that could watch it.
            Err(error) if error.raw_os_error().is_none() && rest == Rest::LeftToDeadline => Err(error),
            Err(error) => {
                let _ = kill_process_group(id, Signal::KILL);
                let _ = leader.wait();
                Err(error)
            }
        }
    }

    /// Waits until the program itself has exited. It is still to be [waited for](Self::wait).
    pub(super) async fn exited(&self) {
        if self.pidfd.readable().await.is_err() {
            // The runtime ends.
            std::future::pending().await
        }
    }

    /// How a program that has exited did so.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.try_wait();
        // Whatever came of it: there is no second answer.
        self.waited_for = true;
        if self.rest == Rest::Killed && test_kill_process_group(self.id) != Err(Errno::SRCH) {
            // What is left has got its KILL; some of it may be another user's, on whom it didn't count.
            deputy::signal(self.id, Signal::KILL);
        }
        status?.ok_or_else(|| io::Error::other("the kernel does not tell how the program exited"))
    }

    /// Whether [`Self::wait`] was called.
    pub(super) const fn waited_for(&self) -> bool {
        self.waited_for
    }

    /// What becomes of it when its leader has exited.
    pub(super) const fn rest(&self) -> Rest {
        self.rest
    }

    /// Sends a signal to everybody in the group who is of this process's user.
    pub(super) fn signal(&self, signal: Signal) {
        // ESRCH: everybody has left.
        let _ = kill_process_group(self.id, signal);
    }

    /// Sends a signal to everybody in the group, whoever that has become. Needs the context of a runtime.
    pub(super) fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        deputy::signal(self.id, signal);
    }

    /// Whether nobody is left; its leader counts until it was waited for.
    pub(super) fn is_empty(&self) -> bool {
        test_kill_process_group(self.id) == Err(Errno::SRCH)
    }
}

#[expect(
    deprecated,
    reason = "sound for an OwnedFd, which stays what it is; the replacement is an unsafe function"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(pidfd)
}

impl Drop for Group {
    /// Comes early only when the runtime ends.
    fn drop(&mut self) {
        if !self.waited_for && self.rest == Rest::Killed {
            self.signal(Signal::KILL);
        }
    }
}
