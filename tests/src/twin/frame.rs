//! From a segment as a sender thinks of it to the bytes of a frame.
//!
//! Written by etherparse, because nothing is expected of these bytes but to come out of both gateways alike: what is right
//! is known to the kernel's gateway, not to this file.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, TcpHeader, TcpOptions,
};

use super::scene::{BACKEND_MAC, CLIENT_MAC, End, LAN_MAC, WAN_MAC};
use crate::packet::{Mac, flags};

/// Where the checksum is in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Of an Ethernet header.
pub(super) const ETHERNET_BYTES: usize = 14;

/// What an IP header says beside addresses and lengths; each version takes what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IPv4: identification.
    pub id: u16,
    /// IPv4: don't fragment.
    pub dont_fragment: bool,
    /// IPv4: options, in whole words.
    pub options: Vec<u8>,
    /// IPv6: flow label, 20 bits.
    pub flow_label: u32,
    /// IPv6: the hop-by-hop options' header, 6 bytes and as many times 8 as wanted.
    pub hop_by_hop: Option<Vec<u8>>,
    /// IPv6: the destination options' header, as above.
    pub destination: Option<Vec<u8>>,
}

impl Envelope {
    /// As most hosts send.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            tos: 0,
            ttl: 64,
            id: 0x1d2e,
            dont_fragment: true,
            options: Vec::new(),
            flow_label: 0,
            hop_by_hop: None,
            destination: None,
        }
    }

    /// Bytes of the extension headers.
    #[must_use]
    pub fn extension_bytes(&self) -> usize {
        let headers = [&self.hop_by_hop, &self.destination];
        // Each has two bytes before what is written here.
        headers.into_iter().flatten().map(|body| body.len() + 2).sum()
    }
}

/// A TCP segment without addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Flag byte, see `packet::flags`.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; filled up to whole words with end-of-list.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
    /// Around it.
    pub envelope: Envelope,
    /// Instead of the right checksum.
    pub checksum: Option<u16>,
    /// Bytes of the frame after the packet.
    pub padding: usize,
}

impl Segment {
    /// With these flags, and nothing else of note.
    #[must_use]
    pub fn plain(flags: u8) -> Self {
        Self {
            flags,
            sequence: 0,
            acknowledgement: 0,
            window: 64240,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
            envelope: Envelope::plain(),
            checksum: None,
            padding: 0,
        }
    }

    /// The frame that carries it from one end of the lab towards the gateway.
    ///
    /// # Errors
    /// When options are longer than a header can be.
    pub fn to_frame(&self, from: End, source: SocketAddr, destination: SocketAddr) -> Result<Vec<u8>> {
        let options = TcpOptions::try_from_slice(&self.options).context("TCP options")?;
        let has = |flag: u8| self.flags & flag != 0;
        let mut header = TcpHeader::new(source.port(), destination.port(), self.sequence, self.window);
        header.acknowledgment_number = self.acknowledgement;
        header.urgent_pointer = self.urgent;
        header.options = options;
        (header.fin, header.syn, header.rst) = (has(flags::FIN), has(flags::SYN), has(flags::RST));
        (header.psh, header.ack, header.urg) = (has(flags::PSH), has(flags::ACK), has(flags::URG));
        (header.ece, header.cwr) = (has(flags::ECE), has(flags::CWR));
        let header_bytes = header.header_len();
        let (destination_mac, source_mac) = macs(from);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(source_mac, destination_mac)
            .ip(self.envelope.headers(source.ip(), destination.ip())?)
            .tcp_header(header)
            .write(&mut frame, &self.payload)
            .context("write a frame")?;
        if let Some(wrong) = self.checksum {
            let at = frame.len() - self.payload.len() - header_bytes + TCP_CHECKSUM;
            frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        }
        frame.resize(frame.len() + self.padding, 0);
        Ok(frame)
    }
}

/// Destination and source of a frame that an end sends to the gateway.
pub(super) fn macs(from: End) -> (Mac, Mac) {
    match from {
        End::Client => (WAN_MAC, CLIENT_MAC),
        End::Backend => (LAN_MAC, BACKEND_MAC),
    }
}

impl Envelope {
    /// The IP headers from one address to another; lengths and checksums come with what they carry.
    pub(super) fn headers(&self, source: IpAddr, destination: IpAddr) -> Result<IpHeaders> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, IpNumber::TCP, source.octets(), destination.octets())
                        .context("an IPv4 header")?;
                header.dscp = (self.tos >> 2).try_into().context("DSCP")?;
                header.ecn = (self.tos & 3).try_into().context("ECN")?;
                header.identification = self.id;
                header.dont_fragment = self.dont_fragment;
                header.options = Ipv4Options::try_from(self.options.as_slice()).context("IPv4 options")?;
                Ok(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).context("flow label")?,
                    payload_length: 0,
                    next_header: IpNumber::TCP,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                let raw = |body: &Option<Vec<u8>>| {
                    body.as_ref().map(|body| Ipv6RawExtHeader::new_raw(IpNumber::TCP, body)).transpose()
                };
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: raw(&self.hop_by_hop).context("hop-by-hop options")?,
                    destination_options: raw(&self.destination).context("destination options")?,
                    ..Ipv6Extensions::default()
                };
                Ok(IpHeaders::Ipv6(header, extensions))
            }
            (source, destination) => anyhow::bail!("{source} and {destination} are of two families"),
        }
    }
}
