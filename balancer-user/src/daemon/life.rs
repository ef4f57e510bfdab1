//! A daemon's life: what it alone may use, its starts, and its end.
//!
//! A start that fails, also only when programs are to be put onto interfaces, is made once more with the other configuration, if
//! there is one (`choice`). Everything is anew then but the control socket: to make that takes rights that are given up by
//! then, and whoever asks there waits. Deliberately not here: the loop, and what a start does (`start`).

use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::info;

use crate::control::server::{self, Request};
use crate::control::socket::ControlSocket;
use crate::dataplane::object;
use crate::exit::{Exit, Failure};
use crate::privileges;
use crate::resolver::Resolver;

use super::census::Walked;
use super::choice::Choice;
use super::dashboard::Dashboard;
use super::start::{self, Ground, Started};
use super::traces::Traces;
use super::ways::{Wanted, Ways};
use super::{Daemon, Entry, Options, failed};

/// Requests of clients that wait for the loop; the server bounds them, too.
const REQUESTS: usize = 64;
/// For the disk to take what is left at the end; a disk that works takes milliseconds.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// The signals that the daemon knows.
pub(super) struct Signals {
    pub(super) terminate: UnixSignal,
    pub(super) interrupt: UnixSignal,
    pub(super) hang_up: UnixSignal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// The way to clients.
struct Control {
    socket: ControlSocket,
    serving: JoinHandle<()>,
    stop_serving: oneshot::Sender<()>,
    requests: mpsc::Sender<Request>,
    from_clients: mpsc::Receiver<Request>,
}

impl Control {
    fn open(options: &Options) -> Result<Self, Failure> {
        let (socket, listener) = ControlSocket::bind(&options.socket)?;
        // The last that took more: bpffs is mounted, and the socket is its group's.
        if let Err(error) = privileges::drop_unneeded() {
            let _ = socket.remove();
            return Err(failed(error));
        }
        let (requests, from_clients) = mpsc::channel(REQUESTS);
        let (stop_serving, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server::serve(listener, requests.clone(), async {
            let _ = stopped.await;
        }));
        Ok(Self { socket, serving, stop_serving, requests, from_clients })
    }

    async fn close(self) {
        // Nobody answers those who still wait.
        drop(self.from_clients);
        let _ = self.stop_serving.send(());
        let _ = self.serving.await;
        let _ = self.socket.remove();
    }
}

/// From the first lock to the last write.
pub(super) async fn live(options: &Options) -> Result<Exit, Failure> {
    // Before anything is changed, so that a signal never meets the default action with half of it done.
    let mut signals = Signals::new().map_err(failed)?;
    let resolver = Resolver::system();
    let mut choice = Choice::make(options, &resolver)?;
    // Before the first file is touched: everything below would only say "permission denied".
    object::require_capabilities()?;
    let ground = Ground::open(options)?;
    let mut control = match Control::open(options) {
        Ok(control) => control,
        Err(failure) => {
            ground.give_up();
            return Err(failure);
        }
    };
    let outcome = serve(ground, &mut choice, &mut signals, &mut control, options).await;
    control.close().await;
    outcome?.leave(options.detach_on_exit)
}

/// Serves with one configuration or the other, until somebody ends it.
async fn serve(
    ground: Ground,
    choice: &mut Choice<'_>,
    signals: &mut Signals,
    control: &mut Control,
    options: &Options,
) -> Result<Daemon, Failure> {
    let mut ground = Ok(ground);
    loop {
        match serve_with(ground, choice, signals, control, options).await {
            Ok(daemon) => return Ok(daemon),
            Err(failure) => choice.go_on_after(failure)?,
        }
        ground = Ground::open(options);
    }
}

/// Serves with what is chosen; an error is one of the start.
async fn serve_with(
    ground: Result<Ground, Failure>,
    choice: &Choice<'_>,
    signals: &mut Signals,
    control: &mut Control,
    options: &Options,
) -> Result<Daemon, Failure> {
    let started = start::start(choice, ground?, options).await?;
    let (mut daemon, walked) = Daemon::made(started, choice, &control.requests, options);
    let outcome = daemon.serve(signals, &mut control.from_clients, walked).await;
    daemon.dashboard.close().await;
    daemon.tell_the_end(outcome.as_ref().err(), options.detach_on_exit);
    match outcome {
        Ok(()) => Ok(daemon),
        Err(failure) => {
            daemon.give_up();
            Err(failure)
        }
    }
}

impl Daemon {
    /// From what was started. What is walked over is told by the receiver.
    fn made(
        started: Started,
        choice: &Choice<'_>,
        requests: &mpsc::Sender<Request>,
        options: &Options,
    ) -> (Self, mpsc::Receiver<Walked>) {
        let Started {
            parts,
            interfaces,
            found,
            watcher,
            flows,
            failures,
            tracer,
            traced,
            http,
            store,
            remembered,
        } = started;
        let (walked, from_counter) = mpsc::channel(1);
        let flows = (flows.into(), walked, failures, Traces::new(tracer, traced));
        let wanted = Wanted { interfaces: interfaces.places(), backends: parts.backends() };
        let kernel = (interfaces, Ways::start(watcher, wanted));
        let (files, told) = ((store, remembered), (choice.resolver().clone(), choice.accepted().clone()));
        let dashboard = Dashboard::new(requests.clone());
        let mut daemon = Self::new(parts, kernel, flows, files, told, dashboard, options);
        daemon.show(http);
        daemon.find_leaving(&found);
        daemon.ports_are_accepted();
        daemon.wait_on(choice.taken_back().cloned());
        daemon.redirect();
        (daemon, from_counter)
    }

    /// For the journal, and for those who follow it.
    fn tell_the_end(&mut self, failure: Option<&Failure>, detach: bool) {
        let evidence = match failure {
            Some(failure) => failure.to_string(),
            None if detach => "programs and maps are removed with it".to_owned(),
            None => "traffic goes on without it".to_owned(),
        };
        self.journal.note(Entry::stopped(&evidence), &self.store);
        self.journal.end();
    }

    /// Ends without ending the traffic, unless that is what was asked for.
    fn leave(self, detach: bool) -> Result<Exit, Failure> {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.store.finish(LAST_WRITES);
        if detach {
            let removed = self.parts.pins.remove()?;
            info!(event = "detached", pins = removed, "programs and maps are removed; traffic has ended");
        } else {
            info!(event = "stopped", "traffic goes on without the daemon; `balancer detach` would end it");
        }
        Ok(Exit::Ok)
    }

    /// The start failed: what it made goes.
    fn give_up(self) {
        self.store.finish(LAST_WRITES);
        if self.parts.fresh {
            start::abandon(self.parts.pins);
        }
    }
}
