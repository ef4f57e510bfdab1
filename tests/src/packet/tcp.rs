//! TCP segments: every field open to nonsense.

use std::net::SocketAddr;

use super::sum::{checksum, off_by, pseudo_header};
use super::{Ethernet, Ip};

/// `CWR`, `ECE` and the six flags of RFC 793, as bits of the header's flag byte.
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection.
    pub const RST: u8 = 0x04;
    /// Deliver at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was seen (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// IP protocol of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Bytes of a header without options.
pub const TCP_BYTES: usize = 20;

/// A TCP segment in an IP packet in an Ethernet frame. Its addresses tell the family. Lengths and checksums are right
/// unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The frame around it.
    pub ethernet: Ethernet,
    /// The IP header.
    pub ip: Ip,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flag byte, see [`flags`].
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of four bytes and at most 40.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
    /// Header length in words instead of the true one.
    pub header_words: Option<u8>,
    /// What stands where the checksum should be.
    pub checksum: Checksum,
}

/// A checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right one.
    Right,
    /// The right one with this added, as one's complement numbers are.
    WrongBy(u16),
    /// The sum of the pseudo-header alone, not complemented: what a host leaves to its network card.
    Partial,
}

impl Packet {
    /// A segment without flags, options and data, as a Linux host would fill in the rest.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            ethernet: Ethernet::default(),
            ip: Ip::default(),
            source,
            destination,
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
            window: 64240,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
            header_words: None,
            checksum: Checksum::Right,
        }
    }

    /// SYN alone.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(flags::SYN)
    }

    /// SYN and ACK.
    #[must_use]
    pub fn syn_ack(self) -> Self {
        self.flags(flags::SYN | flags::ACK)
    }

    /// ACK alone.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flags(flags::ACK)
    }

    /// FIN and ACK.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(flags::FIN | flags::ACK)
    }

    /// RST alone.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(flags::RST)
    }

    /// RST and ACK.
    #[must_use]
    pub fn rst_ack(self) -> Self {
        self.flags(flags::RST | flags::ACK)
    }

    /// These flags and no others.
    #[must_use]
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// With this sequence number.
    #[must_use]
    pub fn seq(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    /// Acknowledging up to this sequence number; the flag is another matter.
    #[must_use]
    pub fn acks(self, acknowledgement: u32) -> Self {
        Self { acknowledgement, ..self }
    }

    /// With this data.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// With this time to live or hop limit.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        self.with(|packet| packet.ip.ttl = ttl)
    }

    /// With this checksum.
    #[must_use]
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// With anything else changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// When options don't fill whole words: a test that wants that sets a wrong length.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        self.ethernet.around(&self.to_packet(), self.source.ip())
    }

    /// The IP packet alone.
    #[must_use]
    pub fn to_packet(&self) -> Vec<u8> {
        self.ip.around(self.source.ip(), self.destination.ip(), PROTOCOL_TCP, &self.segment())
    }

    /// Bytes of the IP packet.
    #[must_use]
    pub fn ip_length(&self) -> usize {
        self.ip.header_length(self.source.ip()) + self.tcp_length()
    }

    /// Bytes of the TCP segment.
    #[must_use]
    pub fn tcp_length(&self) -> usize {
        TCP_BYTES + self.options.len() + self.payload.len()
    }

    /// What the checksum field says.
    #[must_use]
    pub fn checksum_field(&self) -> u16 {
        let segment = self.segment();
        u16::from_be_bytes([segment[16], segment[17]])
    }

    fn segment(&self) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4), "TCP options fill whole words");
        let words = (TCP_BYTES + self.options.len()) as u8 / 4;
        let mut segment = Vec::new();
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([self.header_words.unwrap_or(words) << 4, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(&self.options);
        segment.extend(&self.payload);
        let pseudo = pseudo_header(self.source.ip(), self.destination.ip(), PROTOCOL_TCP, segment.len());
        let field = match self.checksum {
            Checksum::Right => checksum(&[&pseudo, &segment]),
            Checksum::WrongBy(error) => off_by(checksum(&[&pseudo, &segment]), error),
            Checksum::Partial => !checksum(&[&pseudo]),
        };
        segment[16..18].copy_from_slice(&field.to_be_bytes());
        segment
    }
}
