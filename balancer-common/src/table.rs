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

use crate::abi::{FlowKey, Seed, WireAddress};

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

/// A key's hash, the same in all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    /// What [`Hash::to_word`] returned.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// On its way through a function that only takes integers.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Of a key. Multilinear: who doesn't know the seed can't find keys that come to the same sum more often than by
    /// chance; the multiplication behind it scatters what is left of order between keys.
    #[inline(always)]
    pub fn of<A: WireAddress>(key: &FlowKey<A>, seed: &Seed) -> Self {
        Self::new(
            seed,
            key.source.hashed(seed, 1).wrapping_add(key.destination.hashed(seed, 1 + A::WORDS)),
            2 * A::WORDS,
            key.ports(),
        )
    }

    #[inline(always)]
    fn new(seed: &Seed, addresses: u64, words: usize, ports: u32) -> Self {
        let ports = seed.0[1 + words].wrapping_mul(u64::from(ports));
        let sum = seed.0[0].wrapping_add(addresses).wrapping_add(ports);
        let scattered = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(scattered ^ scattered >> 32)
    }

    /// The two buckets of so many in which the key may be.
    #[inline(always)]
    pub const fn buckets(self, buckets: u32) -> [u32; 2] {
        let (high, low) = (self.0 >> 32, self.0 & 0xffff_ffff);
        [((high * buckets as u64) >> 32) as u32, ((low * buckets as u64) >> 32) as u32]
    }

    /// What stands for the key in a bucket's tags; never 0, which stands for no key. Of bits that say little about the
    /// buckets.
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        let tag = (self.0 >> 32) as u16;
        if tag == 0 { 1 } else { tag }
    }

    /// Which line of a bucket the key would have, if it may choose: most keys could.
    #[inline(always)]
    pub const fn way(self) -> u32 {
        (self.0 >> 8) as u32 % WAYS
    }

    /// Which lock the key has.
    #[inline(always)]
    pub const fn lock(self) -> u32 {
        (self.0 >> 20) as u32 % LOCKS
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody's.
    Free,
    /// The packet path fills or empties it.
    Claimed,
    /// A direction of a flow.
    Live,
    /// The controller empties it.
    Leaving,
}

/// A line's state word. The lower half: what it is (2 bits), marks of its user (6 bits), and how often it was published (24
/// bits); the upper half: when its flow had its last packet, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    const KIND: u64 = 0b11;
    const MARKS: u64 = 0b1111_1100;
    const LIFE: u64 = 0xffff_ff00;

    /// What the line is.
    #[inline(always)]
    pub const fn kind(self) -> Kind {
        match self.0 & Self::KIND {
            0 => Kind::Free,
            1 => Kind::Claimed,
            2 => Kind::Live,
            _ => Kind::Leaving,
        }
    }

    #[inline(always)]
    const fn with_kind(self, kind: Kind) -> Self {
        let kind = match kind {
            Kind::Free => 0,
            Kind::Claimed => 1,
            Kind::Live => 2,
            Kind::Leaving => 3,
        };
        Self(self.0 & !Self::KIND | kind)
    }

    /// The user's marks, six bits.
    #[inline(always)]
    pub const fn marks(self) -> u8 {
        ((self.0 & Self::MARKS) >> 2) as u8
    }

    /// With these marks besides.
    #[inline(always)]
    #[must_use]
    pub const fn marked(self, marks: u8) -> Self {
        Self(self.0 | (marks as u64) << 2 & Self::MARKS)
    }

    /// When the last packet came.
    #[inline(always)]
    pub const fn last_seen(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// For how long no packet has come, in ticks. Other CPUs may have read a later time than this `now` and stored it
    /// already: that is no time at all, not the longest.
    #[inline(always)]
    pub const fn silent(self, now: u32) -> u32 {
        since(self.last_seen(), now)
    }

    /// The next life of a claimed line: live, with nothing but these marks.
    #[inline(always)]
    #[must_use]
    pub const fn born(self, marks: u8, now: u32) -> Self {
        let generation = (self.0 & Self::LIFE).wrapping_add(0x100) & Self::LIFE;
        Self(generation | (now as u64) << 32).with_kind(Kind::Live).marked(marks)
    }

    /// The same without marks and time.
    #[inline(always)]
    #[must_use]
    pub const fn freed(self) -> Self {
        Self(self.0 & Self::LIFE)
    }

    /// Whether both are of the same life of the line: live, and published by the same call.
    #[inline(always)]
    pub const fn is_same_life(self, other: Self) -> bool {
        const MASK: u64 = State::LIFE | State::KIND;
        self.0 & MASK == other.0 & MASK && matches!(self.kind(), Kind::Live)
    }
}

