//! TCP packets for tests: built field by field, with every field open to nonsense, and whole frames compared by field.
//!
//! Checksums are summed from scratch over the finished bytes, and a translated packet is built anew from its fields:
//! nothing here knows the product's arithmetic, so the two can't be wrong in the same way. Deliberately absent:
//! other protocols (their frames pass untouched, so any bytes do) and any notion of a gateway.

mod difference;

use std::net::SocketAddrV4;

pub use difference::difference;

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

/// A hardware address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// Bit of [`Packet::fragment`]: don't fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Bit of [`Packet::fragment`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const PROTOCOL_TCP: u8 = 6;

/// A TCP segment in an IPv4 packet in an Ethernet frame. Lengths and checksums are right unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet: to whom.
    pub destination_mac: Mac,
    /// Ethernet: from whom.
    pub source_mac: Mac,
    /// Ethernet: what is inside.
    pub ether_type: u16,
    /// IP: DSCP and ECN.
    pub tos: u8,
    /// IP: identification.
    pub id: u16,
    /// IP: flags and fragment offset, the whole word.
    pub fragment: u16,
    /// IP: time to live.
    pub ttl: u8,
    /// IP: options, a multiple of four bytes and at most 40.
    pub ip_options: Vec<u8>,
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// TCP: sequence number.
    pub sequence: u32,
    /// TCP: acknowledgement number.
    pub acknowledgement: u32,
    /// TCP: flag byte, see [`flags`].
    pub flags: u8,
    /// TCP: window.
    pub window: u16,
    /// TCP: urgent pointer.
    pub urgent: u16,
    /// TCP: options, a multiple of four bytes and at most 40.
    pub tcp_options: Vec<u8>,
    /// TCP: data.
    pub payload: Vec<u8>,
    /// Ethernet: bytes after the IP packet.
    pub padding: Vec<u8>,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// Deliberate mistakes; the default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// IP version instead of 4.
    pub version: Option<u8>,
    /// IP header length in words instead of the true one.
    pub ip_header_words: Option<u8>,
    /// IP total length instead of the true one.
    pub total_length: Option<u16>,
    /// TCP header length in words instead of the true one.
    pub tcp_header_words: Option<u8>,
    /// Added, as one's complement numbers are, to the right IP checksum.
    pub ip_checksum_by: u16,
    /// Added, as one's complement numbers are, to the right TCP checksum.
    pub tcp_checksum_by: u16,
    /// The frame ends after this many bytes.
    pub cut_to: Option<usize>,
}

impl Packet {
    /// A segment without flags, options and data, as a Linux host would fill in the rest.
    #[must_use]
    pub fn new(source: SocketAddrV4, destination: SocketAddrV4) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            ether_type: IPV4,
            tos: 0,
            id: 0x1d2e,
            fragment: DONT_FRAGMENT,
            ttl: 64,
            ip_options: Vec::new(),
            source,
            destination,
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
            window: 64240,
            urgent: 0,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            padding: Vec::new(),
            wrong: Wrong::default(),
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

    /// With this time to live.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
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
    /// When options don't fill whole words: a test that wants that sets [`Packet::wrong`].
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        assert!(self.ip_options.len().is_multiple_of(4) && self.tcp_options.len().is_multiple_of(4));
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        frame.extend(self.ether_type.to_be_bytes());
        let segment = self.segment();
        frame.extend(self.ip_header(segment.len()));
        frame.extend(segment);
        frame.extend(&self.padding);
        frame.truncate(self.wrong.cut_to.unwrap_or(frame.len()));
        frame
    }

    /// Bytes of the IP packet.
    #[must_use]
    pub fn ip_length(&self) -> usize {
        IP_BYTES + self.ip_options.len() + TCP_BYTES + self.tcp_options.len() + self.payload.len()
    }

    fn ip_header(&self, segment_bytes: usize) -> Vec<u8> {
        let header_bytes = IP_BYTES + self.ip_options.len();
        let words = self.wrong.ip_header_words.unwrap_or(header_bytes as u8 / 4);
        let total = self.wrong.total_length.unwrap_or((header_bytes + segment_bytes) as u16);
        let mut header = vec![self.wrong.version.unwrap_or(4) << 4 | words, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, PROTOCOL_TCP, 0, 0]);
        header.extend(self.source.ip().octets());
        header.extend(self.destination.ip().octets());
        header.extend(&self.ip_options);
        let checksum = off_by(checksum(&[&header]), self.wrong.ip_checksum_by);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn segment(&self) -> Vec<u8> {
        let words = (TCP_BYTES + self.tcp_options.len()) as u8 / 4;
        let mut segment = Vec::new();
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([self.wrong.tcp_header_words.unwrap_or(words) << 4, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(&self.tcp_options);
        segment.extend(&self.payload);
        let mut pseudo = Vec::new();
        pseudo.extend(self.source.ip().octets());
        pseudo.extend(self.destination.ip().octets());
        pseudo.extend([0, PROTOCOL_TCP]);
        pseudo.extend((segment.len() as u16).to_be_bytes());
        let checksum = off_by(checksum(&[&pseudo, &segment]), self.wrong.tcp_checksum_by);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }
}

/// RFC 1071: the complement of the one's complement sum of all 16-bit words. Every part but the last has an even
/// number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    !fold(sum.sum())
}

/// A checksum that is wrong by `error`. One's complement has two zeros; this gives the one that a right sum never is
/// for an error, and the right sum itself for none.
fn off_by(right: u16, error: u16) -> u16 {
    if error == 0 {
        return right;
    }
    match fold(u32::from(right) + u32::from(error)) {
        0xffff => 0,
        wrong => wrong,
    }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn packet() -> Packet {
        let source = "203.0.113.7:40000".parse().unwrap();
        Packet::new(source, "203.0.113.10:443".parse().unwrap())
    }

    #[test]
    fn another_implementation_reads_what_was_built() {
        let built = packet().syn_ack().seq(7).acks(9).ttl(3).payload(b"odd").with(|packet| {
            packet.tcp_options = vec![2, 4, 5, 0xb4];
            packet.ip_options = vec![148, 4, 0, 0];
            packet.tos = 0xb9;
        });
        let frame = built.to_frame();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport)
        else {
            panic!("{frame:02x?}")
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.time_to_live, header.dscp.value(), header.ecn.value()), (3, 46, 1));
        assert_eq!(
            tcp.checksum(),
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
        );
        assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (7, 9));
        assert_eq!((tcp.options(), tcp.payload()), (&[2, 4, 5, 0xb4][..], &b"odd"[..]));
        assert!(tcp.syn() && tcp.ack() && !tcp.fin());
    }

    #[test]
    fn the_worked_example_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn a_wrong_checksum_is_wrong_by_what_was_asked_for() {
        let right = packet().to_frame();
        let wrong = packet().with(|packet| packet.wrong.tcp_checksum_by = 5).to_frame();
        let seen = difference(&right, &wrong).unwrap();
        assert!(seen.contains("TCP checksum") && seen.lines().count() == 1, "{seen}");
    }

    #[test]
    fn mistakes_are_made_as_asked_for() {
        let frame = packet()
            .with(|packet| {
                packet.wrong.ip_header_words = Some(4);
                packet.wrong.tcp_header_words = Some(15);
                packet.wrong.total_length = Some(1000);
                packet.wrong.cut_to = Some(40);
            })
            .to_frame();
        assert_eq!((frame.len(), frame[14], frame[16..18].to_vec()), (40, 0x44, vec![3, 232]));
    }
}
