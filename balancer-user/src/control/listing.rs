//! The flows document as it is written: flow by flow, by whoever meets the flows, into pieces that are freed as they are
//! sent. A million flows are 160 MB of JSON: as one value and then one text they would be several times that.
//!
//! What is deliberately not here: which flows there are, and who may ask; see `daemon` and `server`.

use bytes::Bytes;
use serde::Serialize;

use super::protocol::{Flow, FlowsSchema, Timestamp};

/// The longest listing, which is what the daemon may grow by; flows of about 160 bytes make 1.6 million. More than the
/// default tables hold, all four of them full, and less than a table of 16 million would make.
pub(super) const MAX_LISTING_BYTES: usize = 256 * 1024 * 1024;
/// So much is freed, and handed to the socket, at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Between the head of the document, as a struct without flows, and its end.
const TAIL: &[u8] = b"]}";

/// A listing in the making.
#[derive(Debug)]
pub struct ListingWriter {
    pieces: Vec<Bytes>,
    piece: Vec<u8>,
    /// In whole pieces.
    bytes: usize,
    flows: u64,
    max_bytes: usize,
}

/// The document, complete.
#[derive(Debug)]
pub struct Listing(Vec<Bytes>);

impl Listing {
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        self.0
    }

    /// All of it, once more.
    #[cfg(test)]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }
}

/// A listing that would be longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {flows} flows are more than one answer may hold ({max_bytes} bytes): \
     narrow it down with --pool, --backend or --client, or take some with --limit"
)]
pub struct TooLong {
    flows: u64,
    max_bytes: usize,
}

#[derive(Serialize)]
struct Head {
    schema: FlowsSchema,
    as_of: Timestamp,
    flows: [(); 0],
}

impl ListingWriter {
    /// With no flows yet.
    #[must_use]
    pub fn new(as_of: Timestamp) -> Self {
        Self::within(MAX_LISTING_BYTES, as_of)
    }

    fn within(max_bytes: usize, as_of: Timestamp) -> Self {
        let mut piece = json(&Head { schema: FlowsSchema::V1, as_of, flows: [] });
        piece.truncate(piece.len() - TAIL.len());
        Self { pieces: Vec::new(), piece, bytes: 0, flows: 0, max_bytes }
    }

    /// One more. Returns whether a piece is complete: a good moment to look whether anybody still wants it.
    ///
    /// # Errors
    /// When it would become too long.
    pub fn push(&mut self, flow: &Flow<'_>) -> Result<bool, TooLong> {
        if self.flows > 0 {
            self.piece.push(b',');
        }
        // Numbers, words and addresses into memory: nothing that JSON can't say.
        let _infallible = serde_json::to_writer(&mut self.piece, flow);
        if self.bytes + self.piece.len() + TAIL.len() > self.max_bytes {
            return Err(TooLong { flows: self.flows, max_bytes: self.max_bytes });
        }
        self.flows += 1;
        let is_full = self.piece.len() >= PIECE_BYTES;
        if is_full {
            self.cut();
        }
        Ok(is_full)
    }

    /// There are no more.
    #[must_use]
    pub fn finish(mut self) -> Listing {
        self.piece.extend_from_slice(TAIL);
        self.cut();
        Listing(self.pieces)
    }

    /// What was reserved beyond a piece's end would stay as long as the piece.
    fn cut(&mut self) {
        self.bytes += self.piece.len();
        self.pieces.push(Bytes::copy_from_slice(&self.piece));
        self.piece.clear();
    }
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::example;

    #[test]
    fn what_is_written_flow_by_flow_is_the_document() {
        let mut document = example::flows();
        for repeated in [0, 1, 2, 5000] {
            document.flows = std::iter::repeat_n(document.flows[0].clone(), repeated.max(1)).collect();
            let flows = &document.flows[..repeated];
            let mut writer = ListingWriter::new(document.as_of);
            let full = flows.iter().filter(|flow| writer.push(flow).unwrap()).count();
            let listing = writer.finish();
            assert_eq!(listing.0.len(), full + 1);
            let whole = crate::control::protocol::Flows { flows: flows.to_vec(), ..document.clone() };
            assert_eq!(listing.to_bytes(), serde_json::to_vec(&whole).unwrap(), "{repeated} flows");
        }
    }

    #[test]
    fn a_listing_is_never_longer_than_it_may_be() {
        let document = example::flows();
        let length = |flows: &[Flow<'static>]| {
            let mut writer = ListingWriter::new(document.as_of);
            assert!(flows.iter().all(|flow| !writer.push(flow).unwrap()), "all of it is one piece");
            writer.finish().to_bytes().len()
        };
        let max_bytes = length(&document.flows);
        for (max_bytes, refused) in [(max_bytes, false), (max_bytes - 1, true)] {
            let mut writer = ListingWriter::within(max_bytes, document.as_of);
            let written: Result<Vec<bool>, TooLong> =
                document.flows.iter().map(|flow| writer.push(flow)).collect();
            assert_eq!(written.is_err(), refused, "{max_bytes} bytes: {written:?}");
            if !refused {
                assert_eq!(writer.finish().to_bytes().len(), max_bytes);
            }
        }
        let flows = document.flows.len() as u64 - 1;
        let said = TooLong { flows, max_bytes: 7 }.to_string();
        assert!(said.contains("--limit") && said.contains("7 bytes"), "{said}");
    }
}
