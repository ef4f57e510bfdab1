//! TCP flags x what was seen -> what is seen now, and how far a flow is.
//!
//! Each direction keeps its own [`Seen`], so that no packet has to write into the other direction's line; but that a flow
//! may be about to end is marked at both. Deliberately absent: time (who ages flows decides how long each [`Stage`] lasts)
//! and the tables.

use crate::abi::{Line, Past, WireAddress};
use crate::limits::{HANDSHAKE_WINDOW, LEAST_WINDOW};

/// TCP's flag bits as they stand in the header.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Data wants to be delivered at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// What a packet is, by its flags alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYN alone: opens a flow.
    Syn,
    /// SYN and ACK: the answer to a SYN.
    SynAck,
    /// RST, with or without ACK.
    Rst,
    /// Has FIN, and ACK as every packet after the first SYN must.
    Fin,
    /// ACK, with or without data.
    Ack,
    /// FIN alone, which no TCP sends: whoever asks like this is answered as by any port that knows nothing of him.
    BareFin,
    /// What no TCP sends: SYN with FIN or RST, FIN with RST, no ACK outside of SYN, RST and a bare FIN (NULL and Xmas scans too).
    Impossible,
}

impl Kind {
    /// From the flags byte of the header.
    #[inline(always)]
    pub const fn of(byte: u8) -> Self {
        use flags::{ACK, FIN, PSH, RST, SYN, URG};
        match byte & (SYN | FIN | RST | ACK) {
            ACK => Self::Ack,
            SYN => Self::Syn,
            bits if bits == SYN | ACK => Self::SynAck,
            bits if bits == FIN | ACK => Self::Fin,
            RST => Self::Rst,
            bits if bits == RST | ACK => Self::Rst,
            FIN if byte & (PSH | URG) == 0 => Self::BareFin,
            _ => Self::Impossible,
        }
    }
}

/// What was seen in one direction of a flow, and which one it is: the marks of its line's
/// [`State`](crate::table::State).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub u8);

impl Seen {
    /// The client's SYN, or the backend's SYN-ACK.
    pub const OPENED: Self = Self(1);
    /// A FIN; where it ends is in the [`Past`].
    pub const FIN: Self = Self(2);
    /// A RST that its receiver may believe.
    pub const RST: Self = Self(4);
    /// The other direction has seen a FIN or a RST: whoever wants to know how far the flow is has to look there too.
    pub const OTHER_ENDS: Self = Self(8);
    /// Packets of this direction come from the backend; without, from the client.
    pub const FROM_BACKEND: Self = Self(16);

    /// With `what` as well.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, what: Self) -> Self {
        Self(self.0 | what.0)
    }

    /// Whether all of `what` was seen.
    #[inline(always)]
    pub const fn has(self, what: Self) -> bool {
        self.0 & what.0 == what.0
    }

    /// Whether the flow may be further than [`Stage::Established`].
    #[inline(always)]
    pub const fn may_end(self) -> bool {
        self.0 & (Self::FIN.0 | Self::RST.0 | Self::OTHER_ENDS.0) != 0
    }

    /// Whether packets of this direction come from the client.
    #[inline(always)]
    pub const fn is_from_client(self) -> bool {
        !self.has(Self::FROM_BACKEND)
    }
}

/// What one direction says about how far its flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What was seen.
    pub seen: Seen,
    /// [`Line::acknowledged`].
    pub acknowledged: u32,
    /// [`Line::packets`].
    pub packets: u32,
    /// [`Past::fin_end`].
    pub fin_end: u32,
    /// [`Past::packets_at_reset`].
    pub packets_at_reset: u32,
}

impl Progress {
    /// From what the tables have of a direction.
    pub const fn of<A: WireAddress>(seen: Seen, line: &Line<A>, past: &Past) -> Self {
        Self {
            seen,
            acknowledged: line.acknowledged,
            packets: line.packets,
            fin_end: past.fin_end,
            packets_at_reset: past.packets_at_reset,
        }
    }
}

/// How far a flow whose handshake is complete has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Both directions are open.
    Established,
    /// One side has sent its FIN; the other may go on for as long as it likes.
    HalfClosed,
    /// FIN in both directions, or a RST: nothing but retransmissions is expected.
    Closed,
}

impl Stage {
    /// From both directions. Believed is what the receiver's own packets show that it believed: a FIN that it has
    /// acknowledged, a RST after which it has fallen silent. So neither is worth forging.
    #[inline(always)]
    pub fn of(client: &Progress, backend: &Progress) -> Self {
        if was_reset(client, backend) || was_reset(backend, client) {
            return Self::Closed;
        }
        match (is_finished(client, backend), is_finished(backend, client)) {
            (true, true) => Self::Closed,
            (true, false) | (false, true) => Self::HalfClosed,
            (false, false) => Self::Established,
        }
    }
}

#[inline(always)]
fn is_finished(sender: &Progress, receiver: &Progress) -> bool {
    // Nothing can follow it, so there is one number that acknowledges it; of a forged one nobody knows where it would end.
    sender.seen.has(Seen::FIN) && receiver.acknowledged == sender.fin_end
}

#[inline(always)]
fn was_reset(sender: &Progress, receiver: &Progress) -> bool {
    sender.seen.has(Seen::RST) && receiver.packets == sender.packets_at_reset
}

/// Whether a segment with this sequence number may be believed by a receiver that has acknowledged so much: it stands in
/// the least window that receivers have. A RST outside they drop silently, so it must not count here either; one that is
/// inside but not exact they challenge (RFC 5961), which shows in their packets.
#[inline(always)]
pub const fn in_window(sequence: u32, acknowledged: u32) -> bool {
    sequence.wrapping_sub(acknowledged) < LEAST_WINDOW
}

