//! What the flow tables are made of here: maps, by family and by how far a flow is.
#![expect(unsafe_code, reason = "lines, tags and locks are reached through the pointers that lookups return")]

use core::marker::PhantomData;
use core::ptr::from_ref;

use balancer_common::abi::{Carried, CarriedSoFar, Count, FlowKey, Line, Opening, Past, WireAddress};
use balancer_common::flow::{Kind, Seen};
use balancer_common::table::{
    self, HELD, Hash, Lines, Locks, Refused, State, TAG_WORDS, Table, WAYS, buckets_for,
};

use crate::atomics::compare_exchange;
use crate::family::Family;
use crate::features;
use crate::maps::{self, LOCKS};
use crate::subprograms;

/// How far a flow is: which of the two tables it is in.
pub(crate) trait Tier: Copy + Sized + 'static {
    fn table<A: Family>() -> Maps<A, Self>;

    /// The index of the other direction's line, as this line at this index says; that of no line, if there is none.
    fn twin_of<A: Family>(index: u32, line: *mut Line<A>) -> u32;

    /// One more packet of so many bytes is of this line.
    fn carry<A: Family>(line: *mut Line<A>, bytes: u64);

    /// Whether such packets of a direction of which this was seen keep their flow from being old.
    fn is_kept_by(seen: Seen, kind: Kind) -> bool;

    fn count<A: Family>() -> Option<*mut Count>;

    /// How many flows there may be.
    fn limit() -> u32;

    fn tags<A: Family>() -> &'static maps::Tags;
    fn lines<A: Family>() -> &'static maps::Lines<A>;

    /// The index of this key's line, see [`crate::subprograms`].
    fn index_of<A: Family>(key: &FlowKey<A>) -> u64;

    /// Takes a line out, if it is still of the same life, see [`crate::subprograms`].
    fn remove<A: Family>(index: u32, state: u64) -> bool;

    /// Forgets the flow that has this line, if the line is still of the same life, see [`crate::subprograms`].
    fn release<A: Family>(index: u32, state: u64) -> bool;

    /// A line's state now.
    #[inline(always)]
    fn state_of<A: Family>(line: *mut Line<A>) -> State {
        // SAFETY: an aligned word of a map's line.
        State(unsafe { (&raw const (*line).state).read_volatile() })
    }
}

/// Flows whose handshake is complete.
#[derive(Clone, Copy)]
pub(crate) struct Established;

/// Flows whose handshake is under way.
#[derive(Clone, Copy)]
pub(crate) struct HalfOpen;

impl Established {
    /// What is kept apart from the line at this index.
    #[inline(always)]
    pub(crate) fn past<A: Family>(index: u32) -> Option<*mut Past> {
        A::pasts().get_ptr_mut(index)
    }
}

impl HalfOpen {
    /// What its line has in the place of acknowledgement and counters.
    #[inline(always)]
    pub(crate) fn opening<A: Family>(line: *mut Line<A>) -> *mut Opening {
        // SAFETY: within the line.
        unsafe { (&raw mut (*line).acknowledged).cast() }
    }
}

impl Tier for Established {
    #[inline(always)]
    fn table<A: Family>() -> Maps<A, Self> {
        Maps(PhantomData)
    }

    #[inline(always)]
    fn twin_of<A: Family>(index: u32, _line: *mut Line<A>) -> u32 {
        // SAFETY: an aligned word of the map.
        Self::past::<A>(index).map_or(u32::MAX, |past| unsafe { (*past).twin })
    }

    #[inline(always)]
    fn carry<A: Family>(line: *mut Line<A>, bytes: u64) {
        // SAFETY: aligned words of a map's line.
        unsafe {
            let carried = Carried { low: (*line).packets, high: (*line).bytes }.and(bytes);
            (*line).packets = carried.low;
            (*line).bytes = carried.high;
        }
    }

    /// Not by a SYN, whose client has forgotten it, and waits until it has been silent.
    #[inline(always)]
    fn is_kept_by(_seen: Seen, kind: Kind) -> bool {
        !matches!(kind, Kind::Syn)
    }

    #[inline(always)]
    fn count<A: Family>() -> Option<*mut Count> {
        A::counts().get_ptr_mut(maps::ESTABLISHED)
    }

