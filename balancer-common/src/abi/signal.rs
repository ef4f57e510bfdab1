//! What clients' own connection attempts say about backends, and where attempts go on that a backend did not take.

use crate::limits::MAX_SUCCESSORS;

/// [`Pool::retry`](super::Pool::retry): a client sees its backend's refusal.
pub const RETRY_OFF: u32 = 0;
/// [`Pool::retry`](super::Pool::retry): a refused or unanswered SYN goes on to the next backend at once.
pub const RETRY_INSTANT: u32 = 1;
/// [`Pool::retry`](super::Pool::retry): a refusal is swallowed, the client's repetition goes to the next backend.
pub const RETRY_REPEATED: u32 = 2;
/// [`Pool::retry`](super::Pool::retry): a refusal is swallowed as long as the pool could still go to another backend; the
/// SYN stays with its flow, and goes on when the pool has changed.
pub const RETRY_HELD: u32 = 3;

/// How a backend is noted among those that did not take a connection attempt, by its slot: one of 64 bits.
#[inline(always)]
#[must_use]
pub const fn tried_bit(backend: u16) -> u64 {
    1 << (backend & 63)
}

/// Where a pool's connection attempts go on that one backend did not take: slots of backends in their order, behind the
/// active one; 0 ends the list. Four to a word, so that it changes by a few stores; whoever reads it in between tries
/// backends of the old list or the new one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Successors(pub [u16; MAX_SUCCESSORS]);

/// What became of connection attempts at one backend; one a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// SYNs of new flows that were sent there, clients' repetitions not counted.
    pub syns: u64,
    /// First SYN-ACKs that came back.
    pub syn_acks: u64,
    /// A RST came instead.
    pub refused: u64,
    /// An ICMP error came instead.
    pub unreachable: u64,
    /// A client repeated its SYN, to which nothing had come back for too long.
    pub unanswered: u64,
    /// Attempts that went on from here to another backend, as this one refused them.
    pub retried_refused: u64,
    /// Attempts that went on from here to another backend, as this one said nothing.
    pub retried_unanswered: u64,
    /// Attempts that this backend took after another had not.
    pub rescued: u64,
}

/// What the packet path keeps of a backend for all CPUs: by plain stores, of which two at once may lose one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// When it last answered a SYN, in the kernel's jiffies; 0: never.
    pub answered: u64,
    /// The moment in which failures are told, in units of [`FAILURE_MOMENT_NS`](crate::limits::FAILURE_MOMENT_NS).
    pub moment: u64,
    /// How many were told in it.
    pub told: u64,
    /// How many were not, as the buffer was full.
    pub lost: u64,
}

/// A connection attempt that its backend refused, as the controller is told of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The [`number`](super::FlowKey::number) of the client's flow.
    pub flow: u64,
    /// One of [`Failure::REFUSED`], [`Failure::UNREACHABLE`].
    pub what: u32,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend.
    pub backend: u16,
}

impl Failure {
    /// By a RST.
    pub const REFUSED: u32 = 1;
    /// By an ICMP error.
    pub const UNREACHABLE: u32 = 2;
}

const _: () = assert!(size_of::<Successors>() == 2 * MAX_SUCCESSORS);
const _: () = assert!(size_of::<Signals>() == 64);
const _: () = assert!(size_of::<Watch>() == 32);
const _: () = assert!(size_of::<Failure>() == 16);
