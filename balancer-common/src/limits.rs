//! Names and capacities that both sides compile in, each with the reason for its number.

/// Bytes of a pool's, service's or backend's name in the kernel's tables: 63 and a terminating zero, as a DNS label.
pub const NAME_BYTES: usize = 64;

/// Pools: one word each in the `ACTIVE` array, which is one page.
pub const MAX_POOLS: usize = 256;

/// Slots for backends. A slot is taken by one (pool, backend) pair, so this is 16 a pool. Slot 0 is never used: a
/// zeroed word means "no backend".
pub const MAX_BACKENDS: usize = 4096;

/// Backends behind the active one that a connection attempt may go on to: as many as there are in a pool if all pools
/// have as many.
pub const MAX_SUCCESSORS: usize = 16;

/// Slots for services, 16 a pool; slot 0 is never used.
pub const MAX_SERVICES: usize = 4096;

/// Slots for interfaces; slot 0 is never used.
pub const MAX_INTERFACES: usize = 17;

/// Addresses that listen, addresses of backends and SNAT addresses, each at most once for what it is.
pub const MAX_ADDRESSES: usize = 16_384;

/// Ranges of SNAT ports in a pool after the kernel's own and those that listen were taken out; bounds a loop in the
/// packet path.
pub const MAX_PORT_RANGES: usize = 32;

/// SNAT addresses of a pool: with about 36,000 ports each, half a million flows to one port of one backend.
pub const MAX_SNAT_ADDRESSES: usize = 16;

/// How many SNAT ports a new flow tries before it is refused. With half of the ports in use one SYN in 65,536 finds
/// none, and its client sends it again.
pub const PORT_TRIES: u32 = 16;

/// After this many tries a new flow takes the port of a closed one, if it met one; so that many closed flows, which are
/// forgotten later, don't make every new one search to the end.
pub const PORT_TRIES_FOR_FREE: u32 = 4;

/// IPv6 extension headers before TCP; more than hosts send, and few enough to look at.
pub const MAX_EXTENSION_HEADERS: usize = 6;

/// The kernel's own limit for its answers is 1,000 a second (`net.ipv4.icmp_msgs_per_sec`). Ours is as many for each CPU,
/// in moments of an eighth of a second: 2^27 ns.
pub const ANSWER_MOMENT_NS: u64 = 1 << 27;

/// Answers a CPU sends in a moment: 954 a second.
pub const ANSWERS_PER_MOMENT: u64 = 128;

/// Failed connection attempts are told to the controller in moments of an eighth of a second: 2^27 ns.
pub const FAILURE_MOMENT_NS: u64 = 1 << 27;

/// Failed connection attempts of one backend that are told in a moment: two flows say all that a policy wants to know, and
/// some of them may be one flow's.
pub const FAILURES_PER_MOMENT: u64 = 8;

/// Bytes of the buffer for what the controller is told, a power of two and whole pages: 24 a failure, some 2,700 in all.
pub const FAILURES_BYTES: usize = 65_536;

/// Traces at once: a few people with a terminal or two. While there is any, each packet is compared with all of them.
pub const MAX_TRACES: usize = 4;

/// Traced packets are counted in moments of an eighth of a second: 2^27 ns.
pub const TRACE_MOMENT_NS: u64 = 1 << 27;

/// Segments of established flows that went on, of which a CPU tells a trace so many in a moment: 119 a second are more than
/// anybody reads.
pub const TRACED_USUAL: u32 = 16;

/// The same of all other packets, which the usual ones must not drown: 477 a second.
pub const TRACED_UNUSUAL: u32 = 64;

/// Bytes of the buffer for traced packets, a power of two and whole pages: 120 a packet, some 2,100 in all. What a few CPUs
/// may tell in a moment.
pub const TRACES_BYTES: usize = 262_144;

/// Bytes of the packet that an ICMP answer is about: the kernel's helper sums up at most so many at once. All of them
/// with their headers fit into what every link must carry (576 bytes, IPv6 1280).
pub const QUOTE_BYTES: u32 = 512;

/// Lines keep the kernel's jiffies in units of so many: 16 to 160 ms, as the kernel ticks; 32 bits of them last for two years
/// at least, and a flow that has been silent for longer only looks younger than it is.
pub const JIFFIES_PER_TICK: u64 = 16;

/// A SYN with a new sequence number on a flow whose backend isn't active any more selects anew only after the flow was
/// silent for this long. While the backend is active, it gets the SYN and challenges it, so a forged one ends nothing, and
/// a client that crashed answers the challenge with a RST that clears its way.
pub const QUIET_BEFORE_RESELECT_NS: u64 = 3_000_000_000;

/// How long a handshake lives after its client's last packet: longer than the third repetition of a SYN (1, 2, 4 s apart);
/// the next one is as good as new.
pub const HALF_OPEN_IDLE_NS: u64 = 10_000_000_000;

/// How long a SYN is held after its client's last one: as long as a client may still want an answer, for hooks may take
/// minutes. A Linux client repeats its SYN six times and gives up 64 s after the last one, one that was told to repeat it
/// seven times after 128 s.
pub const HELD_IDLE_NS: u64 = 150_000_000_000;

/// How far beyond the other side's first sequence number an acknowledgement may reach while the handshake is under
/// way: data in a SYN (TCP fast open) is at most an initial window of ten segments.
pub const HANDSHAKE_WINDOW: u32 = 0x4000;

/// How far beyond what its receiver acknowledged a segment may be to be believed without an answer: the largest window
/// without scaling, which few receivers are below. One blind segment in 65,536 is in it.
pub const LEAST_WINDOW: u32 = 0x1_0000;

/// How long a RST must have gone unchallenged before its flow may make room for another: some round trips. A guess that is in
/// the receiver's window but not exact is challenged by its next packet (RFC 5961).
pub const CHALLENGE_NS: u64 = 1_000_000_000;

/// How long a flow lives after its last packet when one side has ended it: that side may take its time, but a vanished peer
/// must not hold a place for hours.
pub const HALF_CLOSED_IDLE_NS: u64 = 600_000_000_000;

/// Places that are looked at for a flow that is over, when there is no room for a new one: four lines each, and sixteen
/// places in a bucket; some microsecond in all. Where one flow of twenty is over, six of seven new ones find it at their first
/// packet.
pub const ROOM_TRIES: u32 = 32;

/// How often a CPU may look for room in a moment of [`ANSWER_MOMENT_NS`]: 7,600 connections a second find some, and where there
/// is none, the search for it takes a hundredth of the CPU.
pub const SEARCHES_PER_MOMENT: u64 = 1024;
