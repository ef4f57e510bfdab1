//! Two frames side by side, field by field: what a person wants to see when a byte is wrong.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    IPV4, IPV4_BYTES, IPV6, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROVIDER_VLAN,
    TCP_BYTES, VLAN,
};

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
fn fields(frame: &[u8]) -> Vec<(String, String)> {
    let mut reader = Reader { rest: frame, within: "", fields: Vec::new() };
    reader.hex("destination MAC", 6);
    reader.hex("source MAC", 6);
    let mut ether_type = reader.number("EtherType", 2) as u16;
    for tag in ["VLAN tag", "inner VLAN tag"] {
        if [VLAN, PROVIDER_VLAN].contains(&ether_type) {
            reader.hex(tag, 2);
            ether_type = reader.number(&format!("EtherType behind the {tag}"), 2) as u16;
        }
    }
    match ether_type {
        IPV4 => reader.ipv4(),
        IPV6 => reader.ipv6(),
        _ => {}
    }
    reader.finish()
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Put before the names of fields.
    within: &'static str,
    fields: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    fn ipv4(&mut self) {
        if self.rest.len() < IPV4_BYTES {
            return;
        }
        let header = usize::from(self.rest[0] & 0xf) * 4;
        self.hex("IP version and length", 1);
        self.hex("TOS", 1);
        let total = self.number("IP total length", 2) as usize;
        self.number("IP id", 2);
        self.hex("IP fragment word", 2);
        self.number("TTL", 1);
        let protocol = self.number("protocol", 1) as u8;
        self.hex("IP checksum", 2);
        self.address("source address", 4);
        self.address("destination address", 4);
        self.hex("IP options", header.saturating_sub(IPV4_BYTES));
        self.content(protocol, total.saturating_sub(header.max(IPV4_BYTES)));
    }

    fn ipv6(&mut self) {
        if self.rest.len() < IPV6_BYTES {
            return;
        }
        self.hex("IP version, class and label", 4);
        let mut length = self.number("IP payload length", 2) as usize;
        let mut next = self.number("next header", 1) as u8;
        self.number("hop limit", 1);
        self.address("source address", 16);
        self.address("destination address", 16);
        for number in 1.. {
            let [following, eights, ..] = *self.rest else { break };
            let bytes = match next {
                0 | 43 | 60 => 8 + 8 * usize::from(eights),
                44 => 8,
                51 => 8 + 4 * usize::from(eights),
                _ => break,
            };
            self.hex(&format!("extension header {number}"), bytes);
            length = length.saturating_sub(bytes);
            next = following;
        }
        self.content(next, length);
    }

    /// What an IP header leads to: so many bytes of it, the rest is what follows.
    fn content(&mut self, protocol: u8, bytes: usize) {
        let (content, after) = self.rest.split_at(bytes.min(self.rest.len()));
        self.rest = content;
        match protocol {
            PROTOCOL_TCP => self.tcp(),
            PROTOCOL_ICMP if self.within.is_empty() => self.icmp(&[3, 11, 12], Self::ipv4),
            PROTOCOL_ICMPV6 if self.within.is_empty() => self.icmp(&[1, 2, 3, 4], Self::ipv6),
            _ => {}
        }
        let data = self.rest.len();
        self.hex("data", data);
        self.rest = after;
    }

    fn icmp(&mut self, errors: &[u8], quote: fn(&mut Self)) {
        let kind = self.number("ICMP type", 1) as u8;
        self.number("ICMP code", 1);
        self.hex("ICMP checksum", 2);
        self.hex("ICMP rest of header", 4);
        if errors.contains(&kind) {
            self.within = "quoted ";
            quote(self);
            self.within = "";
        }
    }

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

    fn field(&mut self, name: &str, value: String) {
        self.fields.push((format!("{}{name}", self.within), value));
    }

    fn hex(&mut self, name: &str, bytes: usize) -> &'a [u8] {
        let taken = self.take(bytes);
        self.field(name, taken.iter().map(|byte| format!("{byte:02x}")).collect());
        taken
    }

    fn number(&mut self, name: &str, bytes: usize) -> u32 {
        let taken = self.take(bytes);
        let number = taken.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.field(name, format!("{number} ({} bytes)", taken.len()));
        number
    }

    fn address(&mut self, name: &str, bytes: usize) {
        let taken = self.take(bytes);
        let text = if let Ok(all) = <[u8; 4]>::try_from(taken) {
            Ipv4Addr::from(all).to_string()
        } else if let Ok(all) = <[u8; 16]>::try_from(taken) {
            Ipv6Addr::from(all).to_string()
        } else {
            format!("{taken:02x?}")
        };
        self.field(name, text);
    }

    fn finish(mut self) -> Vec<(String, String)> {
        let rest = self.rest.len();
        self.hex("what follows", rest);
        self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Extension, Icmp, Packet};

    fn frames() -> [Vec<u8>; 4] {
        let v4 = Packet::new("203.0.113.7:40000".parse().unwrap(), "203.0.113.10:443".parse().unwrap())
            .payload(b"x")
            .with(|packet| {
                packet.ethernet.padding = vec![0; 3];
                packet.ethernet.tags = vec![(PROVIDER_VLAN, 7), (VLAN, 8)];
                packet.options = vec![1; 4];
            });
        let v6 = Packet::new("[2001:db8::7]:40000".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap())
            .payload(b"x")
            .with(|packet| packet.ip.extensions = vec![Extension::hop_by_hop(1)]);
        let errors = [(&v4, 11), (&v6, 3)].map(|(quoted, kind)| {
            Icmp::new(quoted.destination.ip(), quoted.source.ip(), kind, 0).about_first(12, quoted).to_frame()
        });
        let [first, second] = errors;
        [v4.to_frame(), v6.to_frame(), first, second]
    }

    #[test]
    fn every_flipped_bit_is_named() {
        for good in frames() {
            assert_eq!(difference(&good, &good), None);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(difference(&good, &bad).is_some_and(|text| !text.is_empty()), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_frame_differs_and_never_panics() {
        for good in frames() {
            for length in 0..good.len() {
                let text = difference(&good, &good[..length]);
                assert!(text.is_some_and(|text| !text.is_empty()), "{length}");
            }
        }
    }

    #[test]
    fn a_difference_reads_as_a_sentence() {
        let packet = Packet::new("203.0.113.7:40000".parse().unwrap(), "203.0.113.10:443".parse().unwrap());
        let other = packet.clone().ttl(63).to_frame();
        let text = difference(&packet.to_frame(), &other).unwrap();
        assert!(text.contains("TTL: 64 (1 bytes) expected, 63 (1 bytes) seen"), "{text}");
    }
}
