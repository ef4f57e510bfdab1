//! Two frames side by side, field by field: what a person wants to see when a byte is wrong.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{ETHERNET_BYTES, IP_BYTES, IPV4, PROTOCOL_TCP, TCP_BYTES};

/// One line for each field that differs; `None`: the frames are the same bytes.
#[must_use]
pub fn difference(expected: &[u8], seen: &[u8]) -> Option<String> {
    if expected == seen {
        return None;
    }
    let (expected_fields, seen_fields) = (fields(expected), fields(seen));
    let mut text = String::new();
    for (name, value) in &expected_fields {
        let other = seen_fields.iter().find_map(|(same, other)| (same == name).then_some(other.as_str()));
        if other != Some(value) {
            let _ = writeln!(text, "{name}: {value} expected, {} seen", other.unwrap_or("nothing"));
        }
    }
    for (name, value) in &seen_fields {
        if !expected_fields.iter().any(|(same, _)| same == name) {
            let _ = writeln!(text, "{name}: nothing expected, {value} seen");
        }
    }
    Some(text.trim_end().to_owned())
}

/// Every byte of the frame is in exactly one field, so frames that differ have fields that do.
fn fields(frame: &[u8]) -> Vec<(&'static str, String)> {
    let mut reader = Reader { rest: frame, fields: Vec::new() };
    reader.hex("destination MAC", 6);
    reader.hex("source MAC", 6);
    let ether_type = reader.hex("EtherType", 2);
    if ether_type != IPV4.to_be_bytes() || reader.rest.len() < IP_BYTES {
        return reader.finish();
    }
    let [version_and_length] = *reader.hex("IP version and length", 1) else { return reader.finish() };
    reader.hex("TOS", 1);
    let total = reader.number("IP total length", 2);
    reader.number("IP id", 2);
    reader.hex("IP fragment word", 2);
    reader.number("TTL", 1);
    let protocol = reader.number("protocol", 1);
    reader.hex("IP checksum", 2);
    reader.address("source address");
    reader.address("destination address");
    let header = usize::from(version_and_length & 0xf) * 4;
    reader.hex("IP options", header.saturating_sub(IP_BYTES));
    let padding = frame.len().saturating_sub(ETHERNET_BYTES + total as usize);
    if protocol == u32::from(PROTOCOL_TCP) && reader.rest.len() >= TCP_BYTES {
        reader.tcp();
    }
    reader.hex("data", reader.rest.len().saturating_sub(padding));
    reader.finish()
}

struct Reader<'a> {
    rest: &'a [u8],
    fields: Vec<(&'static str, String)>,
}

impl<'a> Reader<'a> {
    fn tcp(&mut self) {
        self.number("source port", 2);
        self.number("destination port", 2);
        self.number("sequence number", 4);
        self.number("acknowledgement number", 4);
        let length = self.hex("TCP header length", 1);
        let words = length.first().map_or(0, |byte| usize::from(byte >> 4));
        self.hex("TCP flags", 1);
        self.number("window", 2);
        self.hex("TCP checksum", 2);
        self.number("urgent pointer", 2);
        self.hex("TCP options", (words * 4).saturating_sub(TCP_BYTES));
    }

    /// The next bytes, or as many as there are.
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn hex(&mut self, name: &'static str, bytes: usize) -> &'a [u8] {
        let taken = self.take(bytes);
        self.fields.push((name, taken.iter().map(|byte| format!("{byte:02x}")).collect()));
        taken
    }

    fn number(&mut self, name: &'static str, bytes: usize) -> u32 {
        let taken = self.take(bytes);
        let number = taken.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.fields.push((name, format!("{number} ({} bytes)", taken.len())));
        number
    }

    fn address(&mut self, name: &'static str) {
        let taken = self.take(4);
        let text = <[u8; 4]>::try_from(taken)
            .map_or_else(|_| format!("{taken:02x?}"), |all| Ipv4Addr::from(all).to_string());
        self.fields.push((name, text));
    }

    fn finish(mut self) -> Vec<(&'static str, String)> {
        let rest = self.rest.len();
        self.hex("what follows", rest);
        self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;

    #[test]
    fn every_flipped_bit_is_named() {
        let source = "203.0.113.7:40000".parse().unwrap();
        let good = Packet::new(source, "203.0.113.10:443".parse().unwrap())
            .with(|packet| {
                packet.padding = vec![0; 3];
                packet.tcp_options = vec![1; 4];
            })
            .payload(b"x")
            .to_frame();
        assert_eq!(difference(&good, &good), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(difference(&good, &bad).is_some_and(|text| !text.is_empty()), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_frame_differs_and_never_panics() {
        let source = "203.0.113.7:40000".parse().unwrap();
        let good = Packet::new(source, "203.0.113.10:443".parse().unwrap()).payload(b"data").to_frame();
        for length in 0..good.len() {
            assert!(difference(&good, &good[..length]).is_some_and(|text| !text.is_empty()), "{length}");
        }
    }

    #[test]
    fn a_difference_reads_as_a_sentence() {
        let source = "203.0.113.7:40000".parse().unwrap();
        let packet = Packet::new(source, "203.0.113.10:443".parse().unwrap());
        let other = packet.clone().ttl(63).to_frame();
        let text = difference(&packet.to_frame(), &other).unwrap();
        assert!(text.contains("TTL: 64 (1 bytes) expected, 63 (1 bytes) seen"), "{text}");
    }
}
