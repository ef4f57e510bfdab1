//! The flow table's algorithm: where a key may be, and how a line is found, claimed, published and given up.
//!
//! A table is an array of lines in buckets of [`WAYS`]. A key has one bucket, by a seeded hash, and is in one of its lines or
//! not in the table. A bucket has a tag of eight bits for each of its lines, all of them in one cache line: a lookup reads
//! that, and then as a rule one line if the key is there and none if it isn't. Tags are hints; what a line is says its
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
mod locks;
mod state;
mod tags;

pub use hash::Hash;
pub use locks::{HELD, LOCK_TRIES, LOCKS, Locks, NOT_LOOKED_FOR, lock, lock_since};
pub use state::{Kind, State, since};
pub use tags::first_with;

use tags::{below_zero, has_zero, lowest, repeated, zeros};

/// Lines of a bucket: as many as tags of one byte in a cache line. At the load that [`lines_for`] allows, 12 of a million new
/// keys find no place in a table of as many flows as there may be, and one of a million where a tenth of them is missing.
pub const WAYS: u32 = 64;

/// Tags in a word.
pub const TAGS: u32 = size_of::<u64>() as u32;

/// Words of a bucket's tags.
pub const TAG_WORDS: u32 = WAYS / TAGS;

/// Among how many lines of a bucket the [`oldest`] is looked for at once: two or three are in use as a rule, and all of them
/// in one page.
pub const WINDOW: u32 = 4;

/// So many windows are all of a bucket.
pub const WINDOWS: u32 = WAYS / WINDOW;

/// Lines for so many flows, of two lines each: 3.5, so four of seven are in use at the most.
pub const fn lines_for(flows: u32) -> u32 {
    buckets_for(flows) * WAYS
}

/// Buckets for so many flows.
#[inline(always)]
pub const fn buckets_for(flows: u32) -> u32 {
    // 3.5 lines a flow, 64 lines a bucket.
    ((flows as u64 * 7).div_ceil(128)) as u32
}

/// The most flows that so many buckets are for.
pub const fn flows_for(buckets: u32) -> u32 {
    (buckets as u64 * 128 / 7) as u32
}

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
    fn set_tag(&self, index: u32, tag: u8);
}

/// A table in which keys can be looked up.
pub trait Table: Lines {
    /// What lines are found by.
    type Key;

    /// The tags of a bucket's lines, found by its number once.
    type Tags: Copy;

    /// How many buckets there are.
    fn buckets(&self) -> u32;

    /// The tags of this bucket.
    fn tags(&self, bucket: u32) -> Option<Self::Tags>;

    /// One of their [`TAG_WORDS`] words, the first line's in the lowest bits.
    fn word(&self, tags: Self::Tags, word: u32) -> u64;

    /// The tag of one of the lines.
    fn tag(&self, tags: Self::Tags, way: u32) -> u8;

    /// Whether the line has this key, for a moment in which nobody fills it: what is read stays before any later look at
    /// the line's state.
    fn has_key(&self, line: Self::Line, key: &Self::Key) -> bool;
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
    let bucket = hash.bucket(table.buckets());
    let tags = table.tags(bucket)?;
    // Most keys have the line that they would rather have.
    if table.tag(tags, hash.way()) == hash.tag()
        && let Some(place) = met(table, preferred(table, hash), key)
    {
        return Some(place);
    }
    // Most keys that don't are nowhere, which takes no jump for each word to see.
    let wanted = repeated(hash.tag());
    if !has_zero((0..TAG_WORDS).fold(0, |seen, word| seen | below_zero(table.word(tags, word) ^ wanted))) {
        return None;
    }
    for step in 0..TAG_WORDS {
        let word = word_after(hash, step);
        let mut matches = zeros(table.word(tags, word) ^ wanted);
        // As a rule one of them or none.
        for _ in 0..TAGS {
            if matches == 0 {
                break;
            }
            if let Some(place) = met(table, bucket * WAYS + word * TAGS + lowest(matches), key) {
                return Some(place);
            }
            matches &= matches - 1;
        }
    }
    None
}

/// The index of the line that a key would rather have.
#[inline(always)]
pub fn preferred<T: Table>(table: &T, hash: Hash) -> u32 {
    hash.bucket(table.buckets()) * WAYS + hash.way()
}

