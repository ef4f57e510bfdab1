//! Flows: what the packet path remembers of a connection, one line for each direction.
//!
//! A line is what every packet of its direction needs, in one cache line (IPv6: two). What only the beginning and the end
//! of a flow need stands apart when it is established, in its [`Past`]; while it is half-open, in the line, as its
//! [`Opening`]. How lines are found, claimed and given up is [`crate::table`].
//!
//! Who writes what, while a line is live: its [`State`](crate::table::State) changes by compare-and-swap alone, whoever
//! changes it, but for the time of the last packet, which the packet path stores into its upper half. Counters,
//! acknowledgement and way to the client are the packet path's, each by packets of the line's own direction (where the
//! client is, both learn from the client's); of an [`Opening`] what it has carried, and what a backend's says of its SYN-ACK.
//! A backend's half-open line is told the index of the client's before that one is published. Everything else is written
//! before the line is published, and never again.
//! The controller only takes lines out, by the same compare-and-swap.

use core::mem::offset_of;

use super::address::{Address4, Address6, Port, WireAddress};

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

    /// Tells clients' flows apart, well enough to know whether two are one: of who sends the low bits and the port.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        u64::from(self.source.low_bits()) << 16 | u64::from(self.source_port.number())
    }

    /// Both ports as the word that they are in a header.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        self.source_port.to_word_with(self.destination_port)
    }
}

/// Words of a [`Seed`]: one for each word of the longest key, and one on top.
pub const SEED_WORDS: usize = 10;

/// What the hash of flows is made with: random, kept with the tables, and nobody's to know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed(pub [u64; SEED_WORDS]);

/// One direction of a live flow: the whole recipe for its packets, and what they keep up to date.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line<A: WireAddress> {
    /// A [`State`](crate::table::State).
    pub state: u64,
    /// What the direction's packets look like.
    pub key: FlowKey<A>,
    /// The addresses and ports that a packet leaves with.
    pub becomes: FlowKey<A>,
    /// What the rewrite and the TTL do to the IP header's checksum (IPv6 has none).
    pub ip_delta: u16,
    /// What the rewrite does to the TCP checksum.
    pub tcp_delta: u16,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend; the client's side finds its [`NextHop`](super::NextHop) by it. 0: it has none yet, and the
    /// client's SYN is held; such a line has no twin.
    pub backend: u16,
    /// The client's or its router's MAC address, and the slot of the interface that it is behind: the word of a
    /// [`NextHop`](super::NextHop).
    pub client: u64,
    /// The last acknowledgement number of this direction: what its sender expects next. From here on a half-open flow's line
    /// has its [`Opening`].
    pub acknowledged: u32,
    /// Packets of this direction, the low half of [`Carried`].
    pub packets: u32,
    /// Bytes and the rest of the packets, see [`Carried`].
    pub bytes: u64,
    /// Zero.
    pub rest: A::Rest,
}

/// Packets and bytes of a direction in the twelve bytes that a line has for them: 44 bits of packets and 52 bits of bytes,
/// which is 4.5 petabytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// [`Line::packets`].
    pub low: u32,
    /// [`Line::bytes`].
    pub high: u64,
}

impl Carried {
    const BYTES_BITS: u32 = 52;

    /// With one more packet of so many bytes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, bytes: u64) -> Self {
        let low = self.low.wrapping_add(1);
        let carry = if low == 0 { 1 << Self::BYTES_BITS } else { 0 };
        Self { low, high: self.high.wrapping_add(bytes).wrapping_add(carry) }
    }

    /// How many packets.
    pub const fn packets(self) -> u64 {
        (self.high >> Self::BYTES_BITS) << 32 | self.low as u64
    }

    /// How many bytes, whole frames.
    pub const fn bytes(self) -> u64 {
        self.high & ((1 << Self::BYTES_BITS) - 1)
    }
}

