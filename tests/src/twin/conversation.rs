//! Conversations: what two TCP hosts say to each other, made up from a seed, with everything that real ones do wrong.
//!
//! A conversation is a list of segments with their senders, known before the first is sent: both gateways only forward,
//! so what one end says depends on nothing that they do. Every segment of it is one that a gateway has to forward; what is
//! refused has its table in `odd.rs`.

mod ending;
mod peer;

use std::fmt::{self, Write as _};

use super::{
    flow::Flow,
    frame::Segment,
    options,
    scene::{End, Scene},
    seed::Seed,
};
use crate::packet::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use peer::Peer;

/// Bytes of IP and TCP header without options.
const HEADERS_V4: usize = 40;
const HEADERS_V6: usize = 60;
/// What a network card adds to the shortest IPv4 segment to make the shortest frame.
const PADDING: usize = 6;

/// One of the conversations of a seed.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Whose it is.
    pub flow: Flow,
    /// What is said, in order, by whom.
    pub said: Vec<(End, Segment)>,
    /// What happens, in a person's words.
    story: Vec<&'static str>,
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} segments): {}", self.flow.client, self.said.len(), self.story.join(", "))
    }
}

impl Conversation {
    /// The conversation of this number; each of a seed's has a client and port of its own.
    #[must_use]
    pub fn new(scene: Scene, seed: u64, index: u64) -> Self {
        let mut seed = Seed::of(seed, index);
        let flow = Flow::new(scene, scene.client_of(index));
        let mut writer = Writer::new(scene, &mut seed);
        writer.life();
        // Closed for good, or a client that was quick to take the same port again.
        while writer.is_closed && writer.seed.one_in(4) {
            writer.story.push("port reused");
            writer.be_reborn();
            writer.life();
        }
        let Writer { said, story, .. } = writer;
        Self { flow, said, story }
    }

    /// All segments, a line each.
    #[must_use]
    pub fn transcript(&self) -> String {
        let mut text = String::new();
        for (number, (from, segment)) in self.said.iter().enumerate() {
            let names = [
                (SYN, "SYN"),
                (FIN, "FIN"),
                (RST, "RST"),
                (PSH, "PSH"),
                (ACK, "ACK"),
                (URG, "URG"),
                (ECE, "ECE"),
                (CWR, "CWR"),
            ];
            let set: Vec<_> =
                names.iter().filter(|(flag, _)| segment.flags & flag != 0).map(|(_, name)| *name).collect();
            let Segment { sequence, acknowledgement, payload, .. } = segment;
            let _ = writeln!(
                text,
                "{number}. {from:?}: {} seq {sequence} ack {acknowledgement} {} bytes",
                set.join("+"),
                payload.len()
            );
        }
        text
    }
}

/// Writes a conversation down.
struct Writer<'a> {
    scene: Scene,
    seed: &'a mut Seed,
    client: Peer,
    backend: Peer,
    said: Vec<(End, Segment)>,
    story: Vec<&'static str>,
    /// Both ends know that it is over.
    is_closed: bool,
}

impl<'a> Writer<'a> {
    fn new(scene: Scene, seed: &'a mut Seed) -> Self {
        let (client, backend) = (Peer::new(seed), Peer::new(seed));
        Self { scene, seed, client, backend, said: Vec::new(), story: Vec::new(), is_closed: false }
    }

    /// The same two hosts and ports, with new sequence numbers.
    fn be_reborn(&mut self) {
        self.client.begin(self.seed);
        self.backend.begin(self.seed);
        self.is_closed = false;
    }

    /// From the first SYN to the last word.
    fn life(&mut self) {
        if !self.shake_hands() {
            return;
        }
        for _ in 0..self.seed.below(10) {
            self.happen();
        }
        self.end();
    }

    fn shake_hands(&mut self) -> bool {
        self.say_syn(End::Client);
        if self.seed.one_in(8) {
            self.story.push("SYN repeated");
            self.repeat_last();
        }
        if self.seed.one_in(16) {
            self.story.push("refused");
            self.say(End::Backend, RST | ACK, |_| {});
            self.is_closed = true;
            return false;
        }
        self.say_syn(End::Backend);
        if self.seed.one_in(8) {
            self.story.push("SYN-ACK repeated");
            self.repeat_last();
        }
        if self.seed.one_in(4) {
            self.story.push("data with the handshake");
            self.speak(End::Client);
        } else {
            self.say(End::Client, ACK, |_| {});
        }
        true
    }

    /// SYN or SYN-ACK.
    fn say_syn(&mut self, from: End) {
        let options = options::of_syn(self.seed);
        let congestion = self.seed.one_in(3);
        let (flags, congestion_flags) = match from {
            End::Client => (SYN, ECE | CWR),
            End::Backend => (SYN | ACK, ECE),
        };
        let flags = if congestion { flags | congestion_flags } else { flags };
        self.say(from, flags, |segment| segment.options = options);
    }

