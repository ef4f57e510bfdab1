//! Every type that crosses the kernel boundary, with its layout asserted at compile time.
//!
//! Integers and byte arrays only, no implicit padding. Addresses and ports keep the byte order of the wire. Who may
//! write what: the controller writes everything except flows and counters; the packet path writes those. Of a flow
//! the controller only removes both entries, when the flow has outlived its time.

use core::net::{Ipv4Addr, SocketAddrV4};

use crate::limits::{MAX_PORT_RANGES, NAME_BYTES};

/// Version of everything in this file and in the map definitions. Part of the pin path: another layout never meets
/// maps made by this one.
pub const LAYOUT_VERSION: u32 = 1;

/// An IPv4 address as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u32);

impl Address {
    /// From the bytes of a header.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The bytes for a header.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_wire(address.octets())
    }
}

impl From<Address> for Ipv4Addr {
    fn from(address: Address) -> Self {
        Self::from(address.to_wire())
    }
}

/// A TCP port as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// From the bytes of a header.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The bytes for a header.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// From the number that people write.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self::from_wire(number.to_be_bytes())
    }

    /// The number that people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.to_wire())
    }
}

/// Key of a service: its listen address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The VIP.
    pub address: Address,
    /// The port that clients connect to.
    pub port: Port,
    /// Zero.
    pub padding: u16,
}

impl From<SocketAddrV4> for ServiceKey {
    fn from(listen: SocketAddrV4) -> Self {
        Self { address: (*listen.ip()).into(), port: Port::new(listen.port()), padding: 0 }
    }
}

impl From<ServiceKey> for SocketAddrV4 {
    fn from(key: ServiceKey) -> Self {
        Self::new(key.address.into(), key.port.number())
    }
}

/// A service, found by its [`ServiceKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Index of its counters.
    pub slot: u16,
    /// Index of its pool.
    pub pool: u16,
    /// The port on the backends.
    pub backend_port: Port,
    /// Zero.
    pub padding: u16,
    /// Its name, zero-filled: the tables explain themselves, also without a controller.
    pub name: [u8; NAME_BYTES],
}

/// Ports `first ..= first + count - 1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port, as a number.
    pub first: u16,
    /// How many ports.
    pub count: u16,
}

/// A pool's settings; which backend is active stands apart, in its [`ActiveWord`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How many of `snat_ports` are in use; 0: this slot holds no pool.
    pub snat_range_count: u32,
    /// Ports in all ranges together.
    pub snat_port_count: u32,
    /// Ports for the gateway's side of flows to backends.
    pub snat_ports: [PortRange; MAX_PORT_RANGES],
    /// Its name, zero-filled.
    pub name: [u8; NAME_BYTES],
}

/// A backend, found by its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is; all zero: this slot holds no backend.
    pub address: Address,
    /// The gateway's address towards it.
    pub snat_address: Address,
    /// Slot of its pool.
    pub pool: u32,
    /// Its name, zero-filled.
    pub name: [u8; NAME_BYTES],
}

/// Which backend a pool's new flows go to: one aligned word, so that a change is one store, seen by all services of the
/// pool at once. The packet path reads only the backend; the rest is what a controller has to know that comes after this
/// one: what the operator asked for, and the id of the last change.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveWord(pub u64);

impl ActiveWord {
    /// The word for a backend's slot (0: none), the controller's mark and the last change's id.
    pub const fn new(backend: u16, mark: u16, change: u32) -> Self {
        Self(backend as u64 | (mark as u64) << 16 | (change as u64) << 32)
    }

    /// The backend's slot; `None` while the pool has none.
    #[inline(always)]
    pub const fn backend(self) -> Option<u16> {
        match self.0 as u16 {
            0 => None,
            slot => Some(slot),
        }
    }

    /// What the controller wants to remember with it; means nothing here.
    pub const fn mark(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The id of the change that led to it.
    pub const fn change(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How frames reach a backend: also one word, as a neighbour may change under traffic.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Destination address of the frame.
    pub mac: [u8; 6],
    /// Slot of the interface; 0: not resolved.
    pub interface: u16,
}

impl NextHop {
    /// As the word that is stored.
    pub const fn to_word(self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        let [low, high] = self.interface.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, low, high])
    }