/// Whether whoever sends a segment with this sequence number knows the connection of which so much is acknowledged: it stands
/// in the window, or as far before it, where keep-alives and what is sent again stand.
#[inline(always)]
pub const fn is_known(sequence: u32, acknowledged: u32) -> bool {
    sequence.wrapping_sub(acknowledged).wrapping_add(LEAST_WINDOW) < 2 * LEAST_WINDOW
}

/// Whether `acknowledgement` answers a first sequence number: it acknowledges at least the SYN itself and at most what
/// can have followed it in the handshake.
#[inline(always)]
pub const fn answers(acknowledgement: u32, first_sequence: u32) -> bool {
    acknowledgement.wrapping_sub(first_sequence.wrapping_add(1)) < HANDSHAKE_WINDOW
}

#[cfg(test)]
mod tests {
    use super::flags::{ACK, FIN, PSH, RST, SYN, URG};
    use super::*;

    #[test]
    fn every_flag_byte_has_one_kind() {
        for byte in 0..=u8::MAX {
            let (syn, fin) = (byte & SYN != 0, byte & FIN != 0);
            let (rst, ack) = (byte & RST != 0, byte & ACK != 0);
            let expected = match (syn, fin, rst, ack) {
                (true, false, false, false) => Kind::Syn,
                (true, false, false, true) => Kind::SynAck,
                (false, true, false, true) => Kind::Fin,
                (false, false, true, _) => Kind::Rst,
                (false, false, false, true) => Kind::Ack,
                (true, true, _, _) | (true, _, true, _) | (_, true, true, _) => Kind::Impossible,
                (false, true, false, false) if byte & (PSH | URG) == 0 => Kind::BareFin,
                (false, true, false, false) | (false, false, false, false) => Kind::Impossible,
            };
            assert_eq!(Kind::of(byte), expected, "flags {byte:#04x}");
        }
        assert_eq!(Kind::of(FIN | PSH | URG), Kind::Impossible, "Xmas");
        assert_eq!(Kind::of(0), Kind::Impossible, "NULL");
    }

    fn direction(seen: Seen) -> Progress {
        Progress { seen, ..Progress::default() }
    }

    #[test]
    fn every_stage_follows_from_both_directions() {
        let all = [Seen::OPENED, Seen(3), Seen(5), Seen(7)];
        for client in all {
            for backend in all {
                let reset = client.has(Seen::RST) || backend.has(Seen::RST);
                let fins = u8::from(client.has(Seen::FIN)) + u8::from(backend.has(Seen::FIN));
                let expected = match (reset, fins) {
                    (true, _) | (false, 2) => Stage::Closed,
                    (false, 1) => Stage::HalfClosed,
                    (false, _) => Stage::Established,
                };
                assert_eq!(
                    Stage::of(&direction(client), &direction(backend)),
                    expected,
                    "{client:?} {backend:?}"
                );
            }
        }
    }

    #[test]
    fn a_fin_counts_when_it_is_acknowledged() {
        let client = Progress { fin_end: 1000, ..direction(Seen(3)) };
        let mut backend = Progress { acknowledged: 999, ..direction(Seen::OPENED) };
        assert_eq!(Stage::of(&client, &backend), Stage::Established);
        backend.acknowledged = 1001;
        assert_eq!(Stage::of(&client, &backend), Stage::Established, "what ends before is forged");
        backend.acknowledged = 1000;
        assert_eq!(Stage::of(&client, &backend), Stage::HalfClosed);
    }

    #[test]
    fn a_reset_that_was_not_believed_is_no_end() {
        let backend = Progress { packets_at_reset: 7, ..direction(Seen(5)) };
        let mut client = Progress { packets: 7, ..direction(Seen::OPENED) };
        assert_eq!(Stage::of(&client, &backend), Stage::Closed);
        client.packets = 8;
        assert_eq!(Stage::of(&client, &backend), Stage::Established);
    }

    #[test]
    fn who_may_be_about_to_end_says_so() {
        for marks in 0..32 {
            let ends = marks & 0b1110 != 0;
            assert_eq!(Seen(marks).may_end(), ends, "{marks:#b}");
        }
        assert!(!Seen::FROM_BACKEND.and(Seen::OPENED).may_end());
    }

    #[test]
    fn a_window_begins_at_what_was_acknowledged() {
        assert!(in_window(1000, 1000));
        assert!(in_window(1000 + 0xffff, 1000));
        assert!(!in_window(1000 + 0x1_0000, 1000));
        assert!(!in_window(999, 1000));
        assert!(in_window(5, u32::MAX), "sequence numbers wrap");
    }

    #[test]
    fn who_knows_a_connection_sends_what_is_near_the_windows_beginning() {
        assert!(is_known(1000, 1000) && is_known(999, 1000));
        assert!(is_known(1000 + 0xffff, 1000) && is_known(1000_u32.wrapping_sub(0x1_0000), 1000));
        assert!(!is_known(1000 + 0x1_0000, 1000) && !is_known(1000_u32.wrapping_sub(0x1_0001), 1000));
    }

    #[test]
    fn an_answer_acknowledges_the_syn_and_little_more() {
        assert!(!answers(100, 100));
        assert!(answers(101, 100));
        assert!(answers(0, u32::MAX), "sequence numbers wrap");
        assert!(answers(101 + 0x3fff, 100));
        assert!(!answers(101 + 0x4000, 100));
    }
}
