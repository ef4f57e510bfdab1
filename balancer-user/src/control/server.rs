//! The control API's server: takes connections, bounds what each may cost, lets the daemon's loop answer.
//!
//! One request a connection. Every wait on a client has a deadline; a connection that the daemon isn't working for
//! may be dropped in favour of a new one, oldest first, once it had its grace time to hand in its request. So a
//! thousand idle clients cost a bounded number of descriptors and delay an operator by a bounded time.
//!
//! What is deliberately not here: any decision. What may be asked is in `route`, what is answered in the daemon.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::panics::alone;

use super::body::{Body, Feed};
use super::listing::Listing;
use super::protocol::{
    Command, Events, EventsQuery, EventsSchema, FlowsQuery, Outcome, Record, ReloadCommand, Reloaded, Stats,
    Status, Timestamp, TraceLine, TraceQuery, Why, WhyQuery,
};
use super::route::{self, Peer};
use super::spare::Spare;

/// What the daemon's loop is asked, each with the way back. The asker may be gone when the answer comes: then
/// sending it fails, which means nothing.
#[derive(Debug)]
pub enum Request {
    /// The status document.
    Status(oneshot::Sender<Status>),
    /// The counters.
    Stats(oneshot::Sender<Stats>),
    /// Both, of one moment and one walk over the flows.
    Picture(oneshot::Sender<(Status, Stats)>),
    /// Live flows; refused with a sentence when it names what there isn't, or when there are too many.
    Flows(FlowsQuery, oneshot::Sender<Result<Listing, String>>),
    /// What happened; refused with a sentence when it can't be told.
    Events(EventsQuery, oneshot::Sender<Result<Told, String>>),
    /// What led to a pool's active backend; refused as above.
    Why(WhyQuery, oneshot::Sender<Result<Why, String>>),
    /// Packets from now on; refused as above.
    Trace(TraceQuery, oneshot::Sender<Result<mpsc::Receiver<TraceLine>, String>>),
    /// Something that somebody wants done; answered when it is, or refused with a sentence that says why.
    Command(Command, Asker, oneshot::Sender<Result<Outcome, String>>),
    /// The configuration once more, wanted by this user.
    Reload(ReloadCommand, u32, oneshot::Sender<Result<Reloaded, NotReloaded>>),
}

/// Who wants something done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// This user, by the control socket.
    User(u32),
    /// Somebody with the dashboard's token, from this address.
    Dashboard(SocketAddr),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Dashboard(peer) => write!(f, "http from {peer}"),
        }
    }
}

/// Why a configuration did not take the place of the one that runs; everything is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// It is not valid: every error, with its place.
    Invalid(String),
    /// It may not, or can't, for this reason.
    Refused(String),
}

/// What happened, and, for who follows, what happens.
#[derive(Debug)]
pub struct Told {
    /// When it was read.
    pub as_of: Timestamp,
    /// Oldest first.
    pub past: Vec<Record>,
    /// Every record from then on. One that is in `past` as well may come again, and none is left out but where a number is
    /// missing: then the reader was too slow.
    pub live: Option<mpsc::Receiver<Arc<Record>>>,
}

/// What one client, and all together, may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once. A descriptor each: a quarter of the usual soft limit of 1024.
    pub(super) connections: usize,
    /// Listings in memory at once, each as long as `listing::MAX_LISTING_BYTES` at most: the others wait.
    pub(super) listings: usize,
    /// Journals in memory at once, each some 12 MiB at most: the others wait.
    pub(super) journals: usize,
    /// For a whole request to arrive.
    pub(super) receive: Duration,
    /// For the daemon to answer a question; its loop never takes long.
    pub(super) answer: Duration,
    /// For the daemon to carry out a command, hooks and the operator's `resume` included: a day, and less than the client's
    /// own limit, so that the client is told.
    pub(super) carry_out: Duration,
    /// For the client to take the answer.
    pub(super) send: Duration,
    /// What every client has to hand in its request, however many others wait.
    pub(super) grace: Duration,
    /// For answers under way when the daemon stops.
    pub(super) stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            listings: 1,
            journals: 2,
            receive: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            carry_out: Duration::from_secs(24 * 3600),
            send: Duration::from_secs(10),
            grace: Duration::from_millis(200),
            stop: Duration::from_secs(1),
        }
    }
}

/// Longest request line and headers; with `route::MAX_BODY_BYTES` a request is at most 64 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who has to do something for a connection to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client: hand in its request.
    Receiving,
    /// The daemon: answer it.
    Asking,
    /// The client: take the answer.
    Sending,
    /// The daemon: have something happen that the client wants to hear of.
    Following,
}