    #[inline(always)]
    fn limit() -> u32 {
        features::max_flows()
    }

    #[inline(always)]
    fn tags<A: Family>() -> &'static maps::Tags {
        A::established_tags()
    }

    #[inline(always)]
    fn lines<A: Family>() -> &'static maps::Lines<A> {
        A::established()
    }

    #[inline(always)]
    fn index_of<A: Family>(key: &FlowKey<A>) -> u64 {
        A::established_index(key)
    }

    #[inline(always)]
    fn remove<A: Family>(index: u32, state: u64) -> bool {
        A::remove_established(index, state)
    }

    #[inline(always)]
    fn release<A: Family>(index: u32, state: u64) -> bool {
        A::release_established(index, state)
    }
}

impl Tier for HalfOpen {
    #[inline(always)]
    fn table<A: Family>() -> Maps<A, Self> {
        Maps(PhantomData)
    }

    #[inline(always)]
    fn twin_of<A: Family>(_index: u32, line: *mut Line<A>) -> u32 {
        // SAFETY: an aligned word of a map's line.
        unsafe { (*Self::opening(line)).twin }
    }

    #[inline(always)]
    fn carry<A: Family>(line: *mut Line<A>, bytes: u64) {
        let opening = Self::opening(line);
        // SAFETY: as in `twin_of`.
        unsafe { (*opening).carried = CarriedSoFar((*opening).carried).and(bytes).0 }
    }

    /// A backend goes on answering a SYN that was forged.
    #[inline(always)]
    fn is_kept_by(seen: Seen, _kind: Kind) -> bool {
        seen.is_from_client()
    }

    #[inline(always)]
    fn count<A: Family>() -> Option<*mut Count> {
        A::counts().get_ptr_mut(maps::HALF_OPEN)
    }

    #[inline(always)]
    fn limit() -> u32 {
        features::max_half_open()
    }

    #[inline(always)]
    fn tags<A: Family>() -> &'static maps::Tags {
        A::half_open_tags()
    }

    #[inline(always)]
    fn lines<A: Family>() -> &'static maps::Lines<A> {
        A::half_open()
    }

    #[inline(always)]
    fn index_of<A: Family>(key: &FlowKey<A>) -> u64 {
        A::half_open_index(key)
    }

    #[inline(always)]
    fn remove<A: Family>(index: u32, state: u64) -> bool {
        A::remove_half_open(index, state)
    }

    #[inline(always)]
    fn release<A: Family>(index: u32, state: u64) -> bool {
        A::release_half_open(index, state)
    }
}

/// A table in its maps.
pub(crate) struct Maps<A, T>(PhantomData<(A, T)>);

#[cfg(target_endian = "big")]
compile_error!("tags and the time in a line's state are placed as on little-endian machines");

/// Keeps the compiler from moving what touches memory across; the processor keeps the order of loads and that of stores
/// by itself (x86), or loads and stores here would have to acquire and release.
#[inline(always)]
pub(crate) fn compiler_barrier() {
    #[cfg(target_arch = "bpf")]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nostack, preserves_flags));
    }
}

impl<A: Family, T: Tier> Lines for Maps<A, T> {
    type Line = *mut Line<A>;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*mut Line<A>> {
        T::lines::<A>().get_ptr_mut(index)
    }

    #[inline(always)]
    fn state(&self, line: *mut Line<A>) -> State {
        let state = T::state_of(line);
        compiler_barrier();
        state
    }

    #[inline(always)]
    fn exchange(&self, line: *mut Line<A>, old: State, new: State) -> bool {
        // SAFETY: an aligned word of a map's line.
        unsafe { compare_exchange(&raw mut (*line).state, old.0, new.0) == old.0 }
    }

    #[inline(always)]
    fn publish(&self, line: *mut Line<A>, new: State) {
        compiler_barrier();
        // SAFETY: as in `exchange`.
        unsafe { (&raw mut (*line).state).write_volatile(new.0) }
    }

    #[inline(always)]
    fn set_tag(&self, index: u32, tag: u8) {
        if let Some(tags) = T::tags::<A>().get_ptr_mut(index / WAYS) {
            let way = (index % WAYS) as usize;
            // SAFETY: a byte of the element; the line's owner alone writes it.
            unsafe { tags.cast::<u8>().add(way).write_volatile(tag) }
        }
    }
}

