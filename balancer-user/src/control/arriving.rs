//! The flows document as it is read: flow by flow, while the rest of it is still under way, so that nobody ever has all of
//! it. How it is written is `listing`.
//!
//! Two sides, on a thread each, as whoever takes flows may block, on a pipe that nobody empties: one hands on what the
//! daemon sends, the other reads it. What is deliberately not here: what becomes of a flow.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::protocol::{Document as _, Flow, Flows, Timestamp};

/// Pieces between the two sides. Each is as long as what is read from a socket at once, 400 kB at the most.
const PIECES: usize = 4;
/// How long the daemon has to wait for a reader. It gives up after twice that, with the listing in its memory so far; what a
/// slow reader hasn't taken by then waits here, which is 256 MiB at the most.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// So much is looked through at a time.
const READ_BYTES: usize = 64 * 1024;

/// Where what arrives is handed on.
#[derive(Debug)]
pub struct Pieces(mpsc::Sender<Bytes>);

/// What has arrived; reading it waits for more.
#[derive(Debug)]
pub struct Text {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

/// Both sides.
#[must_use]
pub fn pair() -> (Pieces, Text) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (Pieces(sender), Text { pieces, piece: Bytes::new() })
}

impl Pieces {
    /// Hands on what arrives, no faster than it is read as long as there is `patience`. Returns what has not been handed on
    /// when all has arrived, or nobody reads any more.
    pub(super) async fn receive<B: Body<Data = Bytes> + Unpin>(
        &self,
        mut body: B,
        patience: Duration,
    ) -> Result<VecDeque<Bytes>, B::Error> {
        let mut waiting = VecDeque::new();
        let mut is_patient = true;
        let mut over = pin!(sleep(patience));
        loop {
            tokio::select! {
                frame = body.frame(), if waiting.is_empty() || !is_patient => {
                    let Some(frame) = frame else { return Ok(waiting) };
                    // Something else than data is of no interest.
                    waiting.extend(frame?.into_data());
                }
                place = self.0.reserve(), if !waiting.is_empty() => match (place, waiting.pop_front()) {
                    (Ok(place), Some(piece)) => place.send(piece),
                    _ => return Ok(VecDeque::new()),
                },
                () = &mut over, if is_patient => is_patient = false,
            }
        }
    }

    /// Hands on what is left, as it is read.
    pub(super) async fn hand_on(self, waiting: VecDeque<Bytes>) {
        for piece in waiting {
            if self.0.send(piece).await.is_err() {
                return;
            }
        }
    }
}

impl Read for Text {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let bytes = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..bytes]);
        Ok(bytes)
    }
}

/// What arrived is no listing that this version reads.
#[derive(Debug, thiserror::Error)]
pub enum Misread {
    /// A document with this schema.
    #[error("{0:?} instead of {schema}", schema = Flows::SCHEMA)]
    Schema(String),
    /// No JSON, or not filled in like a listing.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Takes a flow of a listing of this moment; returns whether more are wanted.
pub type Visit<'a> = dyn FnMut(Timestamp, Flow<'static>) -> bool + 'a;

/// Reads a listing to its end, or until no more of it is wanted. Returns when it was made.
///
/// # Errors
/// See [`Misread`]; flows before that have been visited.
pub fn each_flow(text: impl Read, visit: &mut Visit<'_>) -> Result<Timestamp, Misread> {
    let mut listing = Listing {
        is_ours: false,
        other_schema: None,
        as_of: None,
        has_flows: false,
        is_enough: false,
        visit,
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(READ_BYTES, text));
    let read = json.deserialize_map(&mut listing).and_then(|()| json.end());
    match (read, listing.as_of, listing.other_schema) {
        (Ok(()), Some(as_of), _) => Ok(as_of),
        (Err(_), Some(as_of), _) if listing.is_enough => Ok(as_of),
        (_, _, Some(schema)) => Err(Misread::Schema(schema)),
        (Err(error), ..) => Err(error.into()),
        (Ok(()), None, None) => Err(serde_json::Error::missing_field("as_of").into()),
    }
}

/// A listing that is being read.
struct Listing<'a, 'v> {
    is_ours: bool,
    other_schema: Option<String>,
    as_of: Option<Timestamp>,
    has_flows: bool,
    is_enough: bool,
    visit: &'a mut Visit<'v>,
}

impl<'de> Visitor<'de> for &mut Listing<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a listing of flows")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match key.as_ref() {
                "schema" => {
                    let schema: String = map.next_value()?;
                    self.is_ours = schema == Flows::SCHEMA;
                    if !self.is_ours {
                        self.other_schema = Some(schema);
                        return Err(M::Error::custom("another document"));
                    }
                }
                "as_of" => self.as_of = Some(map.next_value()?),
                // The daemon writes the others first, so nothing is shown of what may be another document.
                "flows" if !self.is_ours => return Err(M::Error::missing_field("schema")),
                "flows" => {
                    let as_of = self.as_of.ok_or_else(|| M::Error::missing_field("as_of"))?;
                    map.next_value_seed(Each { listing: self, as_of })?;
                    self.has_flows = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if self.has_flows { Ok(()) } else { Err(M::Error::missing_field("flows")) }
    }
}