/// Serves `listener` until `shutdown` ends; then answers under way get a moment, and the rest is dropped.
pub async fn serve(
    listener: UnixListener,
    requests: mpsc::Sender<Request>,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), listener, requests, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: UnixListener,
    requests: mpsc::Sender<Request>,
    shutdown: impl Future<Output = ()>,
) {
    let semaphore = |places| Arc::new(Semaphore::new(places));
    let places = Places { listings: semaphore(limits.listings), journals: semaphore(limits.journals) };
    let mut connections = Connections { limits, places, open: VecDeque::new(), tasks: JoinSet::new() };
    tokio::select! {
        () = accept_all(&mut connections, &listener, &requests) => {}
        () = shutdown => {}
    }
    drop(listener);
    connections.finish().await;
}

async fn accept_all(
    connections: &mut Connections,
    listener: &UnixListener,
    requests: &mpsc::Sender<Request>,
) {
    let mut spare = Spare::beside(listener);
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.make_room().await;
                connections.open(stream, requests.clone());
                spare.keep(listener);
                is_told = false;
            }
            Err(error) if spare.helps(&error) => {}
            Err(error) => {
                if !is_told {
                    tracing::warn!(%error, "the control socket cannot accept a connection");
                }
                is_told = true;
                connections.drop_one_that_is_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open, oldest first.
struct Connections {
    limits: Limits,
    places: Places,
    open: VecDeque<Connection>,
    tasks: JoinSet<()>,
}

/// For answers that are large.
#[derive(Clone)]
struct Places {
    listings: Arc<Semaphore>,
    journals: Arc<Semaphore>,
}

struct Connection {
    accepted: Instant,
    phase: watch::Receiver<Phase>,
    task: AbortHandle,
}

impl Connection {
    fn waits_for_its_client(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Receiving | Phase::Sending)
    }
}

impl Connections {
    fn open(&mut self, stream: UnixStream, requests: mpsc::Sender<Request>) {
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer::new(&credentials),
            Err(error) => {
                tracing::warn!(%error, "a client of the control socket without credentials is dropped");
                return;
            }
        };
        let (phase, seen) = watch::channel(Phase::Receiving);
        let places = self.places.clone();
        let task = self.tasks.spawn(alone(attend(self.limits, stream, peer, (requests, places), phase)));
        self.open.push_back(Connection { accepted: Instant::now(), phase: seen, task });
    }

    /// Waits until one more connection may be open, and drops the oldest idle one for it if need be.
    async fn make_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.open.retain(|connection| !connection.task.is_finished());
            if self.open.len() < self.limits.connections {
                return;
            }
            if self.drop_one_that_is_idle() {
                return;
            }
            let wait = self.oldest_idle().map(|(_, evictable)| evictable);
            let wait = wait.unwrap_or_else(|| Instant::now() + self.limits.grace);
            tokio::select! {
                _ = self.tasks.join_next() => {}
                () = sleep_until(wait) => {}
            }
        }
    }

    /// The oldest that waits for its client, and when its time for that is over.
    fn oldest_idle(&self) -> Option<(usize, Instant)> {
        let index = self.open.iter().position(Connection::waits_for_its_client)?;
        Some((index, self.open[index].accepted + self.limits.grace))
    }

    /// If there is one whose time is over.
    fn drop_one_that_is_idle(&mut self) -> bool {
        let idle = self.oldest_idle().filter(|(_, evictable)| Instant::now() >= *evictable);
        if let Some((index, _)) = idle {
            self.open[index].task.abort();
            self.open.remove(index);
        }
        idle.is_some()
    }

    async fn finish(mut self) {
        for connection in &self.open {
            if *connection.phase.borrow() == Phase::Receiving {
                connection.task.abort();
            }
        }
        let all_over = async { while self.tasks.join_next().await.is_some() {} };
        // Those that are not over by then are aborted by the drop of `tasks`.
        let _elapsed = timeout(self.limits.stop, all_over).await;
    }
}