    /// One of the things that happen while both talk.
    fn happen(&mut self) {
        let from = self.seed.pick(&[End::Client, End::Backend]);
        match self.seed.below(12) {
            0..=3 => {
                self.speak(from);
                if self.seed.one_in(2) {
                    self.say(from.other(), ACK, |_| {});
                }
            }
            4 => {
                self.story.push("retransmission");
                self.speak(from);
                self.repeat_last();
            }
            5 => {
                self.story.push("out of order");
                self.speak(from);
                self.speak(from);
                let last = self.said.len() - 1;
                self.said.swap(last - 1, last);
            }
            6 => {
                self.story.push("keep-alive");
                let length = self.seed.below(2);
                let garbage = self.seed.bytes(length);
                self.say(from, ACK, |segment| {
                    segment.sequence = segment.sequence.wrapping_sub(1);
                    segment.payload = garbage;
                });
                self.say(from.other(), ACK, |_| {});
            }
            7 => {
                self.story.push("window closed and opened");
                self.say(from, ACK, |segment| segment.window = 0);
                self.say(from, ACK, |segment| segment.window = 65535);
            }
            8 => {
                self.story.push("urgent data");
                let (urgent, data) = (self.seed.short(), self.seed.bytes(9));
                self.say(from, ACK | URG | PSH, |segment| {
                    segment.urgent = urgent;
                    segment.payload = data;
                });
            }
            9 => {
                self.story.push("wrong checksum");
                self.speak(from);
                self.spoil_last();
            }
            10 => {
                self.story.push("duplicate acknowledgements");
                self.say(from, ACK, |_| {});
                self.repeat_last();
                self.repeat_last();
            }
            _ => {
                self.story.push("congestion");
                self.say(from, ACK | ECE, |_| {});
                let data = self.seed.bytes(5);
                self.say(from.other(), ACK | CWR, |segment| segment.payload = data);
            }
        }
    }

    /// A segment with data.
    fn speak(&mut self, from: End) {
        let options = options::of_segment(self.seed);
        let room = self.room(from, options.len());
        let length = match self.seed.below(6) {
            0 => room,
            1 => room - 1,
            2 => self.seed.below(4),
            _ => self.seed.below(room),
        };
        let data = self.seed.bytes(length);
        let flags = if self.seed.one_in(2) { ACK | PSH } else { ACK };
        self.say(from, flags, |segment| {
            segment.options = options;
            segment.payload = data;
        });
    }

    /// How much data fits.
    fn room(&self, from: End, options: usize) -> usize {
        let envelope = &self.peer(from).envelope;
        let headers = match self.scene.family {
            super::Family::V4 => HEADERS_V4 + envelope.options.len(),
            super::Family::V6 => HEADERS_V6 + envelope.extension_bytes(),
        };
        usize::from(self.scene.lan_mtu) - headers - options.next_multiple_of(4)
    }

    /// Says one segment, with what its sender knows, and the other side hears it.
    fn say(&mut self, from: End, flags: u8, change: impl FnOnce(&mut Segment)) {
        let segment = self.say_unheard(from, flags, change);
        self.peer_mut(from.other()).heard(&segment);
    }

    /// Says one segment, which is still under way when the other side says its next one.
    fn say_unheard(&mut self, from: End, flags: u8, change: impl FnOnce(&mut Segment)) -> Segment {
        let is_padded = self.seed.one_in(4);
        let peer = self.peer_mut(from);
        let mut segment = peer.segment(flags);
        change(&mut segment);
        peer.spoke(&segment);
        if is_padded && segment.payload.is_empty() {
            segment.padding = PADDING;
        }
        self.said.push((from, segment.clone()));
        segment
    }

    /// The last segment again, as a host sends it again: with another identification.
    fn repeat_last(&mut self) {
        let id = self.seed.short();
        if let Some((from, mut segment)) = self.said.last().cloned() {
            segment.envelope.id = id;
            self.said.push((from, segment));
        }
    }

    /// The last segment once more, before itself, with a checksum that isn't right.
    fn spoil_last(&mut self) {
        let wrong = self.seed.short();
        // Both of one's complement's zeros too.
        let wrong = self.seed.pick(&[wrong, wrong, 0, 0xffff]);
        if let Some((from, mut segment)) = self.said.pop() {
            let right = segment.clone();
            segment.checksum = Some(wrong);
            self.said.extend([(from, segment), (from, right)]);
        }
    }

    fn peer(&self, end: End) -> &Peer {
        match end {
            End::Client => &self.client,
            End::Backend => &self.backend,
        }
    }

    fn peer_mut(&mut self, end: End) -> &mut Peer {
        match end {
            End::Client => &mut self.client,
            End::Backend => &mut self.backend,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::twin::{Family, Forwarding};

    const SCENE: Scene = Scene { family: Family::V4, forwarding: Forwarding::Snat, lan_mtu: 1500 };

    #[test]
    fn a_seed_and_a_number_make_the_same_conversation_again() {
        let told = |seed, index| {
            let conversation = Conversation::new(SCENE, seed, index);
            (conversation.to_string(), conversation.said)
        };
        assert_eq!(told(1, 2), told(1, 2));
        assert_ne!(told(1, 2), told(1, 3));
        assert_ne!(told(1, 2), told(2, 2));
    }

    #[test]
    fn no_two_conversations_have_the_same_port() {
        let ports: BTreeSet<u16> = (0..Scene::CONVERSATIONS_MAX)
            .map(|index| Conversation::new(SCENE, 1, index).flow.client.port())
            .collect();
        assert_eq!(ports.len() as u64, Scene::CONVERSATIONS_MAX);
        assert!(ports.iter().all(|port| matches!(port, 1024..=32767 | 61000..=65535)));
    }

    #[test]
    fn everything_that_can_happen_does_in_a_thousand_conversations() {
        let told: BTreeSet<&str> =
            (0..1000).flat_map(|index| Conversation::new(SCENE, 1, index).story).collect();
        assert_eq!(told.len(), 23, "{told:?}");
    }
}
