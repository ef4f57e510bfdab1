//! Signals a group of which somebody has become another user (`runuser`, `setpriv`): a child of this process that does it.
//!
//! The daemon has dropped the right to (CAP_KILL), and its programs have it, if its unit grants it: so a shell's `kill` is one of them.
//! Not kill(1): that of procps takes the group 49 for the signal 49.
//! Deliberately not here: programs that may not become another user, whom their starter may always signal.

use std::process::Stdio;

use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tracing::warn;

use super::start::PATH;
use crate::privileges;

/// Returns at once; the runtime waits for the child. Needs its context.
pub(super) fn signal(group: Pid, signal: Signal) {
    if !privileges::only_programs_may_kill_others() {
        return;
    }
    let (signal, group) = (signal.as_raw().to_string(), group.as_raw_nonzero().to_string());
    let child = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", &signal, &group])
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // It complains where nobody is left, which is well.
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = child {
        warn!(event = "program", %error, "/bin/sh could not be started: what runs as another user goes on");
    }
}
