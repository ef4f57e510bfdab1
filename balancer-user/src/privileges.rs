//! What the daemon may do: of root's capabilities those that it works with, and none of the others.
//!
//! Capabilities belong to threads, and a thread inherits those of the one that starts it: so the others are dropped before
//! there is a second thread; the log and the resolver, whose threads may be older, have none at all.
//!
//! Deliberately left alone are the bounding set, the ambient set (the kernel keeps it within what is permitted) and
//! `no_new_privs`: a program that root runs gets what the bounding set holds, and a hook shall get what its unit grants, not
//! what the daemon is left with.

use std::io;
use std::thread;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, set_capabilities,
};

/// BPF: maps and programs. PERFMON: without it the kernel checks programs for attacks by guessing, and refuses ours.
/// NET_ADMIN: programs on interfaces, routes and neighbours. NET_RAW: packets that end a flow, and handshakes that are sent on.
/// NET_BIND_SERVICE: a redirect's port 80, which a reload may add.
const NEEDED: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// What CAP_SYS_ADMIN includes, as before Linux 5.8.
const INCLUDED: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

/// Drops for good what the calling thread, and those that it starts from now on, won't need.
///
/// Afterwards root is a user whose own files are all that it may touch; so whatever takes more (mounting a file system,
/// giving a file to a group) has been done by then.
///
/// # Errors
/// What the kernel said.
pub fn drop_unneeded() -> io::Result<()> {
    let held = capabilities(None)?;
    set_capabilities(None, needed_of(held))?;
    Ok(())
}

fn needed_of(held: CapabilitySets) -> CapabilitySets {
    let mut needed = NEEDED;
    if !held.permitted.contains(INCLUDED) {
        needed |= CapabilitySet::SYS_ADMIN;
    }
    let permitted = held.permitted & needed;
    CapabilitySets { effective: permitted, permitted, inheritable: held.inheritable & needed }
}

/// Does something on a thread that has no capability: neither have the threads that this starts.
///
/// # Errors
/// What the kernel said; then nothing was done.
///
/// # Panics
/// When `body` does.
pub fn without_any<T: Send>(body: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let done = scope.spawn(|| -> io::Result<T> {
            drop_all()?;
            Ok(body())
        });
        done.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

/// Drops for good whatever the calling thread may do; so can't those that it starts from now on.
///
/// # Errors
/// What the kernel said.
pub fn drop_all() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Whether a program that root runs may end processes of others, which this process may not do itself.
#[must_use]
pub fn only_programs_may_kill_others() -> bool {
    let may_itself = capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::KILL));
    !may_itself && capability_is_in_bounding_set(CapabilitySet::KILL).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(permitted: CapabilitySet, inheritable: CapabilitySet) -> CapabilitySets {
        CapabilitySets { effective: permitted, permitted, inheritable }
    }

    #[test]
    fn of_everything_five_are_kept() {
        let all = CapabilitySet::all();
        assert_eq!(needed_of(sets(all, all)), sets(NEEDED, NEEDED));
        assert_eq!(NEEDED.iter().count(), 5);
    }

    #[test]
    fn nothing_is_asked_for_that_was_not_held() {
        let few = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::CHOWN;
        assert_eq!(needed_of(sets(few, CapabilitySet::KILL)), sets(INCLUDED, CapabilitySet::empty()));
    }

    #[test]
    fn where_sys_admin_stands_for_others_it_is_kept() {
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN | CapabilitySet::CHOWN;
        let kept = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(needed_of(sets(old, CapabilitySet::empty())), sets(kept, CapabilitySet::empty()));
    }

    #[test]
    fn a_thread_without_any_starts_threads_without_any_and_the_caller_keeps_its_own() {
        let before = capabilities(None).unwrap();
        let of_a_child = || thread::spawn(|| capabilities(None).unwrap()).join().unwrap();
        let held = without_any(of_a_child).unwrap();
        assert_eq!((held.permitted, held.effective), (CapabilitySet::empty(), CapabilitySet::empty()));
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn what_is_dropped_is_gone_for_threads_that_come_later() {
        // On a thread of its own: the others of this process go on with what they have.
        let kept = thread::spawn(|| {
            let held = capabilities(None).unwrap();
            drop_unneeded().unwrap();
            let later = thread::spawn(|| capabilities(None).unwrap()).join().unwrap();
            assert_eq!(later, needed_of(held));
            set_capabilities(None, held)
        });
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(kept.join().unwrap().is_err(), is_root, "what is dropped can't be had back");
    }
}
