//! The flow table: find, claim, promote, release. Nothing outside knows what it is made of.
//!
//! Two kernel hash maps for each family, so that handshakes and flows are bounded apart: a flood of SYNs fills the first and can't
//! touch the second. Both directions of a flow are in the same map and come and go together, the backend's side first
//! when they come: a packet that finds the client's side can rely on the other.
#![expect(unsafe_code, reason = "map values are reached through the pointers that lookups return")]

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use balancer_common::abi::{FlowEntry, FlowKey, NextHop};
use balancer_common::flow::Seen;

use crate::family::Family;

const EEXIST: i32 = -17;

/// A flow's direction that a packet belongs to.
pub(crate) enum Found<A: Family> {
    Established(Direction<A>),
    HalfOpen(Direction<A>),
    Nothing,
}

/// One direction's entry, by the pointer of a lookup in this run of the program.
///
/// The memory stays an entry for as long as the program runs, but not necessarily of this flow: the kernel hands a
/// removed element to the next insertion at once, on any CPU. So what a packet is rewritten with is copied out in one
/// go ([`Direction::entry`]), and writes are single words, which at worst touch the counters of a flow that is
/// milliseconds old.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Direction<A: Family>(*mut FlowEntry<A>);

/// Why an entry could not be made.
pub(crate) enum Refused {
    Taken,
    Full,
}

impl<A: Family> Direction<A> {
    /// A copy of what the entry holds now.
    #[inline(always)]
    pub(crate) fn entry(&self) -> FlowEntry<A> {
        // SAFETY: a whole, aligned FlowEntry of the map, see above; any value of its integers is sound.
        unsafe { self.0.read() }
    }

    /// From table to table, as the stack has no room for a copy.
    #[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would be copied to the stack")]
    #[inline(always)]
    fn copy_to_established(&self, key: &FlowKey<A>) -> Result<(), Refused> {
        // SAFETY: as above; the kernel copies it at once.
        A::established().insert(key, unsafe { &*self.0 }, u64::from(BPF_NOEXIST)).map_err(refusal)
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

    /// The client is there now.
    #[inline(always)]
    pub(crate) fn client_is_at(&self, hop: NextHop) {
        // SAFETY: as in `entry`; one aligned word, so nobody sees half of it.
        unsafe { (&raw mut (*self.0).client).cast::<u64>().write(hop.to_word()) }
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
pub(crate) fn find<A: Family>(key: &FlowKey<A>) -> Found<A> {
    if let Some(direction) = established(key) {
        return Found::Established(direction);
    }
    if let Some(direction) = half_open(key) {
        return Found::HalfOpen(direction);
    }
    // Another CPU may have moved it between the two looks.
    established(key).map_or(Found::Nothing, Found::Established)
}

#[inline(always)]
fn established<A: Family>(key: &FlowKey<A>) -> Option<Direction<A>> {
    A::established().get_ptr_mut(key).map(Direction)
}

#[inline(always)]
fn half_open<A: Family>(key: &FlowKey<A>) -> Option<Direction<A>> {
    A::half_open().get_ptr_mut(key).map(Direction)
}

/// The established flow that packets with this tuple belong to, both of its directions.
#[inline(always)]
pub(crate) fn established_flow<A: Family>(key: &FlowKey<A>) -> Option<(FlowEntry<A>, FlowEntry<A>)> {
    let entry = established(key)?.entry();
    Some((entry, established_twin(&entry)?.entry()))
}

/// The other direction of an established flow.
#[inline(always)]
pub(crate) fn established_twin<A: Family>(entry: &FlowEntry<A>) -> Option<Direction<A>> {
    established(&entry.becomes.reversed())
}

/// The other direction of a half-open flow.
#[inline(always)]
pub(crate) fn half_open_twin<A: Family>(entry: &FlowEntry<A>) -> Option<Direction<A>> {
    half_open(&entry.becomes.reversed())
}

/// Claims a backend-side tuple for a new flow, by making its entry.
#[inline(always)]
pub(crate) fn claim<A: Family>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> Result<(), Refused> {
    insert_half_open(key, entry)?;
    // Looked up after the claim: whoever promotes a flow makes the established entry before it removes the half-open
    // one, so one of the two always shows that the tuple is taken.
    if A::established().get_ptr(key).is_some() {
        let _ = A::half_open().remove(key);
        return Err(Refused::Taken);
    }
    Ok(())
}

/// Makes the client's side of a half-open flow.
#[inline(always)]
pub(crate) fn insert_half_open<A: Family>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> Result<(), Refused> {
    A::half_open().insert(key, entry, u64::from(BPF_NOEXIST)).map_err(refusal)
}

/// Moves a flow whose client completed the handshake. `Taken`: another CPU was faster.
#[inline(always)]
pub(crate) fn promote<A: Family>(
    key: &FlowKey<A>,
    client: Direction<A>,
    backend: Direction<A>,
) -> Result<(), Refused> {
    let backend_key = client.entry().becomes.reversed();
    backend.copy_to_established(&backend_key)?;
    if let Err(refused) = client.copy_to_established(key) {
        let _ = A::established().remove(backend_key);
        return Err(refused);
    }
    release_half_open(key, &backend_key);
    Ok(())
}

/// Forgets a half-open flow.
#[inline(always)]
pub(crate) fn release_half_open<A: Family>(key: &FlowKey<A>, twin: &FlowKey<A>) {
    let _ = A::half_open().remove(key);
    let _ = A::half_open().remove(twin);
}

/// Forgets an established flow.
#[inline(always)]
pub(crate) fn release_established<A: Family>(key: &FlowKey<A>, twin: &FlowKey<A>) {
    let _ = A::established().remove(key);
    let _ = A::established().remove(twin);
}

#[inline(always)]
fn refusal(error: i32) -> Refused {
    if error == EEXIST { Refused::Taken } else { Refused::Full }
}