/// What a half-open flow's line has in the place of acknowledgement and counters: what an established one has in its
/// [`Past`], and the little that it has carried. So the packets of a handshake need its two lines and nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The other direction's line, as [`Past::twin`].
    pub twin: u32,
    /// The first sequence number of this direction.
    pub first_sequence: u32,
    /// At the client's line: when the flow began, as [`Past::began`]. At the backend's: what that has acknowledged, as
    /// [`Line::acknowledged`].
    pub began_or_acknowledged: u32,
    /// A [`CarriedSoFar`].
    pub carried: u32,
}

/// Packets and bytes of a direction before the handshake is complete: SYNs of a client, SYN-ACKs and early data of a backend. 12
/// bits of packets and 20 bits of bytes; what comes on top isn't counted. Early data is a few initial windows of ten segments,
/// and a client that repeats its SYN as often as that isn't one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarriedSoFar(pub u32);

impl CarriedSoFar {
    const BYTES_BITS: u32 = 20;
    const MOST_BYTES: u64 = (1 << Self::BYTES_BITS) - 1;
    const MOST_PACKETS: u32 = u32::MAX >> Self::BYTES_BITS;

    /// With one more packet of so many bytes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, bytes: u64) -> Self {
        let (packets, sum) = (self.0 >> Self::BYTES_BITS, (self.0 as u64 & Self::MOST_BYTES) + bytes);
        if packets == Self::MOST_PACKETS || sum > Self::MOST_BYTES {
            return self;
        }
        Self((packets + 1) << Self::BYTES_BITS | sum as u32)
    }

    /// As an established flow goes on to count.
    #[inline(always)]
    pub const fn carried(self) -> Carried {
        Carried { low: self.0 >> Self::BYTES_BITS, high: self.0 as u64 & Self::MOST_BYTES }
    }
}

/// What only the beginning and the end of an established flow need, at the index of its line. Written by the packet path
/// alone.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// When the flow began, in ticks of [`Clock`].
    pub began: u32,
    /// The other direction's line in the same table. Whoever follows it compares keys: the line may be another flow's by
    /// now.
    pub twin: u32,
    /// The first sequence number of this direction.
    pub first_sequence: u32,
    /// Where this direction ends, if a FIN was seen: the acknowledgement number that confirms it.
    pub fin_end: u32,
    /// The other direction's packets at the last RST of this one (the low half): if there have been more since, the RST
    /// was not believed.
    pub packets_at_reset: u32,
    /// Zero.
    pub padding: u32,
}

/// What is needed to send a client's SYN again.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSyn {
    /// TCP options as they stand in the header, `options_length` of them, the others zero.
    pub options: [u32; 10],
    /// The window, as it stands in the header.
    pub window: [u8; 2],
    /// Bytes of options, whole words; and [`SavedSyn::HAD_DATA`] and [`SavedSyn::HAD_IP_OPTIONS`].
    pub options_length: u8,
    /// TCP flags: SYN, and what goes with it (ECN).
    pub flags: u8,
    /// IPv4's type of service, IPv6's traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// The checksum that it came with, less what was in the header and isn't kept: it is that of what is written anew, if it
    /// was right.
    pub check: [u8; 2],
}

impl SavedSyn {
    /// In [`SavedSyn::options_length`]: data followed, which isn't kept, so nobody knows whether its checksum was right.
    pub const HAD_DATA: u8 = 1;
    /// In [`SavedSyn::options_length`]: there were IP options or extension headers, which aren't kept either. A server need not
    /// like them.
    pub const HAD_IP_OPTIONS: u8 = 2;
}

/// What is kept of a half-open flow at the index of its client's line, in one cache line. Written by the packet path alone.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSyn {
    /// The client's SYN.
    pub syn: SavedSyn,
    /// Backends that did not take it, by slot modulo 64: in a pool of more, one may be passed over for another.
    pub tried: u64,
    /// Zero.
    pub padding: u64,
}

/// How many flows are in a table: begun less ended less swept. Both directions together are one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Flows that were made. Writer: packet path.
    pub begun: u64,
    /// Flows that the packet path forgot. Writer: packet path.
    pub ended: u64,
    /// Flows that the controller took out. Writer: controller.
    pub swept: u64,
    /// When a flow last had to make room for a newer one, in ticks of [`Clock`]; 0: never. Writer: packet path.
    pub evicted: u64,
    /// When a SYN last went on to another backend, as `evicted`. Writer: packet path.
    pub retried: u64,
    /// Zero.
    pub padding: [u64; 3],
}