/// Its flows.
struct Each<'l, 'a, 'v> {
    listing: &'l mut Listing<'a, 'v>,
    as_of: Timestamp,
}

impl<'de> DeserializeSeed<'de> for Each<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flows")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut flows: S) -> Result<(), S::Error> {
        while let Some(flow) = flows.next_element()? {
            if !(self.listing.visit)(self.as_of, flow) {
                self.listing.is_enough = true;
                return Err(S::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::time::timeout;

    use super::*;
    use crate::control::body::Body as Pieced;
    use crate::control::protocol::example;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn read(text: &str) -> Result<Flows, Misread> {
        let mut flows = Vec::new();
        let as_of = each_flow(text.as_bytes(), &mut |_, flow| {
            flows.push(flow);
            true
        })?;
        Ok(Flows { as_of, flows, ..example::flows() })
    }

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        let mut document = example::flows();
        assert_eq!(read(example::FLOWS).unwrap(), document);
        document.flows.clear();
        assert_eq!(read(&serde_json::to_string(&document).unwrap()).unwrap(), document);
        let newer = r#"{"more": [1], "schema": "balancer.flows/1", "as_of": "2026-01-02T03:04:05.678Z", "flows": [], "daemon": null}"#;
        assert_eq!(read(newer).unwrap(), document);
    }

    #[test]
    fn what_is_no_listing_is_told_by_what_is_wrong_with_it() {
        let cases = [
            (
                r#"{"schema": "balancer.flows/2", "flows": {}}"#,
                r#""balancer.flows/2" instead of balancer.flows/1"#,
            ),
            (r#"{"schema": "balancer.flows/1", "flows": []}"#, "missing field `as_of`"),
            (r#"{"as_of": "2026-01-02T03:04:05.678Z", "flows": []}"#, "missing field `schema`"),
            (
                r#"{"schema": "balancer.flows/1", "as_of": "2026-01-02T03:04:05.678Z"}"#,
                "missing field `flows`",
            ),
            (r#"{"schema": "balancer.flows/1", "as_of": "now"}"#, "is not an RFC 3339 time"),
            (r#"{"schema": "balancer.flows/1", "as_of": "2026-01-02T03:04:05.678Z", "flows": ["#, "EOF"),
            (
                r#"{"schema": "balancer.flows/1", "as_of": "2026-01-02T03:04:05.678Z", "flows": [{}]}"#,
                "missing field",
            ),
            ("[]", "expected a listing of flows"),
            ("<html>", "expected value"),
            ("", "EOF"),
        ];
        for (text, wrong) in cases {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(wrong), "{text}: {said}");
        }
        assert!(read(&format!("{} x", example::FLOWS)).is_err(), "something comes after it");
    }

    #[test]
    fn a_flow_is_taken_before_the_next_one_arrives() {
        let (Pieces(pieces), text) = pair();
        let (taken, seen) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            each_flow(text, &mut |_, flow| {
                taken.send(flow).unwrap();
                true
            })
        });
        let document = example::flows();
        // Each piece ends with a flow.
        let mut ends: Vec<_> = example::FLOWS.match_indices('}').map(|(at, _)| at + 1).collect();
        ends.truncate(document.flows.len());
        let mut from = 0;
        for (end, flow) in ends.into_iter().zip(&document.flows) {
            pieces.blocking_send(Bytes::from(&example::FLOWS[from..end])).unwrap();
            assert_eq!(&seen.recv_timeout(DEADLINE).unwrap(), flow);
            from = end;
        }
        pieces.blocking_send(Bytes::from(&example::FLOWS[from..])).unwrap();
        drop(pieces);
        assert_eq!(reader.join().unwrap().unwrap(), document.as_of);
    }

    #[test]
    fn who_has_enough_is_asked_no_more() {
        let mut taken = 0;
        let read = each_flow(example::FLOWS.as_bytes(), &mut |_, _| {
            taken += 1;
            false
        });
        assert_eq!((read.unwrap(), taken), (example::flows().as_of, 1));
    }

    fn body(pieces: usize) -> Pieced {
        Pieced::of_pieces(vec![Bytes::from_static(b"piece"); pieces], None)
    }

    #[tokio::test]
    async fn no_more_is_taken_than_is_read_until_patience_is_over() {
        const MANY: usize = 1000;
        let (pieces, mut text) = pair();
        // As long as somebody waits for it; then all is here, whoever reads.
        assert!(timeout(Duration::from_millis(50), pieces.receive(body(MANY), DEADLINE)).await.is_err());
        assert_eq!(text.pieces.len(), PIECES);
        while text.pieces.try_recv().is_ok() {}
        let waiting = timeout(DEADLINE, pieces.receive(body(MANY), Duration::ZERO)).await.unwrap().unwrap();
        assert_eq!(waiting.len(), MANY - PIECES);
        let handing = tokio::spawn(pieces.hand_on(waiting));
        let mut read = 0;
        while text.pieces.recv().await.is_some() {
            read += 1;
        }
        handing.await.unwrap();
        assert_eq!(read, MANY);
    }

    #[tokio::test]
    async fn nothing_is_taken_for_nobody() {
        let (pieces, text) = pair();
        drop(text);
        let left = timeout(DEADLINE, pieces.receive(body(1000), DEADLINE)).await.unwrap();
        assert!(left.unwrap().is_empty());
    }
}