/// How far one CPU's time can be ahead of another's, in ticks: 16 s at least, and a virtual CPU that is away for longer than
/// that has worse troubles.
const AHEAD: u32 = 1000;

/// How many ticks ago that was. What another CPU, whose clock is ahead, has written down later than `now` is no time ago.
#[inline(always)]
pub const fn since(tick: u32, now: u32) -> u32 {
    let since = now.wrapping_sub(tick);
    if since > u32::MAX - AHEAD { 0 } else { since }
}

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

/// Four tags, each of them this one.
#[inline(always)]
const fn repeated(tag: u16) -> u64 {
    tag as u64 * 0x0001_0001_0001_0001
}

/// The highest bit of each of four tags that is zero.
#[inline(always)]
const fn zeros(tags: u64) -> u64 {
    const LOW: u64 = repeated(0x7fff);
    !((tags & LOW).wrapping_add(LOW) | tags | LOW)
}

/// Which of four tags the lowest of these bits is in.
#[inline(always)]
const fn lowest(bits: u64) -> u32 {
    // One bit of four is left, at 0, 16, 32 or 48; the product has its number on top.
    let bit = (bits & bits.wrapping_neg()) >> 15;
    (bit.wrapping_mul(0x0000_0001_0002_0003) >> 48) as u32 & 3
}

/// Which line of a bucket has this tag: as a rule one or none does, of several the first.
#[inline(always)]
pub const fn way_of([low, high]: [u64; 2], tag: u16) -> Option<u32> {
    let tag = repeated(tag);
    let (low, high) = (zeros(low ^ tag), zeros(high ^ tag));
    if low != 0 {
        return Some(lowest(low));
    }
    if high != 0 { Some(WAYS / 2 + lowest(high)) } else { None }
}

/// How many of four bits of [`zeros`] are set.
#[inline(always)]
const fn count(bits: u64) -> u32 {
    ((bits >> 15).wrapping_mul(repeated(1)) >> 48) as u32
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
    let [first, second] = hash.buckets(table.buckets());
    let (in_first, in_second) = (table.tags(first)?, table.tags(second)?);
    let used = WAYS - free_in(in_first);
    let second_is_better = used >= PREFERRED && free_in(in_second) > free_in(in_first);
    let (near, far) = if second_is_better {
        ((second, in_second), (first, in_first))
    } else {
        ((first, in_first), (second, in_second))
    };
    // Each line of both buckets once.
    for step in 0..2 * WAYS {
        let (bucket, tags) = if step < WAYS { near } else { far };
        let way = (hash.way() + step) % WAYS;
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

/// The tag of one of a bucket's lines.
#[inline(always)]
const fn tag_of([low, high]: [u64; 2], way: u32) -> u16 {
    let tags = if way < WAYS / 2 { low } else { high };
    (tags >> (16 * (way % (WAYS / 2)))) as u16
}

/// How many lines of a bucket have no tag.
#[inline(always)]
const fn free_in([low, high]: [u64; 2]) -> u32 {
    count(zeros(low)) + count(zeros(high))
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