    /// From the stored word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, low, high] = word.to_ne_bytes();
        Self { mac: [a, b, c, d, e, f], interface: u16::from_ne_bytes([low, high]) }
    }
}

/// An interface that frames may leave through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index; 0: this slot holds no interface.
    pub ifindex: u32,
    /// The largest IP packet that it takes.
    pub mtu: u32,
    /// Source address of frames.
    pub mac: [u8; 6],
    /// Zero.
    pub padding: u16,
}

/// A packet's own addresses: one direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Who sends.
    pub source: Address,
    /// Who receives.
    pub destination: Address,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
}

impl FlowKey {
    /// The key of packets that answer this one.
    #[inline(always)]
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
/// The other direction's key is `becomes.reversed()`. Each entry is written by the packets of its own direction only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// The addresses and ports that a packet leaves with.
    pub becomes: FlowKey,
    /// What the rewrite and the TTL do to the IP header's checksum.
    pub ip_delta: u16,
    /// What the rewrite does to the TCP checksum.
    pub tcp_delta: u16,
    /// [`SIDE_CLIENT`] or [`SIDE_BACKEND`].
    pub side: u8,
    /// What was seen in this direction, see [`crate::flow::Seen`].
    pub seen: u8,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend; the client's side finds its [`NextHop`] by it.
    pub backend: u16,
    /// Backend's side: slot of the interface that the client is behind.
    pub interface: u16,
    /// Backend's side: the client's or its router's MAC address.
    pub mac: [u8; 6],
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

/// Traffic of a service or a backend, both directions; one a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Completed handshakes.
    pub new_flows: u64,
    /// Packets that were forwarded.
    pub packets: u64,
    /// Their bytes, whole frames.
    pub bytes: u64,
}

// Sizes are sums of the fields: nothing is padded implicitly, and both sides see the same bytes.
const _: () = assert!(size_of::<ServiceKey>() == 8);
const _: () = assert!(size_of::<Service>() == 8 + NAME_BYTES);
const _: () = assert!(size_of::<Pool>() == 8 + 4 * MAX_PORT_RANGES + NAME_BYTES);
const _: () = assert!(size_of::<Backend>() == 12 + NAME_BYTES);
const _: () = assert!(size_of::<ActiveWord>() == 8 && align_of::<ActiveWord>() == 8);
const _: () = assert!(size_of::<NextHop>() == 8 && align_of::<NextHop>() == 8);
const _: () = assert!(size_of::<Interface>() == 16);
const _: () = assert!(size_of::<FlowKey>() == 12);
const _: () = assert!(size_of::<FlowEntry>() == 80);
const _: () = assert!(size_of::<Traffic>() == 24);

/// A name for the kernel's tables: zero-filled, cut to what fits (the configuration allows no longer ones).
pub fn name_bytes(name: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(NAME_BYTES - 1)) {
        *to = from;
    }
    bytes
}

/// The name in zero-filled bytes; empty if they aren't text.
pub fn name_text(bytes: &[u8; NAME_BYTES]) -> &str {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    core::str::from_utf8(&bytes[..length]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_active_word_keeps_its_parts_apart() {
        let word = ActiveWord::new(4095, 0x8001, u32::MAX);
        assert_eq!((word.backend(), word.mark(), word.change()), (Some(4095), 0x8001, u32::MAX));
        assert_eq!(ActiveWord::default().backend(), None);
    }

    #[test]
    fn a_next_hop_survives_its_word() {
        let hop = NextHop { mac: [2, 0, 0, 0xaa, 0xbb, 0xcc], interface: 0x0102 };
        assert_eq!(NextHop::from_word(hop.to_word()), hop);
    }

    #[test]
    fn names_come_back_whole_or_cut() {
        assert_eq!(name_text(&name_bytes("passwords")), "passwords");
        let long = "x".repeat(100);
        assert_eq!(name_text(&name_bytes(&long)).len(), NAME_BYTES - 1);
    }

    #[test]
    fn ports_are_numbers_for_people_and_bytes_for_the_wire() {
        assert_eq!(Port::new(443).to_wire(), [1, 187]);
        assert_eq!(Port::from_wire([1, 187]).number(), 443);
    }
}
