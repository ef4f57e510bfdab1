//! The bodies of answers: a text in pieces that are freed as they are sent, and records or packets as they happen, without an
//! end.
//!
//! A client that doesn't take what it is sent is dropped by the server (`server`); here it only becomes visible whether the
//! client or the daemon is waited for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::protocol::{Record, TraceLine};
use super::server::Phase;

/// The body of any answer.
#[derive(Debug)]
pub(super) struct Body {
    pieces: VecDeque<Bytes>,
    bytes: u64,
    /// Given back with the last piece.
    place: Option<OwnedSemaphorePermit>,
    /// What comes after the pieces.
    feed: Option<Feed>,
}

/// What happens, a line each.
#[derive(Debug)]
pub(super) struct Feed {
    lines: Lines,
    phase: watch::Sender<Phase>,
}

#[derive(Debug)]
enum Lines {
    Records(Records),
    Packets(mpsc::Receiver<TraceLine>),
}

/// Records as they happen.
#[derive(Debug)]
struct Records {
    records: mpsc::Receiver<Arc<Record>>,
    /// Of this pool only.
    pool: Option<String>,
    /// Those up to this one were told already.
    told: u64,
    /// The last one that came.
    came: Option<u64>,
}

/// Records were made faster than the client took them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a client that follows events has missed some")]
pub(super) struct Missed;

impl From<Bytes> for Body {
    fn from(text: Bytes) -> Self {
        Self::of_pieces(vec![text], None)
    }
}

impl Body {
    /// A long answer keeps its place among those that there may be at once until it is sent, or given up.
    pub(super) fn of_pieces(pieces: Vec<Bytes>, place: Option<OwnedSemaphorePermit>) -> Self {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into(), bytes, place, feed: None }
    }

    /// First `past`, then what happens, a line each.
    pub(super) fn of_records(past: &[Record], place: OwnedSemaphorePermit, feed: Feed) -> Self {
        let text: Vec<u8> = past.iter().flat_map(line).collect();
        Self { feed: Some(feed), ..Self::of_pieces(vec![text.into()], Some(place)) }
    }

    /// What happens from now on.
    pub(super) fn of_feed(feed: Feed) -> Self {
        Self { feed: Some(feed), ..Self::of_pieces(Vec::new(), None) }
    }

    /// How the body is to be read.
    pub(super) const fn content_type(&self) -> &'static str {
        if self.feed.is_some() { "application/x-ndjson" } else { "application/json" }
    }
}

impl Feed {
    /// `told`: the id of the last record that the client is told of before.
    pub(super) const fn of_records(
        records: mpsc::Receiver<Arc<Record>>,
        pool: Option<String>,
        told: u64,
        phase: watch::Sender<Phase>,
    ) -> Self {
        Self { lines: Lines::Records(Records { records, pool, told, came: None }), phase }
    }

    /// What is missing of them they say themselves.
    pub(super) const fn of_packets(packets: mpsc::Receiver<TraceLine>, phase: watch::Sender<Phase>) -> Self {
        Self { lines: Lines::Packets(packets), phase }
    }

    /// The next line; `None` at the daemon's end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Missed>>> {
        match &mut self.lines {
            Lines::Records(records) => records.poll(context),
            Lines::Packets(packets) => {
                packets.poll_recv(context).map(|packet| packet.map(|packet| Ok(line(&packet).into())))
            }
        }
    }
}

impl Records {
    /// The next one that is wanted.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Missed>>> {
        loop {
            let Some(record) = ready!(self.records.poll_recv(context)) else { return Poll::Ready(None) };
            if self.came.replace(record.id).is_some_and(|before| before + 1 != record.id) {
                return Poll::Ready(Some(Err(Missed)));
            }
            let is_wanted = self.pool.is_none() || self.pool == record.pool;
            if is_wanted && record.id > self.told {
                return Poll::Ready(Some(Ok(line(&*record).into())));
            }
        }
    }
}

fn line(document: &impl Serialize) -> Vec<u8> {
    // Numbers and texts: nothing that JSON can't say.
    let mut line = serde_json::to_vec(document).unwrap_or_default();
    line.push(b'\n');
    line
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Missed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Missed>>> {
        if let Some(piece) = self.pieces.pop_front() {
            self.bytes -= piece.len() as u64;
            if self.pieces.is_empty() {
                self.place = None;
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(feed) = &mut self.feed else { return Poll::Ready(None) };
        let next = feed.poll(context);
        // The connection asks for more only when there is room for it, when the client has taken what was before: its time
        // begins anew.
        if next.is_pending() {
            feed.phase
                .send_if_modified(|phase| std::mem::replace(phase, Phase::Following) != Phase::Following);
        } else {
            feed.phase.send_replace(Phase::Sending);
        }
        next.map(|next| next.map(|line| line.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.feed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.feed.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::control::protocol::example;

    #[tokio::test]
    async fn a_place_is_given_back_with_the_last_piece() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().unwrap();
        let pieces = ["a", "bc", "d"].map(Bytes::from);
        let mut body = Body::of_pieces(pieces.to_vec(), Some(place));
        for (left, piece) in [(4, "a"), (3, "bc"), (1, "d")] {
            assert_eq!(places.available_permits(), 0, "before {piece}");
            assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(left));
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        assert_eq!(places.available_permits(), 1);
        assert!(body.frame().await.is_none());
    }

    fn record(id: u64, pool: &str) -> Arc<Record> {
        Arc::new(Record { id, pool: Some(pool.to_owned()), ..example::events().events[0].clone() })
    }

    /// The id in the next frame, or why there is none.
    async fn next(body: &mut Body) -> Option<Result<u64, Missed>> {
        let frame = body.frame().await?;
        Some(frame.map(|frame| {
            let line = frame.into_data().unwrap();
            serde_json::from_slice::<Record>(&line).unwrap().id
        }))
    }

    fn feed(pool: Option<&str>, told: u64) -> (mpsc::Sender<Arc<Record>>, watch::Receiver<Phase>, Body) {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (sender, records) = mpsc::channel(8);
        let (phase, seen) = watch::channel(Phase::Sending);
        let mut body =
            Body::of_records(&[], place, Feed::of_records(records, pool.map(ToOwned::to_owned), told, phase));
        // There was nothing before.
        body.pieces.clear();
        (sender, seen, body)
    }

    #[tokio::test]
    async fn records_come_once_and_only_those_that_are_wanted_until_the_daemon_ends() {
        let (sender, seen, mut body) = feed(Some("p"), 4);
        for (id, pool) in [(3, "p"), (4, "p"), (5, "p"), (6, "q"), (7, "p")] {
            sender.send(record(id, pool)).await.unwrap();
        }
        assert_eq!((next(&mut body).await, next(&mut body).await), (Some(Ok(5)), Some(Ok(7))));
        assert_eq!(*seen.borrow(), Phase::Sending);
        let pending = tokio::time::timeout(std::time::Duration::from_millis(1), next(&mut body)).await;
        assert!(pending.is_err() && *seen.borrow() == Phase::Following);
        drop(sender);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_gap_in_the_numbers_ends_it_as_an_error() {
        let (sender, _seen, mut body) = feed(None, 0);
        for id in [8, 9, 11] {
            sender.send(record(id, "p")).await.unwrap();
        }
        let all = [next(&mut body).await, next(&mut body).await, next(&mut body).await];
        assert_eq!(all, [Some(Ok(8)), Some(Ok(9)), Some(Err(Missed))]);
    }
}
