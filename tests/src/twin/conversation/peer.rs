//! One host of a conversation: what it has sent and heard so far.

use crate::packet::flags::{FIN, SYN};

use super::super::{
    frame::{Envelope, Segment},
    options,
    seed::Seed,
};

/// As much of a TCP host as its segments show.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The sequence number of what it says next.
    next: u32,
    /// What it expects next from the other side; 0 before it has heard anything.
    expects: u32,
    window: u16,
    pub(super) envelope: Envelope,
}

impl Peer {
    pub(super) fn new(seed: &mut Seed) -> Self {
        let mut peer =
            Self { next: 0, expects: 0, window: seed.short() | 1, envelope: options::envelope(seed) };
        peer.begin(seed);
        peer
    }

    /// A new connection.
    pub(super) fn begin(&mut self, seed: &mut Seed) {
        // Now and then so near the end of the sequence numbers that they wrap.
        self.next = if seed.one_in(4) { u32::MAX - seed.long() % 2000 } else { seed.long() };
        self.expects = 0;
    }

    /// The next segment.
    pub(super) fn segment(&mut self, flags: u8) -> Segment {
        self.envelope.id = self.envelope.id.wrapping_add(1);
        Segment {
            sequence: self.next,
            acknowledgement: self.expects,
            window: self.window,
            envelope: self.envelope.clone(),
            ..Segment::plain(flags)
        }
    }

    /// Counts what it has sent.
    pub(super) fn spoke(&mut self, segment: &Segment) {
        self.next = furthest(self.next, end(segment));
    }

    /// Counts what has reached it.
    pub(super) fn heard(&mut self, segment: &Segment) {
        let end = end(segment);
        self.expects = if segment.flags & SYN != 0 { end } else { furthest(self.expects, end) };
    }
}

/// The sequence number after a segment.
fn end(segment: &Segment) -> u32 {
    let marks = [SYN, FIN].iter().filter(|flag| segment.flags & **flag != 0).count();
    segment.sequence.wrapping_add((segment.payload.len() + marks) as u32)
}

/// The later one, in the arithmetic of sequence numbers.
fn furthest(one: u32, other: u32) -> u32 {
    if other.wrapping_sub(one) < 1 << 31 { other } else { one }
}