impl<A: Family, T: Tier> Table for Maps<A, T> {
    type Key = FlowKey<A>;
    type Tags = *const [u64; TAG_WORDS as usize];

    #[inline(always)]
    fn buckets(&self) -> u32 {
        buckets_for(T::limit())
    }

    #[inline(always)]
    fn tags(&self, bucket: u32) -> Option<Self::Tags> {
        T::tags::<A>().get_ptr(bucket)
    }

    #[inline(always)]
    fn word(&self, tags: Self::Tags, word: u32) -> u64 {
        // SAFETY: one of the aligned words of a map's element.
        unsafe { tags.cast::<u64>().add((word % TAG_WORDS) as usize).read_volatile() }
    }

    #[inline(always)]
    fn tag(&self, tags: Self::Tags, way: u32) -> u8 {
        // SAFETY: one of the bytes of a map's element.
        unsafe { tags.cast::<u8>().add((way % WAYS) as usize).read_volatile() }
    }

    #[inline(always)]
    fn has_key(&self, line: *mut Line<A>, key: &FlowKey<A>) -> bool {
        // SAFETY: a whole, aligned line of the map; any value of its integers is sound.
        let is_equal = unsafe {
            (*line).key.source == key.source
                && (*line).key.destination == key.destination
                && ports(&(*line).key) == key.ports()
        };
        compiler_barrier();
        is_equal
    }
}

/// [`FlowKey::ports`] of a key in a map, in one load.
#[inline(always)]
pub(crate) fn ports<A: WireAddress>(key: &FlowKey<A>) -> u32 {
    const { assert!(size_of::<FlowKey<A>>() == 2 * size_of::<A>() + size_of::<u32>()) };
    // SAFETY: the last word of a key, which is aligned as its words are.
    unsafe { from_ref(key).cast::<u32>().add(2 * A::WORDS).read() }
}

/// The locks of keys, in a map.
pub(crate) struct KeyLocks;

impl Locks for KeyLocks {
    #[inline(always)]
    fn sequence(&self, lock: u32) -> u32 {
        // SAFETY: an aligned word of the map.
        let sequence = LOCKS.get_ptr(lock).map_or(HELD.into(), |word| unsafe { word.read_volatile() });
        compiler_barrier();
        sequence as u32
    }

    #[inline(always)]
    fn try_lock(&self, lock: u32, sequence: u32) -> bool {
        let (old, new) = (sequence.into(), sequence.wrapping_add(1).into());
        // SAFETY: as above.
        LOCKS.get_ptr_mut(lock).is_some_and(|word| unsafe { compare_exchange(word, old, new) == old })
    }

    #[inline(always)]
    fn unlock(&self, lock: u32) {
        compiler_barrier();
        if let Some(word) = LOCKS.get_ptr_mut(lock) {
            // SAFETY: as above; nobody else writes a lock that is taken. 32 bits of it count.
            unsafe { word.write_volatile((word.read_volatile() as u32).wrapping_add(1).into()) }
        }
    }
}

/// A key's lock, given back where it goes out of sight.
pub(crate) struct Locked(Hash);

impl Locked {
    #[inline(always)]
    pub(crate) fn lock(hash: Hash) -> Result<Self, Refused> {
        // As a rule nobody has it, and the call is saved.
        let number = hash.lock();
        if Self::try_lock_since(hash, KeyLocks.sequence(number)) || subprograms::lock(number) {
            Ok(Self(hash))
        } else {
            Err(Refused::Contended)
        }
    }

    /// If the lock had this sequence number ever since, see [`table::lock_since`].
    #[inline(always)]
    pub(crate) fn lock_since(hash: Hash, sequence: u32) -> Option<Self> {
        Self::try_lock_since(hash, sequence).then(|| Self(hash))
    }

    #[inline(always)]
    fn try_lock_since(hash: Hash, sequence: u32) -> bool {
        table::lock_since(&KeyLocks, hash.lock(), sequence)
    }
}

impl Drop for Locked {
    #[inline(always)]
    fn drop(&mut self) {
        KeyLocks.unlock(self.0.lock());
    }
}