/// The words of tags in the order in which a key is looked for: from that of the line that it would rather have.
#[inline(always)]
const fn word_after(hash: Hash, step: u32) -> u32 {
    (hash.way() / TAGS + step) % TAG_WORDS
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
    let Place { line, index, state } = claim(table, hash).ok_or(Refused::Full)?;
    if !fill(line, index) {
        give_up(table, Place { line, index, state });
        return Err(Refused::Taken);
    }
    table.set_tag(index, hash.tag());
    let state = state.born(marks, now);
    table.publish(line, state);
    Ok(Place { line, index, state })
}

/// Claims a free line for a key: the one that it would rather have, or another one of its bucket.
#[inline(always)]
pub fn claim<T: Table>(table: &T, hash: Hash) -> Option<Place<T::Line>> {
    let tags = table.tags(hash.bucket(table.buckets()))?;
    // Most keys get the line that they would rather have.
    if table.tag(tags, hash.way()) == 0
        && let Some(place) = claim_at(table, preferred(table, hash))
    {
        return Some(place);
    }
    for step in 0..TAG_WORDS {
        let mut free = free_after(table, tags, hash, step);
        for _ in 0..TAGS {
            if free == 0 {
                break;
            }
            if let Some(place) = claim_at(table, line_after(table, hash, step, free)) {
                return Some(place);
            }
            free &= free - 1;
        }
    }
    None
}

/// Claims this line, if it is free.
#[inline(always)]
fn claim_at<T: Lines>(table: &T, index: u32) -> Option<Place<T::Line>> {
    let line = table.line(index)?;
    let state = table.state(line);
    let is_ours = state.kind() == Kind::Free && table.exchange(line, state, state.with_kind(Kind::Claimed));
    is_ours.then_some(Place { line, index, state })
}

/// The line that [`claim`] would try first now, as far as tags tell. Whoever looks at it beforehand waits for its memory
/// while he waits for other memory.
#[inline(always)]
pub fn likely<T: Table>(table: &T, hash: Hash) -> Option<u32> {
    let tags = table.tags(hash.bucket(table.buckets()))?;
    if table.tag(tags, hash.way()) == 0 {
        return Some(preferred(table, hash));
    }
    for step in 0..TAG_WORDS {
        let free = free_after(table, tags, hash, step);
        if free != 0 {
            return Some(line_after(table, hash, step, free));
        }
    }
    None
}

/// Which lines of a word are free by their tags, as [`zeros`] says it; of the first word the lowest bit is that of the line
/// that the key would rather have.
#[inline(always)]
fn free_after<T: Table>(table: &T, tags: T::Tags, hash: Hash, step: u32) -> u64 {
    zeros(table.word(tags, word_after(hash, step)).rotate_right(u8::BITS * (hash.way() % TAGS)))
}

/// The index of the line with the lowest of these bits.
#[inline(always)]
fn line_after<T: Table>(table: &T, hash: Hash, step: u32, free: u64) -> u32 {
    let way = word_after(hash, step) * TAGS + (lowest(free) + hash.way()) % TAGS;
    hash.bucket(table.buckets()) * WAYS + way
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

/// One of the lines of a key's bucket, in the order in which [`claim`] tries those that are free.
#[inline(always)]
pub fn in_order<T: Table>(table: &T, hash: Hash, at: u32) -> u32 {
    let way = word_after(hash, at / TAGS) * TAGS + (hash.way() + at) % TAGS;
    hash.bucket(table.buckets()) * WAYS + way
}

/// The line that has been silent for longest of those live ones that `may_go`, in one of the [`WINDOWS`] of a key's bucket. In
/// the first of them are the lines that the key would rather have: one that goes makes room for it right there.
#[inline(always)]
pub fn oldest<T: Table>(
    table: &T,
    hash: Hash,
    window: u32,
    now: u32,
    may_go: impl Fn(State) -> bool,
) -> Option<Place<T::Line>> {
    // Never a variant without its contents, which the verifier of older kernels would see copied.
    let (mut found, mut silent, mut index_of_oldest, mut state_of_oldest) = (false, 0, 0, State(0));
    for at in 0..WINDOW {
        let index = in_order(table, hash, window * WINDOW + at);
        let Some(line) = table.line(index) else { continue };
        let state = table.state(line);
        let since = state.silent(now);
        if state.kind() == Kind::Live && may_go(state) && (!found || since > silent) {
            (found, silent, index_of_oldest, state_of_oldest) = (true, since, index, state);
        }
    }
    if !found {
        return None;
    }
    Some(Place { line: table.line(index_of_oldest)?, index: index_of_oldest, state: state_of_oldest })
}

#[cfg(test)]
mod tests;