/// One connection, from its first byte to its last, dropped when a phase takes too long.
async fn attend(
    limits: Limits,
    stream: UnixStream,
    peer: Peer,
    (requests, places): (mpsc::Sender<Request>, Places),
    phase: watch::Sender<Phase>,
) {
    let mut seen = phase.subscribe();
    let daemon = Daemon { requests: &requests, places: &places, limits, phase: &phase };
    let service = service_fn(async |request| {
        let response = route::respond(request, peer, &daemon).await;
        phase.send_replace(Phase::Sending);
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // The deadline below bounds headers and body together.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        let patience = match *seen.borrow_and_update() {
            Phase::Receiving => limits.receive,
            // The wait for the daemon is bounded where it is asked, with an answer that says so.
            // What the daemon tells of its own accord may take for ever.
            Phase::Asking | Phase::Following => Duration::MAX,
            Phase::Sending => limits.send,
        };
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, uid = peer.uid, "a control connection ended early");
                }
                return;
            }
            changed = seen.changed() => debug_assert!(changed.is_ok(), "the sender lives as long as this"),
            () = sleep(patience) => {
                tracing::debug!(uid = peer.uid, "a slow control client is dropped");
                return;
            }
        }
    }
}

/// The way from a request to the daemon's loop and back.
pub(super) struct Daemon<'a> {
    requests: &'a mpsc::Sender<Request>,
    places: &'a Places,
    limits: Limits,
    phase: &'a watch::Sender<Phase>,
}

/// Why the daemon's loop gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// It is about to exit.
    #[error("the daemon is stopping")]
    Stopping,
    /// It takes too long.
    #[error(
        "no answer from the daemon within {0:?}: look at its log; `balancer status` shows what it is doing"
    )]
    Late(Duration),
}

impl Daemon<'_> {
    /// Asks a question.
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, NoAnswer> {
        self.within(self.limits.answer, self.exchange(request)).await
    }

    /// Asks for a listing, when there is a place for one.
    pub(super) async fn list(&self, query: FlowsQuery) -> Result<Result<Body, String>, NoAnswer> {
        let listing = async {
            let place = self.places.listings.clone().acquire_owned().await;
            let place = place.map_err(|_| NoAnswer::Stopping)?;
            let listing = self.exchange(|reply| Request::Flows(query, reply)).await?;
            Ok(listing.map(|listing| Body::of_pieces(listing.into_pieces(), Some(place))))
        };
        self.within(self.limits.answer, listing).await
    }

    /// Asks what happened, when there is a place for it, and maybe goes on with what happens.
    pub(super) async fn events(&self, query: EventsQuery) -> Result<Result<Body, String>, NoAnswer> {
        let pool = query.pool.clone();
        let events = async {
            let place = self.places.journals.clone().acquire_owned().await;
            let place = place.map_err(|_| NoAnswer::Stopping)?;
            let told = self.exchange(|reply| Request::Events(query, reply)).await?;
            Ok(told.and_then(|Told { as_of, past, live }| {
                if let Some(live) = live {
                    let last = past.last().map_or(0, |record| record.id);
                    let feed = Feed::of_records(live, pool, last, self.phase.clone());
                    return Ok(Body::of_records(&past, place, feed));
                }
                let document = Events { schema: EventsSchema::V1, as_of, events: past };
                let text = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
                Ok(Body::of_pieces(vec![text.into()], Some(place)))
            }))
        };
        self.within(self.limits.answer, events).await
    }

    /// Asks for packets from now on.
    pub(super) async fn trace(&self, query: TraceQuery) -> Result<Result<Body, String>, NoAnswer> {
        let packets = self.ask(|reply| Request::Trace(query, reply)).await?;
        Ok(packets.map(|packets| Body::of_feed(Feed::of_packets(packets, self.phase.clone()))))
    }

    /// Has a command carried out.
    pub(super) async fn tell(&self, command: Command, uid: u32) -> Result<Result<Outcome, String>, NoAnswer> {
        let told = self.exchange(|reply| Request::Command(command, Asker::User(uid), reply));
        self.within(self.limits.carry_out, told).await
    }

    /// Has the configuration read once more.
    pub(super) async fn reload(
        &self,
        command: ReloadCommand,
        uid: u32,
    ) -> Result<Result<Reloaded, NotReloaded>, NoAnswer> {
        let reloaded = self.exchange(|reply| Request::Reload(command, uid, reply));
        self.within(self.limits.carry_out, reloaded).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, NoAnswer>>,
    ) -> Result<T, NoAnswer> {
        self.phase.send_replace(Phase::Asking);
        timeout(limit, answer).await.unwrap_or(Err(NoAnswer::Late(limit)))
    }

    async fn exchange<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| NoAnswer::Stopping)?;
        answer.await.map_err(|_| NoAnswer::Stopping)
    }
}
