//! A descriptor kept for a client that comes when there is no other.
//!
//! Without it, whoever wants to know why the daemon is short of descriptors would wait until it isn't any more.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use tokio::net::UnixListener;

/// One, or the place of one that was given away.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    pub(super) fn beside(listener: &UnixListener) -> Self {
        Self(fcntl_dupfd_cloexec(listener, 0).ok())
    }

    /// After a client was accepted: has one again, if there is one.
    pub(super) fn keep(&mut self, listener: &UnixListener) {
        if self.0.is_none() {
            *self = Self::beside(listener);
        }
    }

    /// Whether accepting may be tried again at once, because it failed for want of a descriptor and there is one now.
    pub(super) fn helps(&mut self, error: &std::io::Error) -> bool {
        let is_short = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        is_short && self.0.take().is_some()
    }
}
