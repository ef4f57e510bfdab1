//! The flow table: find, count, forget. Nothing outside of the tables' modules knows what they are made of.
//!
//! Two tables of lines for each family (`balancer_common::table` has their algorithm, `memory` their maps), so that
//! handshakes and flows are bounded apart: a flood of SYNs fills the first and can't touch the second. Both directions of a
//! flow (`direction`) are in the same table and come and go together, the backend's side first when they come and last when
//! they go: a packet that finds the client's side can rely on the other. `draft` makes half-open flows, `promotion` moves
//! them.
#![expect(
    unsafe_code,
    reason = "counts and lines are read and written through the pointers that lookups return"
)]

use balancer_common::abi::{Count, FlowKey};
use balancer_common::limits::HALF_OPEN_IDLE_NS;
use balancer_common::table::{self, Hash, Locks, Taker};

use crate::atomics::fetch_add;
use crate::clock::{now, ticks};
use crate::direction::{Direction, Recipe};
use crate::family::Family;
use crate::memory::{Established, HalfOpen, KeyLocks, Tier};
use crate::subprograms::{Index, Met};

pub(crate) use balancer_common::table::Refused;

/// Whether there is an established flow that packets with this tuple belong to.
#[inline(always)]
pub(crate) fn is_established<A: Family>(key: &FlowKey<A>) -> bool {
    Index::from_word(A::established_index(key)).is_some()
}

/// Where packets with this tuple belong to.
#[inline(always)]
pub(crate) fn met<A: Family>(key: &FlowKey<A>, hash: Hash) -> Option<Met> {
    Met::from_word(A::met(key, hash.to_word()))
}

/// [`Family::met`]. Looked for among handshakes first: who promotes a flow makes the established line before it takes the
/// half-open one out, so one of the two always shows.
#[inline(always)]
pub(crate) fn met_word<A: Family>(key: &FlowKey<A>, hash: Hash) -> u64 {
    // Words at once: of a variant without its contents the verifier would see them copied.
    let half_open = Index::to_word(table::find(&HalfOpen::table::<A>(), hash, key).map(|place| place.index));
    let established =
        Index::to_word(table::find(&Established::table::<A>(), hash, key).map(|place| place.index));
    Met::to_word(half_open, established)
}

/// The direction of this tier that packets with this tuple belong to, for who isn't in such a hurry.
#[inline(always)]
pub(crate) fn direction<A: Family, T: Tier>(key: &FlowKey<A>) -> Option<Direction<A, T>> {
    direction_at(Index::from_word(T::index_of(key))?.0, key)
}

/// The same for who knows where it was met.
#[inline(always)]
pub(crate) fn direction_at<A: Family, T: Tier>(index: u32, key: &FlowKey<A>) -> Option<Direction<A, T>> {
    Some(Direction::met(table::met(&T::table::<A>(), index, key)?))
}

/// What becomes of packets with this tuple, however far their flow is; for who isn't in a hurry. Of one that is held
/// nothing was sent.
#[inline(always)]
pub(crate) fn recipe<A: Family>(key: &FlowKey<A>) -> Option<Recipe<A>> {
    match direction::<A, Established>(key) {
        Some(direction) => direction.recipe(),
        None => {
            let handshake = direction::<A, HalfOpen>(key)?;
            if handshake.backend() == 0 { None } else { handshake.recipe() }
        }
    }
}

/// [`Tier::index_of`].
#[inline(always)]
pub(crate) fn index_of<A: Family, T: Tier>(key: &FlowKey<A>) -> Option<u32> {
    table::find(&T::table::<A>(), A::hash_of(key), key).map(|place| place.index)
}

/// The sequence number of a tuple's lock: while it is the same, no flow of this tuple has begun.
#[inline(always)]
pub(crate) fn sequence(hash: Hash) -> u32 {
    KeyLocks.sequence(hash.lock())
}

/// Whether there are as many flows as there may be.
#[inline(always)]
pub(crate) fn is_full(count: *mut Count, limit: u32) -> bool {
    // SAFETY: a whole, aligned count of the map.
    flows(count, unsafe { (*count).begun }) >= u64::from(limit)
}

/// How many flows there are, if so many have begun.
#[inline(always)]
fn flows(count: *mut Count, begun: u64) -> u64 {
    // SAFETY: as in `is_full`.
    let (ended, swept) = unsafe { ((*count).ended, (*count).swept) };
    Count { begun, ended, swept, ..Count::default() }.flows()
}

