//! ICMP messages of both families: errors about TCP packets, and any others.

use std::net::IpAddr;

use super::sum::{checksum, off_by, pseudo_header};
use super::{Ethernet, Ip, Packet};

/// IP protocol of ICMP for IPv4.
pub const PROTOCOL_ICMP: u8 = 1;
/// Next header of ICMP for IPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// An ICMP message in an IP packet in an Ethernet frame. Its addresses tell the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The frame around it.
    pub ethernet: Ethernet,
    /// The IP header.
    pub ip: Ip,
    /// Who sends it.
    pub source: IpAddr,
    /// Who receives it.
    pub destination: IpAddr,
    /// What kind of message.
    pub kind: u8,
    /// The kind's kind.
    pub code: u8,
    /// The word after the checksum, which each kind uses as it likes.
    pub rest: [u8; 4],
    /// What follows the header.
    pub body: Body,
    /// Added, as one's complement numbers are, to the right checksum.
    pub checksum_by: u16,
}

/// What an ICMP message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Anything.
    Bytes(Vec<u8>),
    /// The beginning of a packet.
    Quote {
        /// The packet that the message is about.
        packet: Box<Packet>,
        /// So many bytes after its IP header, at most.
        content_bytes: usize,
        /// What comes after it, as extensions do (RFC 4884).
        then: Vec<u8>,
    },
}

impl Icmp {
    /// A message without a body.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        Self {
            ethernet: Ethernet::default(),
            ip: Ip::default(),
            source,
            destination,
            kind,
            code,
            rest: [0; 4],
            body: Body::Bytes(Vec::new()),
            checksum_by: 0,
        }
    }

    /// About this packet, which it quotes whole.
    #[must_use]
    pub fn about(self, packet: &Packet) -> Self {
        self.about_first(usize::MAX, packet)
    }

    /// About this packet, of which it quotes the headers of IP and so many bytes more.
    #[must_use]
    pub fn about_first(self, content_bytes: usize, packet: &Packet) -> Self {
        let packet = Box::new(packet.clone());
        Self { body: Body::Quote { packet, content_bytes, then: Vec::new() }, ..self }
    }

    /// With these bytes for a body.
    #[must_use]
    pub fn body(self, bytes: &[u8]) -> Self {
        Self { body: Body::Bytes(bytes.to_vec()), ..self }
    }

    /// With this word after the checksum.
    #[must_use]
    pub fn rest(self, rest: u32) -> Self {
        Self { rest: rest.to_be_bytes(), ..self }
    }

    /// With anything else changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The packet that it quotes.
    #[must_use]
    pub fn quoted(&self) -> Option<&Packet> {
        match &self.body {
            Body::Quote { packet, .. } => Some(packet),
            Body::Bytes(_) => None,
        }
    }

    /// The same message about that packet changed, as many bytes of it.
    #[must_use]
    pub fn quoting(mut self, change: impl FnOnce(&mut Packet)) -> Self {
        if let Body::Quote { packet, .. } = &mut self.body {
            change(packet);
        }
        self
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        self.ethernet.around(&self.to_packet(), self.source)
    }

    /// The IP packet alone.
    #[must_use]
    pub fn to_packet(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest);
        message.extend(self.body.bytes());
        let (protocol, pseudo) = match self.source {
            IpAddr::V4(_) => (PROTOCOL_ICMP, Vec::new()),
            IpAddr::V6(_) => {
                let pseudo = pseudo_header(self.source, self.destination, PROTOCOL_ICMPV6, message.len());
                (PROTOCOL_ICMPV6, pseudo)
            }
        };
        let checksum = off_by(checksum(&[&pseudo, &message]), self.checksum_by);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.ip.around(self.source, self.destination, protocol, &message)
    }
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Quote { packet, content_bytes, then } => {
                let mut quote = packet.to_packet();
                let header = packet.ip.header_length(packet.source.ip());
                quote.truncate(header.saturating_add(*content_bytes));
                quote.extend(then);
                quote
            }
        }
    }
}
