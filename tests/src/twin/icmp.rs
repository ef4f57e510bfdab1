//! ICMP errors: those that tests send, and those that gateways answer with, read apart.

use std::net::IpAddr;

use anyhow::{Context, Result};
use etherparse::PacketBuilder;

use super::{
    frame::{ETHERNET_BYTES, Envelope, macs},
    scene::End,
};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const IPV6_BYTES: usize = 40;
/// Of an ICMP error, before its quote.
const ICMP_BYTES: usize = 8;

/// What an ICMP error says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) kind: u8,
    pub(super) code: u8,
    /// The second word: an MTU, a pointer.
    pub(super) word: [u8; 4],
    pub(super) quote: Vec<u8>,
}

impl Error {
    /// The frame that carries it from one end of the lab towards the gateway.
    pub(super) fn to_frame(
        &self,
        from: End,
        envelope: &Envelope,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Vec<u8>> {
        let (destination_mac, source_mac) = macs(from);
        let step =
            PacketBuilder::ethernet2(source_mac, destination_mac).ip(envelope.headers(source, destination)?);
        let mut frame = Vec::new();
        match source {
            IpAddr::V4(_) => {
                step.icmpv4_raw(self.kind, self.code, self.word)
                    .write(&mut frame, &self.quote)
                    .context("write an ICMP error")?;
            }
            IpAddr::V6(_) => {
                step.icmpv6_raw(self.kind, self.code, self.word)
                    .write(&mut frame, &self.quote)
                    .context("write an ICMPv6 error")?;
            }
        }
        Ok(frame)
    }
}

/// An ICMP error as it came out of a gateway: what two gateways have to agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    macs: Vec<u8>,
    /// Source and destination.
    addresses: Vec<u8>,
    ttl: u8,
    pub(super) error: Error,
}

impl Seen {
    /// Reads a frame; `None` when it is no ICMP error, has options, or a checksum of it is wrong.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let (macs, packet) = (frame.get(..12)?, frame.get(ETHERNET_BYTES..)?);
        let (ttl, addresses, message) = match packet.first()? {
            0x45 => {
                let header = packet.get(..20)?;
                let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let message = packet.get(20..).filter(|_| packet.len() == total)?;
                let is_right = header[9] == PROTOCOL_ICMP && checksum(header) == 0 && checksum(message) == 0;
                is_right.then(|| (header[8], &header[12..20], message))?
            }
            0x60..=0x6f => {
                let header = packet.get(..IPV6_BYTES)?;
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let message = packet.get(IPV6_BYTES..).filter(|message| message.len() == length)?;
                let pseudo = [&header[8..40], &(length as u32).to_be_bytes(), &[0, 0, 0, PROTOCOL_ICMPV6]];
                let sum = checksum(&[&pseudo.concat(), message].concat());
                (header[6] == PROTOCOL_ICMPV6 && sum == 0).then(|| (header[7], &header[8..40], message))?
            }
            _ => return None,
        };
        let word = message.get(4..ICMP_BYTES)?.try_into().ok()?;
        Some(Self {
            macs: macs.to_vec(),
            addresses: addresses.to_vec(),
            ttl,
            error: Error { kind: message[0], code: message[1], word, quote: message[ICMP_BYTES..].to_vec() },
        })
    }

    /// The same, but for how much of the packet is quoted.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let quoted = self.error.quote.len().min(other.error.quote.len());
        let short = |seen: &Self| {
            let mut seen = seen.clone();
            seen.error.quote.truncate(quoted);
            seen
        };
        short(self) == short(other)
    }
}

/// RFC 1071: the complement of the one's complement sum of all 16-bit words; 0 over something that has its checksum in it.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
