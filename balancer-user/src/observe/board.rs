//! One picture at a time, for all who look at the dashboard: made every second while somebody does, and at once when
//! something has happened.
//!
//! What happened is followed as `balancer events --follow` does, and the newest of it kept. A picture costs the same however
//! many look; nobody has more than one that waits for him, as a newer one takes its place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use hyper::body::Frame;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::config::Token;
use crate::control::protocol::{EventsQuery, Record};
use crate::control::server::{Request, Told};
use crate::panics::alone_in_a_thread;

use super::picture;

/// From one picture to the next while nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// And while much does: a failover's records come within some milliseconds.
const GAP: Duration = Duration::from_millis(100);
/// Of what happened, the newest: two screens of it.
const KEPT: usize = 200;
/// A browser that lost the connection tries again after a second.
const RETRY: &[u8] = b"retry: 1000\n\n";
/// For the daemon's loop to tell what there is.
const ANSWER: Duration = Duration::from_secs(10);
/// For the journal to be read: on a disk that hangs it isn't, and pictures are made without it.
const PAST: Duration = Duration::from_secs(2);

/// A picture, in the pieces that all who look are sent.
#[derive(Debug)]
pub(super) struct Shot {
    made: Instant,
    state: Piece,
    news: Piece,
    /// Counts up with what happened.
    edition: u64,
}

/// A server-sent event.
#[derive(Debug)]
struct Piece {
    text: Bytes,
    /// Where in it the JSON begins.
    json: usize,
}

impl Piece {
    /// JSON has no line breaks of its own.
    fn new(event: &str, json: &str) -> Self {
        let head = format!("event: {event}\ndata: ");
        Self { text: format!("{head}{json}\n\n").into(), json: head.len() }
    }

    fn json(&self) -> Bytes {
        self.text.slice(self.json..self.text.len() - 2)
    }
}

/// Where pictures are had, until their maker ends.
#[derive(Debug)]
pub(super) struct Board {
    shots: watch::Receiver<Option<Arc<Shot>>>,
    wanted: Arc<Notify>,
}

impl Board {
    /// With whoever makes the pictures, to be run.
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        token: watch::Receiver<Option<Token>>,
    ) -> (Self, impl Future<Output = ()>) {
        let (shots, seen) = watch::channel(None);
        let wanted = Arc::<Notify>::default();
        let maker =
            Maker { shots, wanted: wanted.clone(), requests, token, news: VecDeque::new(), edition: 0 };
        (Self { shots: seen, wanted }, maker.run())
    }

    /// One that is not older than the next would be; none: the daemon is starting, stopping or stuck.
    pub(super) async fn shot(&self) -> Option<Arc<Shot>> {
        let mut seen = self.shots.clone();
        // As old as the last may be now: one that takes its time to be made is as good.
        let asked = Instant::now();
        let is_fresh = |shot: &Option<Arc<Shot>>| shot.as_ref().is_some_and(|shot| shot.made + TICK > asked);
        if !is_fresh(&seen.borrow()) {
            self.wanted.notify_one();
        }
        let fresh = timeout(ANSWER, seen.wait_for(is_fresh)).await.ok()?.ok()?;
        fresh.clone()
    }

    /// Pictures as they are made, as server-sent events. `took` is called for each that there was room for.
    pub(super) fn stream<T: FnMut() + Send + 'static>(
        &self,
        took: T,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<T> {
        let mut seen = self.shots.clone();
        seen.mark_changed();
        // The first is as old as the last may be, and then there is one every second.
        self.wanted.notify_one();
        let pieces = stream::unfold((seen, took, None), |(mut seen, mut took, told)| async move {
            let shot = loop {
                // The maker has ended: so does this.
                seen.changed().await.ok()?;
                if let Some(shot) = seen.borrow_and_update().clone() {
                    break shot;
                }
            };
            took();
            let edition = Some(shot.edition);
            let first = told.is_none().then(|| Bytes::from_static(RETRY));
            let news = (told != edition).then(|| shot.news.text.clone());
            let pieces = [first, news, Some(shot.state.text.clone())];
            Some((stream::iter(pieces.into_iter().flatten()), (seen, took, edition)))
        });
        pieces.flatten().map(|piece| Ok(Frame::data(piece)))
    }
}

