//! File descriptors: as many as the daemon works with, some kept low, and a look whether there are any left.
//!
//! Each map is a descriptor, so a limit that is too low for a shell's child is far too low here. One that falls later
//! (`prlimit`), or is used up, takes nothing from traffic: but whoever looks at `status` shall read it there.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The usual soft limit: for maps, probes, programs and clients. Not more, as programs of the operator's inherit it.
const WANTED: u64 = 1024;

/// Fewer are as good as none: a probe takes one, a program six, a change of the state file two.
const FEW: usize = 16;

/// The maps take 48, links, sockets, signals and what is being opened the rest.
const NEEDED: u64 = 128;

/// Raises a limit that is lower than what is worked with, as far as this process may.
///
/// # Errors
/// A sentence, when the limit stays lower than what a start takes.
pub fn provide() -> Result<(), String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= WANTED) {
        return Ok(());
    }
    let highest = maximum.unwrap_or(WANTED).max(WANTED);
    let wanted = Rlimit { current: Some(WANTED), maximum: maximum.map(|_| highest) };
    // Beyond the hard limit only with CAP_SYS_RESOURCE.
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < NEEDED => Err(format!(
            "only {limit} file descriptors are allowed, and a start takes {NEEDED}: raise LimitNOFILE of the service \
             (`ulimit -Hn`); traffic of an earlier daemon goes on meanwhile"
        )),
        _ => Ok(()),
    }
}

/// How many a daemon has that is started as this process was, where it may raise its limit no further than to the hard one.
#[must_use]
pub fn limit_of_a_daemon() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    current.unwrap_or(u64::MAX).max(WANTED).min(maximum.unwrap_or(u64::MAX))
}

/// Descriptors that are taken now, so that their low numbers are free when the maps have got theirs: a limit that falls
/// below what is open still leaves some for a probe and a client.
pub fn room() -> Vec<OwnedFd> {
    std::iter::repeat_with(one).map_while(Result::ok).take(FEW).collect()
}

/// Why there are too few left, if there are.
#[must_use]
pub fn trouble() -> Option<String> {
    let taken: Vec<_> = std::iter::repeat_with(one).take(FEW).take_while(Result::is_ok).collect();
    if taken.len() == FEW {
        return None;
    }
    let limit =
        getrlimit(Resource::Nofile).current.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    let left = taken.len();
    Some(format!(
        "{left} file descriptors are left (limit {limit}): probes, programs and clients may have to wait; raise LimitNOFILE \
         of the service"
    ))
}

fn one() -> Result<OwnedFd, Errno> {
    openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_a_look_wants_to_see() {
        assert_eq!(room().len(), FEW);
        assert_eq!(trouble(), None, "the limit of a test is far away");
    }
}
