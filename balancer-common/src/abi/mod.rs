//! Every type that crosses the kernel boundary, with its layout asserted at compile time.
//!
//! Integers and byte arrays only, no implicit padding. Addresses and ports keep the byte order of the wire. Who may
//! write what: the controller writes everything except flows and counters; the packet path writes those. Of a flow
//! the controller only takes both lines out, when the flow has outlived its time.

mod address;
mod flow;
mod service;
mod signal;
mod trace;
mod way;

pub use address::{Address, Address4, Address6, Port, WireAddress, socket};
pub use flow::{
    Carried, CarriedSoFar, ClientSyn, Clock, Count, FlowKey, Line, Opening, Past, SEED_WORDS, SavedSyn, Seed,
};
pub use service::{
    ActiveWord, Backend, FORWARDING_DNAT, FORWARDING_SNAT, Pool, PortRange, Roles, Route, Service,
    ServiceKey, address_bits, port_roles,
};
pub use signal::{
    Failure, RETRY_HELD, RETRY_INSTANT, RETRY_OFF, RETRY_REPEATED, Signals, Successors, Watch, tried_bit,
};
pub use trace::{Ends, TraceBudget, TraceFilter, TraceState, Traced, Tracing};
pub use way::{Interface, NextHop};

use crate::limits::NAME_BYTES;

/// Version of everything in this module and in the map definitions. Part of the pin path: another layout never meets
/// maps made by this one.
pub const LAYOUT_VERSION: u32 = 9;

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

/// What became of packets for one [`Reason`](crate::verdict::Reason); one a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that ended here.
    pub dropped: u64,
    /// Packets that were sent back as an answer.
    pub answered: u64,
    /// Packets that the kernel got.
    pub passed: u64,
}

/// How much of something may still be done in this moment; one a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The moment, in units of [`ANSWER_MOMENT_NS`](crate::limits::ANSWER_MOMENT_NS).
    pub moment: u64,
    /// How much was done in it.
    pub spent: u64,
}

const _: () = assert!(size_of::<Traffic>() == 24);
const _: () = assert!(size_of::<Tally>() == 24);
const _: () = assert!(size_of::<Budget>() == 16);

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
    fn names_come_back_whole_or_cut() {
        assert_eq!(name_text(&name_bytes("passwords")), "passwords");
        let long = "x".repeat(100);
        assert_eq!(name_text(&name_bytes(&long)).len(), NAME_BYTES - 1);
    }
}
