//! The flow table's algorithm: where a key may be, and how a line is found, claimed, published and given up.
//!
//! A table is an array of lines in buckets of [`WAYS`]. A key has two buckets, by a seeded hash, and is in one of their
//! lines or not in the table. Each bucket has a tag of sixteen bits for each of its lines, all of them in sixteen bytes: a
//! lookup reads the tags of one bucket or of both, and then as a rule one line. Tags are hints; what a line is says its
//! [`State`] alone:
//!
//! ```text
//!        claim (packet path)           publish
//!  FREE ---------------------> CLAIMED -------> LIVE (next generation)
//!   ^                             ^               |  |
//!   |           give up           |  take (packet path)
//!   +-----------------------------+---------------+  |
//!   |           give up                              | take (controller)
//!   +------------------------- LEAVING <-------------+
//! ```
//! All changes of a line that is FREE or LIVE are compare-and-swaps of the whole state; whoever has it CLAIMED or LEAVING owns
//! it and its tag until he publishes it or gives it up. The packet path runs to its end, so nothing stays claimed; the
//! controller may die at any moment, and finds on its way what it left LEAVING, which no one else touches.
//!
//! Two CPUs with the same new key must not publish it twice: whoever inserts a key holds its lock ([`Locks`]), for which
//! he waits for a bounded number of tries. Keys that aren't the same may share lines to choose from, so claiming is a
//! compare-and-swap all the same.
//!
//! A reader may hold a line that is being given up and filled anew. It compares the key, copies what it needs and looks at
//! the state once more: the same generation, still live, means that what it read is one flow's. This is written for
//! memory that is ordered as x86 has it, or by the acquire and release of the cell operations where it isn't.
//!
//! Deliberately absent: flows, directions, time, and what the memory is. The packet path has it in BPF maps, the
//! controller in its mapping of them, tests in vectors, and `loom` in cells whose every order of access is tried.

mod hash;
mod state;
mod tags;

pub use hash::Hash;
pub use state::{Kind, State, since};
pub use tags::way_of;

use tags::{free_in, lowest, repeated, tag_of, zeros};

/// Lines of a bucket. With two buckets of eight to choose from, at the load that [`lines_for`] allows, 6 of a million new
/// keys found no place in a full table in which flows came and went (simulated; 3,600 with four).
pub const WAYS: u32 = 8;

/// A key goes into its first bucket while that has fewer lines in use than this, so that most are found there; into the
/// emptier one from then on. The number of refused keys above is with this.
const PREFERRED: u32 = 6;

/// Lines for so many flows, of two lines each: 3.5, so four of seven are in use at the most.
pub const fn lines_for(flows: u32) -> u32 {
    buckets_for(flows) * WAYS
}

/// Buckets for so many flows.
#[inline(always)]
pub const fn buckets_for(flows: u32) -> u32 {
    // 3.5 lines a flow, eight lines a bucket.
    ((flows as u64 * 7).div_ceil(16)) as u32
}

/// Locks: few enough to stay in a cache, enough for keys that are inserted at the same time to have different ones.
pub const LOCKS: u32 = 4096;

/// How often a lock is tried. Who has it needs less than a microsecond; but a virtual CPU may be taken away meanwhile.
pub const LOCK_TRIES: u32 = 128;

/// How often a line is tried to be taken that changes under the taker's hands, as packets store the time.
const TAKE_TRIES: u32 = 16;

/// A table's lines and tags.
pub trait Lines {
    /// A line, found by its index once.
    type Line: Copy;

    /// The line at this index.
    fn line(&self, index: u32) -> Option<Self::Line>;

    /// Its state; acquires what was written before it was published.
    fn state(&self, line: Self::Line) -> State;

    /// Compare-and-swap of its state, all before and all after it.
    fn exchange(&self, line: Self::Line, old: State, new: State) -> bool;

    /// Sets the state of a line that the caller owns, after all that he wrote before.
    fn publish(&self, line: Self::Line, new: State);

    /// Sets the tag of a line that the caller owns.
    fn set_tag(&self, index: u32, tag: u16);
}

/// A table in which keys can be looked up.
pub trait Table: Lines {
    /// What lines are found by.
    type Key;

    /// How many buckets there are.
    fn buckets(&self) -> u32;

    /// The tags of a bucket's lines, the first one in the lowest bits of the first word.
    fn tags(&self, bucket: u32) -> Option<[u64; 2]>;

    /// Whether the line has this key, for a moment in which nobody fills it: what is read stays before any later look at
    /// the line's state.
    fn has_key(&self, line: Self::Line, key: &Self::Key) -> bool;

    /// Claims a free line in one of the key's buckets.
    #[inline(always)]
    fn claim(&self, hash: Hash) -> Option<Place<Self::Line>> {
        claim(self, hash)
    }
}

