//! The flow table: find, claim, promote, release. Nothing outside knows what it is made of.
//!
//! Two kernel hash maps, so that handshakes and flows are bounded apart: a flood of SYNs fills the first and can't
//! touch the second. Both directions of a flow are in the same map and come and go together, the backend's side first
//! when they come: a packet that finds the client's side can rely on the other.
#![expect(unsafe_code, reason = "map values are reached through the pointers that lookups return")]

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use balancer_common::abi::{FlowEntry, FlowKey};
use balancer_common::flow::Seen;

use crate::maps::{ESTABLISHED, HALF_OPEN};

const EEXIST: i32 = -17;

/// A flow's direction that a packet belongs to.
pub(crate) enum Found {
    Established(Direction),
    HalfOpen(Direction),
    Nothing,
}

/// One direction's entry, by the pointer of a lookup in this run of the program.
///
/// The memory stays an entry for as long as the program runs, but not necessarily of this flow: the kernel hands a
/// removed element to the next insertion at once, on any CPU. So what a packet is rewritten with is copied out in one
/// go ([`Direction::entry`]), and writes are single words, which at worst touch the counters of a flow that is
/// milliseconds old.
#[derive(Clone, Copy)]
pub(crate) struct Direction(*mut FlowEntry);

/// Why an entry could not be made.
pub(crate) enum Refused {
    Taken,
    Full,
}

impl Direction {
    /// A copy of what the entry holds now.
    #[inline(always)]
    pub(crate) fn entry(&self) -> FlowEntry {
        // SAFETY: a whole, aligned FlowEntry of the map, see above; any value of its integers is sound.
        unsafe { self.0.read() }
    }

    /// The backend's SYN-ACK was seen.
    #[inline(always)]
    pub(crate) fn opened(&self, sequence: u32) {
        // SAFETY: as in `entry`; an aligned word and a byte.
        unsafe {
            (*self.0).first_sequence = sequence;
            (*self.0).seen = Seen((*self.0).seen).and(Seen::OPENED).0;
        }
    }

    /// A FIN was seen that ends this direction before `end`.
    #[inline(always)]
    pub(crate) fn finished(&self, end: u32) {
        // SAFETY: as in `opened`.
        unsafe {
            (*self.0).fin_end = end;
            (*self.0).seen = Seen((*self.0).seen).and(Seen::FIN).0;
        }
    }

    /// A RST was seen that the other direction, which had so many packets, may believe.
    #[inline(always)]
    pub(crate) fn reset(&self, packets: u64) {
        // SAFETY: as in `opened`.
        unsafe {
            (*self.0).packets_at_reset = packets as u32;
            (*self.0).seen = Seen((*self.0).seen).and(Seen::RST).0;
        }
    }

    /// The sender expects this sequence number next.
    #[inline(always)]
    pub(crate) fn acknowledged(&self, acknowledgement: u32) {
        // SAFETY: as in `entry`; an aligned word.
        unsafe { (*self.0).acknowledged = acknowledgement }
    }

    /// One more packet went this way.
    #[inline(always)]
    pub(crate) fn count(&self, bytes: u64) {
        // SAFETY: as in `entry`. Two CPUs with packets of one direction may lose a count between them, never more.
        unsafe {
            (*self.0).packets += 1;
            (*self.0).bytes += bytes;
            (*self.0).last_seen_ns = now_ns();
        }
    }
}

/// `CLOCK_MONOTONIC`, to the tick (kernel 5.11).
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: takes nothing, returns an integer.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The direction that packets with this tuple belong to.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Found {
    if let Some(direction) = established(key) {
        return Found::Established(direction);
    }
    if let Some(entry) = HALF_OPEN.get_ptr_mut(key) {
        return Found::HalfOpen(Direction(entry));
    }
    // Another CPU may have moved it between the two looks.
    established(key).map_or(Found::Nothing, Found::Established)
}

#[inline(always)]
fn established(key: &FlowKey) -> Option<Direction> {
    ESTABLISHED.get_ptr_mut(key).map(Direction)
}

/// The other direction of an established flow.
#[inline(always)]
pub(crate) fn established_twin(entry: &FlowEntry) -> Option<Direction> {
    established(&entry.becomes.reversed())
}

/// The other direction of a half-open flow.
#[inline(always)]
pub(crate) fn half_open_twin(entry: &FlowEntry) -> Option<Direction> {
    HALF_OPEN.get_ptr_mut(entry.becomes.reversed()).map(Direction)
}

/// Claims a backend-side tuple for a new flow, by making its entry.
#[inline(always)]
pub(crate) fn claim(key: &FlowKey, entry: &FlowEntry) -> Result<(), Refused> {
    insert_half_open(key, entry)?;
    // Looked up after the claim: whoever promotes a flow makes the established entry before it removes the half-open
    // one, so one of the two always shows that the tuple is taken.
    if ESTABLISHED.get_ptr(key).is_some() {
        let _ = HALF_OPEN.remove(key);
        return Err(Refused::Taken);
    }
    Ok(())
}

/// Makes the client's side of a half-open flow.
#[inline(always)]
pub(crate) fn insert_half_open(key: &FlowKey, entry: &FlowEntry) -> Result<(), Refused> {
    HALF_OPEN.insert(key, entry, u64::from(BPF_NOEXIST)).map_err(refusal)
}

/// Moves a flow whose client completed the handshake. `Taken`: another CPU was faster.
#[inline(always)]
pub(crate) fn promote(key: &FlowKey, client: &FlowEntry, backend: &FlowEntry) -> Result<(), Refused> {
    let backend_key = client.becomes.reversed();
    ESTABLISHED.insert(backend_key, backend, u64::from(BPF_NOEXIST)).map_err(refusal)?;
    if let Err(refused) = ESTABLISHED.insert(key, client, u64::from(BPF_NOEXIST)).map_err(refusal) {
        let _ = ESTABLISHED.remove(backend_key);
        return Err(refused);
    }
    release_half_open(key, &backend_key);
    Ok(())
}

/// Forgets a half-open flow.
#[inline(always)]
pub(crate) fn release_half_open(key: &FlowKey, twin: &FlowKey) {
    let _ = HALF_OPEN.remove(key);
    let _ = HALF_OPEN.remove(twin);
}

/// Forgets an established flow.
#[inline(always)]
pub(crate) fn release_established(key: &FlowKey, twin: &FlowKey) {
    let _ = ESTABLISHED.remove(key);
    let _ = ESTABLISHED.remove(twin);
}

#[inline(always)]
fn refusal(error: i32) -> Refused {
    if error == EEXIST { Refused::Taken } else { Refused::Full }
}
