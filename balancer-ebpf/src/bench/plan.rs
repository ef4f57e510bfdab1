//! What the harness tells the feeder: which packets to make. Compiled into both sides, and words only, so that neither
//! needs a type of the other.

/// Words of eight bytes in an IPv4 frame: the shortest that Ethernet has.
pub(crate) const WORDS_4: usize = 8;
/// And in an IPv6 one, whose headers alone are longer than that.
pub(crate) const WORDS_6: usize = 11;

/// A number of the packet that depends on which flow it belongs to: `first + (flow >> shift & mask)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of flow 0.
    pub(crate) first: u64,
    /// Flows that have the same one, as a power of two.
    pub(crate) shift: u64,
    /// The highest one less `first`; all ones in binary.
    pub(crate) mask: u64,
}

/// A sequence of packets that are alike but for addresses and ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The frame of flow 0 as it is in memory, checksums included.
    pub(crate) frame: [u64; WORDS_6],
    /// Whether the frame is an IPv6 one of [`WORDS_6`], or an IPv4 one of [`WORDS_4`].
    pub(crate) is_ipv6: u64,
    /// What the IP checksum of `frame` stands for, as a number.
    pub(crate) ip_sum: u64,
    /// What the TCP checksum of `frame` stands for, as a number.
    pub(crate) tcp_sum: u64,
    /// The low 32 bits of the source address.
    pub(crate) source: Part,
    /// The low 32 bits of the destination address.
    pub(crate) destination: Part,
    /// The source port.
    pub(crate) source_port: Part,
    /// The destination port.
    pub(crate) destination_port: Part,
    /// The lowest flow.
    pub(crate) first: u64,
    /// How many flows there are, less one; all ones in binary.
    pub(crate) mask: u64,
    /// From flow to flow, modulo their number; odd, so that each has its turn.
    pub(crate) step: u64,
    /// Packets made so far.
    pub(crate) made: u64,
}

/// Kinds of packets in a storm.
pub(crate) const KINDS: usize = 64;

/// One CPU's part of a storm.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storm {
    /// Where its pseudo-random sequence is; never zero.
    pub(crate) random: u64,
    /// How many flows there are, less one; all ones in binary.
    pub(crate) mask: u64,
    /// Packets made so far.
    pub(crate) made: u64,
}
