//! A program's life from its start until nobody of its group is left: the task that owns it, whoever waits for its result.
//!
//! ```text
//!            exits            Killed: KILL to the group.  LeftToDeadline: the group until the deadline, then as below
//! running ─┬──────────────►   report
//!          │ deadline         Killed: report, then TERM, grace, KILL.  LeftToDeadline: TERM, grace, KILL, then report
//!          ├──────────────►
//!          │ nobody waits     Killed: KILL to the group.  LeftToDeadline: nothing changes
//!          └──────────────►
//! ```
//!
//! It also waits for the program, however late that ends: no zombie is left.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::start::{self, Running};
use super::{Call, Ending, Report, Rest};

/// Between TERM and KILL: long enough to write a last line and remove a file. A program with a shorter timeout has that once
/// more, so that probes which must be ended never pile up.
const GRACE: Duration = Duration::from_secs(2);

/// KILL works at once, unless the program hangs in the kernel; then its result doesn't wait for it.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// What a child of an exited program may still have to say (`… | tee`): long enough for a busy machine.
const DRAIN: Duration = Duration::from_millis(100);

/// How often to look whether somebody is left of a group.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A day more than the longest timeout of a configuration; keeps the arithmetic on deadlines from overflowing.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(366 * 86_400);

/// Why watching a running program ended.
enum Event {
    Exited,
    TimeIsOver,
    NobodyWaits,
}

/// Runs a program and everything that follows; `asker` gets the report as soon as it stands.
pub(super) async fn keep(call: Call, mut asker: oneshot::Sender<Report>) {
    let asked = Instant::now();
    let timeout = call.timeout.min(LONGEST_TIMEOUT);
    let deadline = asked + timeout;
    let rest = call.rest;
    // Whoever started the daemon may have told the kernel to ignore SIGCHLD, which would lose every exit status.
    let _ = signal(SignalKind::child());
    let mut starting = spawn_blocking(move || start::start(call));
    let running = match timeout_at(deadline, &mut starting).await {
        Ok(Ok(Ok(running))) => running,
        Ok(Ok(Err(ending))) => return answer(asker, Report::unheard(ending, asked.elapsed())),
        Ok(Err(error)) => {
            let ending = Ending::LocalFault(io::Error::other(error));
            return answer(asker, Report::unheard(ending, asked.elapsed()));
        }
        Err(_) => {
            // The file system hangs, or the machine does.
            answer(asker, Report::unheard(Ending::TimedOut, timeout));
            if let Ok(Ok(running)) = starting.await {
                Keeper { running, deadline, grace: Duration::ZERO }.kill().await;
            }
            return;
        }
    };
    let mut keeper = Keeper { running, deadline, grace: timeout.min(GRACE) };
    match keeper.watch(&mut asker).await {
        Event::Exited => {
            let took = asked.elapsed();
            let ending = keeper.exited();
            keeper.drain().await;
            answer(asker, Report { ending, took, output: keeper.running.streams.take() });
            if rest == Rest::LeftToDeadline && !keeper.is_over_by(deadline).await {
                keeper.end().await;
            }
        }
        Event::TimeIsOver => {
            let took = asked.elapsed();
            let report = |keeper: &mut Keeper| Report {
                ending: Ending::TimedOut,
                took,
                output: keeper.running.streams.take(),
            };
            match rest {
                Rest::Killed => {
                    answer(asker, report(&mut keeper));
                    keeper.end().await;
                }
                Rest::LeftToDeadline => {
                    keeper.end().await;
                    answer(asker, report(&mut keeper));
                }
            }
            keeper.bury().await;
        }
        Event::NobodyWaits => keeper.kill().await,
    }
}

/// Nobody may want it any more.
fn answer(asker: oneshot::Sender<Report>, report: Report) {
    let _ = asker.send(report);
}

struct Keeper {
    running: Running,
    deadline: Instant,
    grace: Duration,
}

impl Keeper {
    /// Feeds it and listens to it until something happens.
    async fn watch(&mut self, asker: &mut oneshot::Sender<Report>) -> Event {
        let Running { group, streams, .. } = &mut self.running;
        loop {
            tokio::select! {
                // When this process stood still, the program may have ended long before the deadline passed.
                biased;
                () = group.exited() => return Event::Exited,
                () = asker.closed(), if group.rest() == Rest::Killed => return Event::NobodyWaits,
                () = sleep_until(self.deadline) => return Event::TimeIsOver,
                () = streams.go_on() => {}
            }
        }
    }

    /// The program has exited: how.
    fn exited(&mut self) -> Ending {
        let group = &mut self.running.group;
        if group.rest() == Rest::Killed {
            group.signal(Signal::KILL);
        }
        match group.wait() {
            Ok(status) => ending(status),
            Err(error) => Ending::LocalFault(error),
        }
    }

    /// Reads what is there, and a little longer where somebody still holds the pipe.
    async fn drain(&mut self) {
        let streams = &mut self.running.streams;
        streams.close_input();
        let rest = async {
            while streams.are_heard() {
                streams.go_on().await;
            }
        };
        let _ = timeout_at(Instant::now() + DRAIN, rest).await;
    }

    /// Ends everybody: asked first, then not. The program itself may have to be [buried](Self::bury).
    async fn end(&mut self) {
        self.running.group.signal_all(Signal::TERM);
        if !self.is_over_by(Instant::now() + self.grace).await {
            self.running.group.signal_all(Signal::KILL);
            self.is_over_by(Instant::now() + KILLED_WITHIN).await;
        }
    }

    /// Throws away what is said until the group is known to be empty, or until then; says whether it is. Of a group that
    /// ends with its program this is never known: it is left once that has exited.
    async fn is_over_by(&mut self, until: Instant) -> bool {
        let Running { group, streams, .. } = &mut self.running;
        while Instant::now() < until && !group.waited_for() {
            tokio::select! {
                () = group.exited() => match group.rest() {
                    Rest::Killed => return false,
                    Rest::LeftToDeadline => drop(group.wait()),
                },
                () = sleep_until(until) => {}
                () = streams.go_on() => {}
            }
        }
        while group.waited_for() && !group.is_empty() {
            let now = Instant::now();
            if now >= until {
                return false;
            }
            let listen = async {
                loop {
                    streams.go_on().await;
                }
            };
            let _ = timeout_at(until.min(now + LOOK_EVERY), listen).await;
        }
        group.waited_for()
    }

    async fn kill(mut self) {
        self.running.group.signal_all(Signal::KILL);
        self.bury().await;
    }

    /// Waits for the program, which has got its KILL.
    async fn bury(&mut self) {
        let group = &mut self.running.group;
        if !group.waited_for() {
            group.exited().await;
            // Its report was made without it.
            let _ = group.wait();
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(signal)) => Ending::Signalled(signal),
        (None, None) => Ending::LocalFault(io::Error::other(format!("{status}"))),
    }
}