/// Locks for keys that are being inserted.
pub trait Locks {
    /// Takes this lock, if nobody has it.
    fn try_lock(&self, lock: u32) -> bool;

    /// Gives it back, after all that was written before.
    fn unlock(&self, lock: u32);
}

/// A line, and in which life it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<L> {
    /// The line.
    pub line: L,
    /// Its index.
    pub index: u32,
    /// Its state when it was met.
    pub state: State,
}

/// Why a key could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is there already.
    Taken,
    /// There is no place for it.
    Full,
    /// Another CPU inserts it, or one of the same lock, and takes too long.
    Contended,
}

/// The line that has this key.
#[inline(always)]
pub fn find<T: Table>(table: &T, hash: Hash, key: &T::Key) -> Option<Place<T::Line>> {
    let [first, second] = hash.buckets(table.buckets());
    let in_first = table.tags(first)?;
    // Most keys could choose.
    if tag_of(in_first, hash.way()) == hash.tag()
        && let Some(place) = met(table, first * WAYS + hash.way(), key)
    {
        return Some(place);
    }
    let tag = repeated(hash.tag());
    if let Some(place) = in_bucket(table, first, in_first, tag, key) {
        return Some(place);
    }
    in_bucket(table, second, table.tags(second)?, tag, key)
}

#[inline(always)]
fn in_bucket<T: Table>(
    table: &T,
    bucket: u32,
    [low, high]: [u64; 2],
    tag: u64,
    key: &T::Key,
) -> Option<Place<T::Line>> {
    // All but never more than one of them.
    let mut matches = zeros(low ^ tag);
    let mut rest = zeros(high ^ tag);
    let mut at = bucket * WAYS;
    for _ in 0..WAYS {
        if matches == 0 {
            if rest == 0 {
                return None;
            }
            (matches, rest) = (rest, 0);
            at += WAYS / 2;
        }
        let index = at + lowest(matches);
        if let Some(place) = met(table, index, key) {
            return Some(place);
        }
        matches &= matches - 1;
    }
    None
}

/// The line at this index, if it is live and has this key.
#[inline(always)]
pub fn met<T: Table>(table: &T, index: u32, key: &T::Key) -> Option<Place<T::Line>> {
    met_if(table, index, |line| table.has_key(line, key))
}

/// The line at this index, if it is live and the right one; looks at it as [`Table::has_key`] does.
#[inline(always)]
pub fn met_if<T: Lines>(
    table: &T,
    index: u32,
    is_right: impl FnOnce(T::Line) -> bool,
) -> Option<Place<T::Line>> {
    let line = table.line(index)?;
    let state = table.state(line);
    if state.kind() == Kind::Live && is_right(line) && table.state(line).is_same_life(state) {
        return Some(Place { line, index, state });
    }
    None
}

/// Takes a key's lock.
#[inline(always)]
pub fn lock(locks: &impl Locks, number: u32) -> Result<(), Refused> {
    for _ in 0..LOCK_TRIES {
        if locks.try_lock(number) {
            return Ok(());
        }
    }
    Err(Refused::Contended)
}

/// Makes a line for a key that has none; the caller holds the key's lock. `fill` writes all of it but the state.
#[inline(always)]
pub fn insert<T: Table>(
    table: &T,
    hash: Hash,
    born: (u8, u32),
    fill: impl FnOnce(T::Line, u32),
) -> Result<Place<T::Line>, Refused> {
    insert_if(table, hash, born, |line, index| {
        fill(line, index);
        true
    })
}

/// The same, if `fill` finds at its end that what it has written is right; otherwise somebody else has been there
/// (`Taken`).
#[inline(always)]
pub fn insert_if<T: Table>(
    table: &T,
    hash: Hash,
    born: (u8, u32),
    fill: impl FnOnce(T::Line, u32) -> bool,
) -> Result<Place<T::Line>, Refused> {
    let (marks, now) = born;
    let Place { line, index, state } = table.claim(hash).ok_or(Refused::Full)?;
    if !fill(line, index) {
        give_up(table, Place { line, index, state });
        return Err(Refused::Taken);
    }
    table.set_tag(index, hash.tag());
    let state = state.born(marks, now);
    table.publish(line, state);
    Ok(Place { line, index, state })
}

/// [`Table::claim`].
#[inline(always)]
pub fn claim<T: Table + ?Sized>(table: &T, hash: Hash) -> Option<Place<T::Line>> {
    let [near, far] = choices(table, hash)?;
    // The line that is tried first, then each of both buckets once.
    for step in 0..=2 * WAYS {
        let (bucket, tags) = if step <= WAYS { near } else { far };
        let way = if step == 0 { free_way(tags, hash)? } else { (step - 1) % WAYS };
        if tag_of(tags, way) != 0 {
            continue;
        }
        let index = bucket * WAYS + way;
        let line = table.line(index)?;
        let state = table.state(line);
        if state.kind() == Kind::Free && table.exchange(line, state, state.with_kind(Kind::Claimed)) {
            return Some(Place { line, index, state });
        }
    }
    None
}

