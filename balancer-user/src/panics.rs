//! What a panic of the daemon comes to. It is a bug, after which nobody knows what of the daemon still works: a task that only
//! isn't there any more looks as if it had nothing to say, while the loop goes on telling systemd that all is well. So the
//! process ends at once, and whoever watches it starts it anew; packets don't notice. A connection is nobody's but its own:
//! who could make its task panic would end the daemon as often as he likes, so such a task ends alone.

use std::panic;
use std::process;
use std::thread;
use std::time::Duration;

/// For what the log has yet to write: it is what led there.
const LAST_WORDS: Duration = Duration::from_millis(100);

tokio::task_local! {
    static ALONE: ();
}

/// From now on a panic ends the process, after it was told.
pub fn end_the_process() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        tell(about);
        if ALONE.try_with(|()| ()).is_err() {
            thread::sleep(LAST_WORDS);
            process::abort();
        }
    }));
}

/// A task that a panic ends alone.
pub async fn alone<T>(task: impl Future<Output = T>) -> T {
    ALONE.scope((), task).await
}

/// The same of what such a task has done in a thread beside it.
pub fn alone_in_a_thread<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || ALONE.sync_scope((), work)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus};

    use super::*;

    /// Which part of this test a process is that it has started.
    const PART: &str = "BALANCER_TEST_PANIC";
    const NAME: &str = "panics::tests::a_panic_ends_the_process_unless_it_is_a_connections";

    fn panics() {
        panic!("on purpose");
    }

    async fn ends_by_itself(part: &str) {
        end_the_process();
        let ended = match part {
            "connection" => tokio::spawn(alone(async { panics() })).await,
            "thread of a connection" => tokio::task::spawn_blocking(alone_in_a_thread(panics)).await,
            "task" => tokio::spawn(async { panics() }).await,
            _ => tokio::task::spawn_blocking(panics).await,
        };
        assert!(ended.unwrap_err().is_panic());
    }

    fn start(part: &str) -> ExitStatus {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", NAME]).env(PART, part).output().unwrap().status
    }

    #[tokio::test]
    async fn a_panic_ends_the_process_unless_it_is_a_connections() {
        if let Ok(part) = env::var(PART) {
            return ends_by_itself(&part).await;
        }
        for part in ["connection", "thread of a connection"] {
            assert!(start(part).success(), "{part}");
        }
        for part in ["task", "thread"] {
            assert_eq!(start(part).signal(), Some(libc::SIGABRT), "{part}");
        }
    }
}