impl Count {
    /// How many there are. Of words that were not read in one go, so never less than none.
    #[inline(always)]
    pub const fn flows(&self) -> u64 {
        let flows = self.begun.wrapping_sub(self.ended).wrapping_sub(self.swept);
        if flows >> 63 == 0 { flows } else { 0 }
    }
}

/// The packet path's clock beside the controller's, read at the same moment. Lines keep the kernel's `jiffies`, which cost
/// a load, in ticks of [`JIFFIES_PER_TICK`](crate::limits::JIFFIES_PER_TICK).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The kernel's `jiffies`, 64 bits of it.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
}

/// Whether an [`Opening`] takes the place of whole words of a line, and of nothing else.
const fn opening_is_over_the_counters<A: WireAddress>() -> bool {
    let (first, last) = (offset_of!(Line<A>, acknowledged), offset_of!(Line<A>, bytes));
    first.is_multiple_of(size_of::<u64>()) && first + size_of::<Opening>() == last + size_of::<u64>()
}

// Sizes are sums of the fields, as everywhere here.
const _: () = assert!(size_of::<FlowKey<Address4>>() == 12);
const _: () = assert!(size_of::<FlowKey<Address6>>() == 36);
const _: () = assert!(size_of::<Line<Address4>>() == 8 + 12 + 12 + 8 + 8 + 8 + 8);
const _: () = assert!(size_of::<Line<Address6>>() == 8 + 36 + 36 + 8 + 8 + 8 + 8 + 16);
const _: () = assert!(size_of::<Past>() == 24);
const _: () = assert!(size_of::<SavedSyn>() == 48);
const _: () = assert!(size_of::<ClientSyn>() == 48 + 8 + 8);
const _: () = assert!(size_of::<Opening>() == 4 + 4 + 8);
const _: () =
    assert!(opening_is_over_the_counters::<Address4>() && opening_is_over_the_counters::<Address6>());
const _: () = assert!(size_of::<Count>() == 64);
const _: () = assert!(size_of::<Clock>() == 16);
const _: () = assert!(SEED_WORDS == 1 + 2 * <Address6 as WireAddress>::WORDS + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_bytes_are_kept_apart() {
        let mut traffic = Carried { low: u32::MAX, high: 7 };
        assert_eq!((traffic.packets(), traffic.bytes()), (u64::from(u32::MAX), 7));
        traffic = traffic.and(1500);
        assert_eq!((traffic.packets(), traffic.bytes()), (1 << 32, 1507));
        traffic = traffic.and(60);
        assert_eq!((traffic.packets(), traffic.bytes()), ((1 << 32) + 1, 1567));
    }

    #[test]
    fn a_handshake_counts_until_its_word_is_full() {
        let so_far = CarriedSoFar::default().and(74).and(66);
        let carried = so_far.carried();
        assert_eq!((carried.packets(), carried.bytes()), (2, 140));
        let many = (0..5000).fold(so_far, |so_far, _| so_far.and(60)).carried();
        assert_eq!((many.packets(), many.bytes()), (4095, 140 + 4093 * 60));
        let long = (0..20).fold(so_far, |so_far, _| so_far.and(65_000)).carried();
        assert_eq!((long.packets(), long.bytes()), (18, 140 + 16 * 65_000));
    }

    #[test]
    fn a_count_is_never_less_than_none() {
        assert_eq!(Count { begun: 5, ended: 2, swept: 1, ..Count::default() }.flows(), 2);
        assert_eq!(Count { begun: 5, ended: 6, ..Count::default() }.flows(), 0);
    }

    #[test]
    fn ports_stand_as_in_a_header() {
        let key: FlowKey<Address4> = FlowKey {
            source_port: Port::new(0x0102),
            destination_port: Port::new(0x0304),
            ..FlowKey::default()
        };
        assert_eq!(key.ports().to_ne_bytes(), [1, 2, 3, 4]);
    }
}
