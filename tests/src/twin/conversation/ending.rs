//! How conversations end: politely, at once, or not at all.

use crate::packet::flags::{ACK, FIN, RST};

use super::{super::scene::End, Writer};

impl Writer<'_> {
    /// One of the ends that there are.
    pub(super) fn end(&mut self) {
        let first = self.seed.pick(&[End::Client, End::Backend]);
        match self.seed.below(9) {
            0..=2 => self.close_politely(first),
            3 => self.close_together(),
            4 => self.close_half_and_go_on(first),
            5 | 6 => self.reset(first),
            7 => {
                self.story.push("RST after FIN");
                self.say(first, FIN | ACK, |_| {});
                self.say(first.other(), ACK, |_| {});
                self.reset(first);
            }
            _ => self.story.push("left open"),
        }
    }

    fn close_politely(&mut self, first: End) {
        self.story.push(if first == End::Client { "client closes first" } else { "backend closes first" });
        self.say_fin(first);
        if self.seed.one_in(2) {
            self.say(first.other(), ACK, |_| {});
        }
        self.say_fin(first.other());
        if self.seed.one_in(6) {
            self.story.push("FIN repeated");
            self.repeat_last();
        }
        self.say(first, ACK, |_| {});
        if self.seed.one_in(6) {
            self.story.push("data after FIN");
            self.say(first, ACK, |segment| segment.payload = vec![7; 10]);
        }
        self.is_closed = true;
    }

    /// Both FINs are under way at the same time.
    fn close_together(&mut self) {
        self.story.push("simultaneous close");
        let clients = self.say_unheard(End::Client, FIN | ACK, |_| {});
        let backends = self.say_unheard(End::Backend, FIN | ACK, |_| {});
        self.backend.heard(&clients);
        self.client.heard(&backends);
        self.say(End::Client, ACK, |_| {});
        self.say(End::Backend, ACK, |_| {});
        self.is_closed = true;
    }

    /// The other side has more to say.
    fn close_half_and_go_on(&mut self, first: End) {
        self.story.push("half closed");
        self.say_fin(first);
        self.say(first.other(), ACK, |_| {});
        for _ in 0..1 + self.seed.below(4) {
            self.speak(first.other());
            self.say(first, ACK, |_| {});
        }
        self.say_fin(first.other());
        self.say(first, ACK, |_| {});
        self.is_closed = true;
    }

    fn say_fin(&mut self, from: End) {
        if self.seed.one_in(3) {
            let length = self.seed.below(100);
            let data = self.seed.bytes(length);
            self.say(from, FIN | ACK, |segment| segment.payload = data);
        } else {
            self.say(from, FIN | ACK, |_| {});
        }
    }

    fn reset(&mut self, from: End) {
        self.story.push(if from == End::Client { "client resets" } else { "backend resets" });
        let flags = if self.seed.one_in(2) { RST | ACK } else { RST };
        self.say(from, flags, |segment| {
            if flags == RST {
                segment.acknowledgement = 0;
            }
        });
        self.is_closed = true;
    }
}
