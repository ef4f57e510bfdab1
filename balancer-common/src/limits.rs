//! Names and capacities that both sides compile in, each with the reason for its number.

/// Bytes of a pool's, service's or backend's name in the kernel's tables: 63 and a terminating zero, as a DNS label.
pub const NAME_BYTES: usize = 64;

/// Pools: one word each in the `ACTIVE` array, which is one page.
pub const MAX_POOLS: usize = 256;

/// Slots for backends. A slot is taken by one (pool, backend) pair, so this is 16 a pool. Slot 0 is never used: a
/// zeroed word means "no backend".
pub const MAX_BACKENDS: usize = 4096;

/// Slots for services, 16 a pool; slot 0 is never used.
pub const MAX_SERVICES: usize = 4096;

/// Slots for interfaces; slot 0 is never used. The ingress interface is found by walking them, once for a new flow.
pub const MAX_INTERFACES: usize = 17;

/// Ranges of SNAT ports in a pool after the kernel's own and the listen ports were taken out; bounds a loop in the packet
/// path. Each listen port in their middle makes one more: the two ranges of the default hold 30 of them.
pub const MAX_PORT_RANGES: usize = 32;

/// How many SNAT ports a new flow tries before it is refused. At half of the ports in use one SYN in 65,536 finds
/// none, and its client sends it again.
pub const PORT_TRIES: u32 = 16;

/// A SYN with a new sequence number on a flow whose backend isn't active any more selects anew only after the flow was
/// silent for this long. While the backend is active, it gets the SYN and challenges it, so a forged one ends nothing, and
/// a client that crashed answers the challenge with a RST that clears its way.
pub const QUIET_BEFORE_RESELECT_NS: u64 = 3_000_000_000;

/// How far beyond the other side's first sequence number an acknowledgement may reach while the handshake is under
/// way: data in a SYN (TCP fast open) is at most an initial window of ten segments.
pub const HANDSHAKE_WINDOW: u32 = 0x4000;

/// How far beyond what its receiver acknowledged a RST may be: the largest window without scaling, which few receivers
/// are below. One blind RST in 65,536 is in it.
pub const RESET_WINDOW: u32 = 0x1_0000;