impl Shot {
    /// Everything, as JSON.
    pub(super) fn state(&self) -> Bytes {
        self.state.json()
    }

    /// What happened, as JSON.
    pub(super) fn news(&self) -> Bytes {
        self.news.json()
    }
}

/// Makes the pictures.
struct Maker {
    shots: watch::Sender<Option<Arc<Shot>>>,
    wanted: Arc<Notify>,
    requests: mpsc::Sender<Request>,
    token: watch::Receiver<Option<Token>>,
    news: VecDeque<Arc<Record>>,
    edition: u64,
}

/// Records as they come.
type Live = mpsc::Receiver<Arc<Record>>;

impl Maker {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut live: Option<Live> = None;
        let mut next = Instant::now();
        while !self.requests.is_closed() {
            if live.is_none() {
                live = self.follow().await;
            }
            let is_seen = self.is_seen();
            tokio::select! {
                _ = tick.tick(), if is_seen || live.is_none() => {}
                () = self.wanted.notified() => {}
                record = heard(&mut live), if live.is_some() => {
                    live = live.filter(|_| self.takes(record));
                    if !is_seen {
                        continue;
                    }
                }
            }
            sleep_until(next).await;
            while let Some(record) = live.as_mut().and_then(|live| live.try_recv().ok()) {
                live = live.filter(|_| self.takes(Some(record)));
            }
            if self.is_seen()
                && let Some(shot) = self.shoot().await
            {
                self.shots.send_replace(Some(Arc::new(shot)));
            }
            next = Instant::now() + GAP;
        }
    }

    /// Whether anybody looks, beside the board.
    fn is_seen(&self) -> bool {
        self.shots.receiver_count() > 1
    }

    /// Keeps a record; false: some are missing, and it has to be begun anew.
    fn takes(&mut self, record: Option<Arc<Record>>) -> bool {
        let Some(record) = record else { return false };
        let last = self.news.back().map(|last| last.id);
        if last.is_some_and(|last| record.id <= last) {
            return true;
        }
        if last.is_some_and(|last| record.id != last + 1) {
            return false;
        }
        if self.news.len() == KEPT {
            self.news.pop_front();
        }
        self.news.push_back(record);
        self.edition += 1;
        true
    }

    /// What happened so far, and what happens.
    async fn follow(&mut self) -> Option<Live> {
        let query = EventsQuery { pool: None, limit: KEPT as u64, follow: true };
        let told = ask(&self.requests, |reply| Request::Events(query, reply));
        let Told { past, live, .. } = timeout(PAST, told).await.ok()??.ok()?;
        self.news = past.into_iter().map(Arc::new).collect();
        self.edition += 1;
        live
    }

    async fn shoot(&self) -> Option<Shot> {
        let made = Instant::now();
        let (status, stats) = timeout(ANSWER, ask(&self.requests, Request::Picture)).await.ok()??;
        let (news, edition) = (self.news.clone(), self.edition);
        let may_act = self.token.borrow().is_some();
        // Of thousands of backends that takes its time, and the loop has none.
        let drawn = spawn_blocking(alone_in_a_thread(move || {
            let news = picture::news(news.iter().map(AsRef::as_ref), &status);
            (Piece::new("state", &picture::state(&status, &stats, may_act)), Piece::new("news", &news))
        }));
        let (state, news) = drawn.await.ok()?;
        Some(Shot { made, state, news, edition })
    }
}

async fn heard(live: &mut Option<Live>) -> Option<Arc<Record>> {
    live.as_mut()?.recv().await
}

/// One question to the daemon's loop; none: it is not there any more.
pub(super) async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    question: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    requests.send(question(reply)).await.ok()?;
    answer.await.ok()
}
