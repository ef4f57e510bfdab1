//! Signals a group of which somebody has become another user (`runuser`, `setpriv`): a child of this process that does it.
//!
//! The daemon has dropped the right to (CAP_KILL), and its programs have it, if its unit grants it: so a shell's `kill` is one of them.
//! Not kill(1): that of procps takes the group 49 for the signal 49.
//! Starting and waiting for it is a thread's work, as a machine that swaps may take long for that. Deliberately not here: programs
//! that may not become another user, whom their starter may always signal.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::AT_ONCE;
use super::start::PATH;
use crate::privileges;

/// One for each program that may run: each is ended once.
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// Returns at once. Needs the context of a runtime.
pub(super) fn signal(group: Pid, signal: Signal) {
    if privileges::only_programs_may_kill_others() {
        send(group, signal);
    }
}

fn send(group: Pid, signal: Signal) {
    let Ok(place) = PLACES.try_acquire() else {
        warn!(event = "program", "{AT_ONCE} shells have not ended: what runs as another user goes on");
        return;
    };
    spawn_blocking(move || {
        run(group, signal);
        drop(place);
    });
}

fn run(group: Pid, signal: Signal) {
    let (signal, group) = (signal.as_raw().to_string(), group.as_raw_nonzero().to_string());
    let ended = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", &signal, &group])
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // It complains where nobody is left, which is well.
        .stderr(Stdio::null())
        .status();
    if let Err(error) = ended {
        warn!(event = "program", %error, "/bin/sh could not be started: what runs as another user goes on");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_group_is_ended_by_a_thread_that_the_loop_does_not_wait_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let mut leader = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let context = runtime.enter();
        let (release, held) = std::sync::mpsc::channel::<()>();
        spawn_blocking(move || held.recv());
        // Its thread isn't free yet.
        send(Pid::from_child(&leader), Signal::KILL);
        assert!(leader.try_wait().unwrap().is_none());
        drop(release);
        let begun = Instant::now();
        while leader.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(context);
    }
}
