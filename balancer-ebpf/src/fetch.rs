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
    let table = HalfOpen::table::<A>();
    client_syn::<A>(table::preferred(&table, client));
    if HalfOpen::count::<A>().is_some_and(|count| is_full(count, HalfOpen::limit())) {
        for at in 0..WINDOW {
            line::<A, HalfOpen>(table::in_order(&table, client, at));
        }
    }
}

/// Where the lines that both sides of the draft's flow would rather have, which [`opening`] has fetched as a rule, are others':
/// those that they will have instead.
#[inline(always)]
pub(crate) fn both_sides<A: Family>(draft: &Draft<A>) {
    if let Some(index) = another::<A>(draft.client_hash()) {
        client_syn::<A>(index);
    }
    another::<A>(draft.backend_hash());
}

/// [`Family::fetch_promotion`]: what a handshake is in and what its flow will be in, given its client's line.
#[inline(always)]
pub(crate) fn promotion<A: Family>(client: u32) {
    let Some(line_of_client) = HalfOpen::table::<A>().line(client) else { return };
    // SAFETY: a whole, aligned line of the map; whoever's it is, only time depends on what it says.
    let (key, backend) = unsafe { (&(*line_of_client).key, (*line_of_client).becomes.reversed()) };
    let (hash, backend_hash) = (A::hash_of(key), A::hash_of(&backend));
    // SAFETY: an aligned word of that line.
    let twin = unsafe { (&raw const (*HalfOpen::opening(line_of_client)).twin).read_volatile() };
    line::<A, HalfOpen>(twin);
    tag_of::<A, HalfOpen>(twin);
    tag::<A, Established>(backend_hash);
    likely::<A>(hash);
    likely::<A>(backend_hash);
}

/// The tag of the line that a key would rather have, and with it those of all of its bucket.
#[inline(always)]
fn tag<A: Family, T: Tier>(hash: Hash) {
    tag_of::<A, T>(table::preferred(&T::table::<A>(), hash));
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

/// The line that a new established flow will have, as far as tags tell.
#[inline(always)]
fn likely<A: Family>(hash: Hash) {
    if let Some(index) = table::likely(&Established::table::<A>(), hash) {
        established::<A>(index);
    }
}

/// The line that a new handshake will have, if another one has the line that it would rather have.
#[inline(always)]
fn another<A: Family>(hash: Hash) -> Option<u32> {
    let table = HalfOpen::table::<A>();
    let index = table::likely(&table, hash).filter(|index| *index != table::preferred(&table, hash))?;
    line::<A, HalfOpen>(index);
    Some(index)
}

/// A line.
#[inline(always)]
fn line<A: Family, T: Tier>(index: u32) {
    if let Some(line) = T::table::<A>().line(index) {
        // SAFETY: aligned words of the map, in the first and the last of a line's cache lines.
        unsafe {
            (&raw const (*line).state).read_volatile();
            (&raw const (*line).bytes).read_volatile();
        }
    }
}

/// A line of an established flow and what is kept apart from it.
#[inline(always)]
fn established<A: Family>(index: u32) {
    line::<A, Established>(index);
    // SAFETY: an aligned word of the map.
    Established::past::<A>(index).map(|past| unsafe { (&raw const (*past).began).read_volatile() });
}

/// What is kept apart from a half-open client's line.
#[inline(always)]
fn client_syn<A: Family>(index: u32) {
    // SAFETY: an aligned word of the map.
    A::client_syns().get_ptr(index).map(|kept| unsafe { (&raw const (*kept).tried).read_volatile() });
}
