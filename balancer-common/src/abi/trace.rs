//! What somebody wants to see of packets, and what is told of each of them.

use super::address::{Address, Port};
use crate::limits::MAX_TRACES;

/// What is to be told: the program's own variable, zero while nobody wants anything. Writer: controller; the packet path
/// takes `is_on` back when everybody's time is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracing {
    /// Whether anybody wants to see anything: all that a packet asks for as a rule.
    pub is_on: u64,
    /// What each of them wants.
    pub filters: [TraceFilter; MAX_TRACES],
}

/// What one trace wants to see.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// Until when, by the kernel's monotonic clock; 0: nothing. The controller puts it off again and again: one that is gone
    /// leaves no trace running.
    pub until_ns: u64,
    /// Packets from or to this client, those that only pass included; zero: of all clients.
    pub client: Address,
    /// Packets of the service in this slot; 0: of all services.
    pub service: u64,
}

/// Both ends of a packet, as it says who they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Of TCP; of ICMP type and code.
    pub source_port: Port,
    /// Of TCP.
    pub destination_port: Port,
    /// Zero.
    pub padding: u32,
}

/// A packet and what became of it, as the controller is told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// When, by the kernel's monotonic clock.
    pub at_ns: u64,
    /// As it came.
    pub before: Ends,
    /// As it left, if it did.
    pub after: Ends,
    /// Of TCP, as it came.
    pub sequence: u32,
    /// Of TCP, as it came.
    pub acknowledgement: u32,
    /// The kernel's index of the interface that it came in through.
    pub ifindex: u32,
    /// Bytes of the IP packet, as its header says.
    pub length: u32,
    /// Slot of the service that it is for or from; 0: none that is seen from its ends.
    pub service: u16,
    /// Bits: the filters that it is told for.
    pub filters: u8,
    /// One of [`Traced::FORWARDED`] and its like.
    pub fate: u8,
    /// The number of its reason, if its fate has one.
    pub reason: u8,
    /// The protocol in its IP header; 0: it isn't IP.
    pub protocol: u8,
    /// TCP's flags, as it came.
    pub flags: u8,
    /// Whether it is a fragment.
    pub is_fragment: u8,
}

impl Ends {
    /// Of a packet that says nothing of them.
    pub const NONE: Self = Self {
        source: Address::NONE,
        destination: Address::NONE,
        source_port: Port::new(0),
        destination_port: Port::new(0),
        padding: 0,
    };
}

impl Traced {
    /// Rewritten, and out again.
    pub const FORWARDED: u8 = 1;
    /// Left to the kernel, as if there were no program.
    pub const PASSED: u8 = 2;
    /// The same, with a reason.
    pub const PASSED_COUNTED: u8 = 3;
    /// Dropped, with a reason.
    pub const DROPPED: u8 = 4;
    /// Its sender is told a reason.
    pub const ANSWERED: u8 = 5;
}

/// What a CPU keeps while a packet is traced, and of each trace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceState {
    /// The packet that this CPU has in hand.
    pub packet: Traced,
    /// Whether it was looked at when it came: somebody may begin to trace in between.
    pub has_come: u64,
    /// By filter.
    pub budgets: [TraceBudget; MAX_TRACES],
}

/// How many packets one trace was told by a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceBudget {
    /// The moment, in units of [`TRACE_MOMENT_NS`](crate::limits::TRACE_MOMENT_NS).
    pub moment: u64,
    /// In it, of segments of established flows that went on.
    pub usual: u32,
    /// In it, of all others.
    pub unusual: u32,
    /// Since ever, those that were wanted and not told.
    pub missed: u64,
}

const _: () = assert!(size_of::<Tracing>() == 8 + 32 * MAX_TRACES);
const _: () = assert!(size_of::<Ends>() == 40);
const _: () = assert!(size_of::<Traced>() == 112);
const _: () = assert!(size_of::<TraceState>() == 112 + 8 + 24 * MAX_TRACES);
// A packet's filters are the bits of a byte.
const _: () = assert!(MAX_TRACES <= 8);
