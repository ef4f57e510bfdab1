//! Memory that is fetched before it is needed.
//!
//! Tags, lines and what stands beside them may be far from the processor's caches, and to wait for one of them takes longer
//! than all that is done to a packet. So what a packet will most likely need is read as soon as one can know where it is,
//! all of it at once: the processor goes on meanwhile, as nothing depends on what it reads. Nothing is decided here.
#![expect(unsafe_code, reason = "lines are read through the pointers that lookups return")]

use balancer_common::table::{self, Hash, Lines, Table, WAYS, WINDOW};

use crate::draft::Draft;
use crate::family::Family;
use crate::flow_table::is_full;
use crate::memory::{Established, HalfOpen, Tier};

/// What a tuple will be looked for in, and the handshake that it belongs to, if it is where it would rather be.
#[inline(always)]
pub(crate) fn handshake<A: Family>(hash: Hash) {
    tag::<A, Established>(hash);
    first::<A, HalfOpen>(hash);
}

/// What the draft's flow will be looked for in and written to, if it is a new one and has the tuples that stand there; and
/// those handshakes of which one has to go, if there are as many as there may be.
#[inline(always)]
pub(crate) fn opening<A: Family>(draft: &Draft<A>) {
    let (client, backend) = (draft.client_hash(), draft.backend_hash());
    for hash in [client, backend] {
        tag::<A, Established>(hash);
        first::<A, HalfOpen>(hash);
    }
    if HalfOpen::count::<A>().is_some_and(|count| is_full(count, HalfOpen::limit())) {
        let table = HalfOpen::table::<A>();
        for at in 0..WINDOW {
            let index = table::in_order(&table, client, at);
            table.line(index).map(|line| table.state(line));
            // SAFETY: an aligned word of the map.
            HalfOpen::past::<A>(index).map(|past| unsafe { (&raw const (*past).twin).read_volatile() });
        }
    }
}

/// Where the lines that both sides of the draft's flow would rather have, which [`opening`] has fetched as a rule, are others':
/// those that they will have instead.
#[inline(always)]
pub(crate) fn both_sides<A: Family>(draft: &Draft<A>) {
    another::<A>(draft.client_hash());
    another::<A>(draft.backend_hash());
}

/// [`Family::fetch_promotion`]: what a handshake is in and what its flow will be in, given its client's line.
#[inline(always)]
pub(crate) fn promotion<A: Family>(client: u32) {
    let Some(line_of_client) = HalfOpen::table::<A>().line(client) else { return };
    // SAFETY: a whole, aligned line of the map; whoever's it is, only time depends on what it says.
    let (key, backend) = unsafe { (&(*line_of_client).key, (*line_of_client).becomes.reversed()) };
    let (hash, backend_hash) = (A::hash_of(key), A::hash_of(&backend));
    first::<A, Established>(backend_hash);
    if let Some(past) = HalfOpen::past::<A>(client) {
        // SAFETY: an aligned word of the map.
        let twin = unsafe { (&raw const (*past).twin).read_volatile() };
        line::<A, HalfOpen>(twin);
        tag_of::<A, HalfOpen>(twin);
    }
    likely::<A, Established>(hash);
    likely::<A, Established>(backend_hash);
}

/// The tags of a key's bucket.
#[inline(always)]
fn tag<A: Family, T: Tier>(hash: Hash) {
    let table = T::table::<A>();
    table.tags(hash.bucket(table.buckets())).map(|tags| table.tag(tags, hash.way()));
}

/// The tag of a line.
#[inline(always)]
fn tag_of<A: Family, T: Tier>(index: u32) {
    let table = T::table::<A>();
    table.tags(index / WAYS).map(|tags| table.tag(tags, index % WAYS));
}

/// The tags of a key's bucket and the line that the key would rather have, which tags need not have told.
#[inline(always)]
fn first<A: Family, T: Tier>(hash: Hash) {
    tag::<A, T>(hash);
    line::<A, T>(table::preferred(&T::table::<A>(), hash));
}

/// The line that a new key will have, as far as tags tell.
#[inline(always)]
fn likely<A: Family, T: Tier>(hash: Hash) {
    if let Some(index) = table::likely(&T::table::<A>(), hash) {
        line::<A, T>(index);
    }
}

/// The line that a new handshake will have, if another one has the line that it would rather have.
#[inline(always)]
fn another<A: Family>(hash: Hash) {
    let table = HalfOpen::table::<A>();
    if let Some(index) = table::likely(&table, hash)
        && index != table::preferred(&table, hash)
    {
        line::<A, HalfOpen>(index);
    }
}

/// A line and what is kept apart from it.
#[inline(always)]
fn line<A: Family, T: Tier>(index: u32) {
    if let Some(line) = T::table::<A>().line(index) {
        // SAFETY: aligned words of the map, in the first and the last of a line's cache lines.
        unsafe {
            (&raw const (*line).state).read_volatile();
            (&raw const (*line).bytes).read_volatile();
        }
    }
    T::fetch_past::<A>(index);
}
