//! Flows: what the packet path remembers of a connection, one entry for each direction.

use super::address::{Address4, Address6, Port, WireAddress};
use super::way::NextHop;

/// A packet's own addresses: one direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey<A> {
    /// Who sends.
    pub source: A,
    /// Who receives.
    pub destination: A,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
}

impl<A: WireAddress> FlowKey<A> {
    /// The key of packets that answer this one.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// [`FlowEntry::side`]: packets from the client.
pub const SIDE_CLIENT: u8 = 1;
/// [`FlowEntry::side`]: packets from the backend.
pub const SIDE_BACKEND: u8 = 2;

/// One direction of a flow: the whole recipe for its packets, and what was seen of them.
///
/// The other direction's key is `becomes.reversed()`. Each entry is written by the packets of its own direction only;
/// but where the client is, both learn from the client's packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry<A> {
    /// The addresses and ports that a packet leaves with.
    pub becomes: FlowKey<A>,
    /// What the rewrite and the TTL do to the IP header's checksum (IPv6 has none).
    pub ip_delta: u16,
    /// What the rewrite does to the TCP checksum.
    pub tcp_delta: u16,
    /// The client's or its router's MAC address, and the slot of the interface that it is behind.
    pub client: NextHop,
    /// [`SIDE_CLIENT`] or [`SIDE_BACKEND`].
    pub side: u8,
    /// What was seen in this direction, see [`crate::flow::Seen`].
    pub seen: u8,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend; the client's side finds its [`NextHop`] by it.
    pub backend: u16,
    /// Zero.
    pub padding: u16,
    /// The first sequence number of this direction.
    pub first_sequence: u32,
    /// The last acknowledgement number of this direction: what its sender expects next.
    pub acknowledged: u32,
    /// Where this direction ends, if a FIN was seen: the acknowledgement number that confirms it.
    pub fin_end: u32,
    /// The other direction's packets at the last RST of this one (the low half): if there have been more since, the RST
    /// was not believed.
    pub packets_at_reset: u32,
    /// When the flow began, `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// When this direction had its last packet, `CLOCK_MONOTONIC`.
    pub last_seen_ns: u64,
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction, whole frames.
    pub bytes: u64,
}

// Sizes are sums of the fields, as everywhere here.
const _: () = assert!(size_of::<FlowKey<Address4>>() == 12);
const _: () = assert!(size_of::<FlowKey<Address6>>() == 36);
const _: () = assert!(size_of::<FlowEntry<Address4>>() == 80);
const _: () = assert!(size_of::<FlowEntry<Address6>>() == 104);