/// A key's buckets with their tags, the one first in which it would rather be.
#[inline(always)]
fn choices<T: Table + ?Sized>(table: &T, hash: Hash) -> Option<[(u32, [u64; 2]); 2]> {
    let [first, second] = hash.buckets(table.buckets());
    let [first, second] = [(first, table.tags(first)?), (second, table.tags(second)?)];
    let (free, free_in_second) = (free_in(first.1), free_in(second.1));
    let second_is_better = WAYS - free >= PREFERRED && free_in_second > free;
    Some(if second_is_better { [second, first] } else { [first, second] })
}

/// The line of a bucket that a key would have: the one where it is looked for first, or any that is free.
#[inline(always)]
fn free_way(tags: [u64; 2], hash: Hash) -> Option<u32> {
    if tag_of(tags, hash.way()) == 0 { Some(hash.way()) } else { way_of(tags, 0) }
}

/// The line that [`claim`] would try first now, as far as tags tell. Whoever looks at it beforehand waits for its memory
/// while he waits for other memory.
#[inline(always)]
pub fn likely<T: Table + ?Sized>(table: &T, hash: Hash) -> Option<u32> {
    let [(bucket, tags), _] = choices(table, hash)?;
    Some(bucket * WAYS + free_way(tags, hash)?)
}

/// Who takes a line out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// Runs to its end.
    PacketPath,
    /// May die in the middle.
    Controller,
}

/// Takes a line out that was met in this life, whatever was marked or stored in it since; `false`: it is gone already (or
/// packets kept coming between all tries, which takes many CPUs).
#[inline(always)]
pub fn remove<T: Lines>(table: &T, place: Place<T::Line>, taker: Taker) -> bool {
    for _ in 0..TAKE_TRIES {
        let state = table.state(place.line);
        if !state.is_same_life(place.state) {
            return false;
        }
        if remove_as_met(table, Place { state, ..place }, taker) {
            return true;
        }
    }
    false
}

/// Takes a line out if nothing at all has happened to it since it was met: no mark, no packet.
#[inline(always)]
pub fn remove_as_met<T: Lines>(table: &T, place: Place<T::Line>, taker: Taker) -> bool {
    let kind = match taker {
        Taker::PacketPath => Kind::Claimed,
        Taker::Controller => Kind::Leaving,
    };
    if !table.exchange(place.line, place.state, place.state.with_kind(kind)) {
        return false;
    }
    give_up(table, place);
    true
}

/// The last steps of taking a line out, by its owner.
#[inline(always)]
pub fn give_up<T: Lines>(table: &T, place: Place<T::Line>) {
    table.set_tag(place.index, 0);
    table.publish(place.line, place.state.freed());
}

/// Adds marks to a line that was met in this life; `false`: it is gone, as in [`remove`].
#[inline(always)]
pub fn mark<T: Lines>(table: &T, place: Place<T::Line>, marks: u8) -> bool {
    for _ in 0..TAKE_TRIES {
        let state = table.state(place.line);
        if !state.is_same_life(place.state) {
            return false;
        }
        if state.marks() & marks == marks || table.exchange(place.line, state, state.marked(marks)) {
            return true;
        }
    }
    false
}

/// The line that has been silent for longest of those live ones in the key's first bucket (its second, if the first has
/// none) that `may_go`.
#[inline(always)]
pub fn oldest<T: Table>(
    table: &T,
    hash: Hash,
    now: u32,
    may_go: impl Fn(State) -> bool,
) -> Option<Place<T::Line>> {
    // Never a variant without its contents, which the verifier of older kernels would see copied.
    let (mut found, mut silent, mut index_of_oldest, mut state_of_oldest) = (false, 0, 0, State(0));
    for bucket in hash.buckets(table.buckets()) {
        for way in 0..WAYS {
            let index = bucket * WAYS + way;
            let Some(line) = table.line(index) else { continue };
            let state = table.state(line);
            let since = state.silent(now);
            if state.kind() == Kind::Live && may_go(state) && (!found || since > silent) {
                (found, silent, index_of_oldest, state_of_oldest) = (true, since, index, state);
            }
        }
        if found {
            let line = table.line(index_of_oldest)?;
            return Some(Place { line, index: index_of_oldest, state: state_of_oldest });
        }
    }
    None
}

#[cfg(test)]
mod tests;