/// Takes one of `limit` places, if there is one left.
#[inline(always)]
pub(crate) fn begin(count: *mut Count, limit: u32) -> bool {
    // SAFETY: a whole, aligned count of the map. Added first and looked at then: two CPUs can't both take the last one.
    unsafe {
        let begun = fetch_add(&raw mut (*count).begun, 1);
        if flows(count, begun) < u64::from(limit) {
            return true;
        }
        fetch_add(&raw mut (*count).begun, 1_u64.wrapping_neg());
    }
    false
}

/// What was reserved isn't needed.
#[inline(always)]
pub(crate) fn give_back<A: Family, T: Tier>() {
    if let Some(count) = T::count::<A>() {
        // SAFETY: as in `begin`.
        unsafe { fetch_add(&raw mut (*count).begun, 1_u64.wrapping_neg()) };
    }
}

/// Whether handshakes had to make room for others in the time that one may take: the client of one that was forgotten may
/// still come back to it.
#[inline(always)]
pub(crate) fn has_forgotten_handshakes<A: Family>() -> bool {
    let Some(count) = HalfOpen::count::<A>() else { return false };
    // SAFETY: as in `begin`; an aligned word.
    is_recent(unsafe { (*count).evicted })
}

/// Whether SYNs went on to other backends in the time in which those that they were sent to first may still answer.
#[inline(always)]
pub(crate) fn has_retried<A: Family>() -> bool {
    // SAFETY: as in `begin`; an aligned word.
    HalfOpen::count::<A>().is_some_and(|count| is_recent(unsafe { (*count).retried }))
}

/// A SYN goes on to another backend.
#[inline(always)]
pub(crate) fn note_retry<A: Family>() {
    if let Some(count) = HalfOpen::count::<A>() {
        // SAFETY: as in `begin`; an aligned word.
        unsafe { (*count).retried = moment() };
    }
}

/// Now, as a word that isn't 0.
#[inline(always)]
pub(crate) fn moment() -> u64 {
    /// Tells a moment in which ticks were 0 from none.
    const MOMENT: u64 = 1 << 32;
    u64::from(now()) | MOMENT
}

/// Whether a handshake that was under way at that [`moment`] may still be.
#[inline(always)]
fn is_recent(moment: u64) -> bool {
    moment != 0 && table::since(moment as u32, now()) <= ticks(HALF_OPEN_IDLE_NS)
}

/// Forgets a flow, given one of its directions; `false`: somebody else has.
#[inline(always)]
pub(crate) fn forget<A: Family, T: Tier>(direction: Direction<A, T>) -> bool {
    T::release::<A>(direction.place.index, direction.place.state.0)
}

/// [`Tier::release`].
#[inline(always)]
pub(crate) fn release<A: Family, T: Tier>(direction: Direction<A, T>) -> bool {
    release_with(direction, direction.twin())
}

/// The same of who has looked for its other side.
#[inline(always)]
pub(crate) fn release_with<A: Family, T: Tier>(
    direction: Direction<A, T>,
    twin: Option<Direction<A, T>>,
) -> bool {
    // If it is over another flow may have its line by now, and that one's other side isn't to go.
    let twin = twin.filter(|_| direction.is_alive());
    let (client, backend) =
        if direction.seen().is_from_client() { (Some(direction), twin) } else { (twin, Some(direction)) };
    release_both(client, backend)
}

/// The same of who has met both.
#[inline(always)]
pub(crate) fn release_both<A: Family, T: Tier>(
    client: Option<Direction<A, T>>,
    backend: Option<Direction<A, T>>,
) -> bool {
    let is_ours = client.is_some_and(remove);
    if let Some(backend) = backend {
        remove(backend);
    }
    if is_ours && let Some(count) = T::count::<A>() {
        // SAFETY: a whole, aligned count of the map.
        unsafe { fetch_add(&raw mut (*count).ended, 1) };
    }
    is_ours
}

#[inline(always)]
fn remove<A: Family, T: Tier>(direction: Direction<A, T>) -> bool {
    // As a rule nothing has happened to it since it was met, and the call is saved.
    table::remove_as_met(&T::table::<A>(), direction.place, Taker::PacketPath)
        || T::remove::<A>(direction.place.index, direction.place.state.0)
}

/// [`Tier::remove`].
#[inline(always)]
pub(crate) fn try_remove<A: Family, T: Tier>(direction: Direction<A, T>) -> bool {
    table::remove(&T::table::<A>(), direction.place, Taker::PacketPath)
}
