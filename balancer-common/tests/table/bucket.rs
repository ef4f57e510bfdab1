//! A bucket of a flow table in `loom`'s cells, of which every order of access is tried.
//!
//! They promise what the algorithm asks of them and no more: a line's words are written and read one by one and relaxed,
//! ordered by the fences behind a claim and before a second look at the state; tags are relaxed, and a cell each instead
//! of eight in a word. The store of a packet's time is a compare-and-swap here, as loom has no store into half of a cell. For
//! the others it is the same, one step that leaves the lower half as it was; it is relaxed, so it orders nothing; and it
//! doesn't look at what it overwrites. A store that waits in a CPU's buffer is a packet that came later: nothing that the
//! packet does afterwards looks at the state. Publishing is a swap, of which the result is thrown away: loom would let a
//! plain store and such a step come before one another both.
//!
//! Of its lines only the first ones are anybody's; the others are in use for ever, so that threads must meet.

use balancer_common::abi::{Address4, Port, Seed};
use balancer_common::table::{
    HELD, Hash, Kind, Lines, Locks, Place, Refused, State, TAGS, Table, find, insert, lock, lock_since, met,
};
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::cells::Key;

/// A tag that no key of these tests has, for lines in use for ever.
const IN_USE: u8 = 0xfe;

struct Line {
    state: AtomicU64,
    tag: AtomicU8,
    /// Source address and ports; the key's other word is the same for all.
    key: [AtomicU32; 2],
    /// Twice the same in one life.
    value: [AtomicU32; 2],
}

/// One bucket, in which so many lines can be had.
pub(crate) struct Bucket {
    lines: Vec<Line>,
    /// The sequence number of the only lock.
    sequence: AtomicU32,
    /// Nothing. loom looks for another order where an access conflicts with the last one to its cell, which a thread's own
    /// load can hide: load, then compare-and-swap. So loads of cells that are changed like this change this one before, in
    /// no order with anything.
    turn: AtomicU32,
    /// Whether reads and writes of words are ordered with those of the state, as they must be.
    is_ordered: bool,
}

/// The key of this number. The first one would rather have the first line and the second one the second; others would have
/// one that isn't anybody's.
pub(crate) fn key(number: u8) -> Key {
    let mut key = Key {
        source: Address4::from_wire([10, 0, 0, number]),
        destination: Address4::from_wire([10, 0, 1, 1]),
        source_port: Port::new(40_000 + 100 * u16::from(number)),
        destination_port: Port::new(443),
    };
    let is_right = |way: u32| if number <= 2 { way + 1 == u32::from(number) } else { way >= TAGS };
    while !is_right(hash(&key).way()) {
        key.source_port = Port::new(key.source_port.number() + 1);
    }
    key
}

/// Nobody's key: the address of one and the port of another.
pub(crate) fn mixed(one: u8, other: u8) -> Key {
    Key { source: key(one).source, ..key(other) }
}

fn words(key: &Key) -> [u32; 2] {
    [key.source.to_words()[0], key.ports()]
}

/// What a flow's first life has in its line; its next ones have more.
pub(crate) fn value(key: &Key) -> u32 {
    let [source, ports] = words(key);
    source ^ ports.rotate_left(7)
}

pub(crate) fn hash(key: &Key) -> Hash {
    let hash =
        Hash::of(key, &Seed(core::array::from_fn(|at| 0x9e37_79b9_7f4a_7c15_u64.rotate_left(5 * at as u32))));
    assert_ne!(hash.tag(), IN_USE);
    hash
}

impl Bucket {
    pub(crate) fn of(lines: usize) -> Self {
        let line = || Line {
            state: AtomicU64::new(0),
            tag: AtomicU8::new(0),
            key: [AtomicU32::new(0), AtomicU32::new(0)],
            value: [AtomicU32::new(0), AtomicU32::new(0)],
        };
        Self {
            lines: (0..lines).map(|_| line()).collect(),
            sequence: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            is_ordered: true,
        }
    }

    /// The same with, or without, what orders words and state.
    pub(crate) fn ordered(self, is_ordered: bool) -> Self {
        Self { is_ordered, ..self }
    }

    fn fill(&self, line: usize, key: &Key, value: u32) {
        let line = &self.lines[line];
        if self.is_ordered {
            fence(Ordering::Release);
        }
        for (cell, word) in line.key.iter().zip(words(key)) {
            cell.store(word, Ordering::Relaxed);
        }
        for cell in &line.value {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn insert(&self, key: &Key) -> Result<Place<usize>, Refused> {
        self.insert_with(key, value(key))
    }

    pub(crate) fn insert_with(&self, key: &Key, value: u32) -> Result<Place<usize>, Refused> {
        insert(self, hash(key), (0, 1), |line, _| self.fill(line, key, value))
    }

    /// As the packet path inserts a key that is new to it.
    pub(crate) fn insert_once(&self, key: &Key) -> Result<Place<usize>, Refused> {
        let made = if find(self, hash(key), key).is_some() { Err(Refused::Taken) } else { self.insert(key) };
        self.unlock(0);
        made
    }

    /// The same by who has found that the key isn't there while the lock had this sequence number.
    pub(crate) fn insert_unless_since(&self, key: &Key, sequence: u32) -> Result<Place<usize>, Refused> {
        if lock_since(self, 0, sequence) {
            let made = self.insert(key);
            self.unlock(0);
            return made;
        }
        lock(self, 0)?;
        self.insert_once(key)
    }

    pub(crate) fn find(&self, key: &Key) -> Option<Place<usize>> {
        find(self, hash(key), key)
    }

    /// What a packet copies from a line that it has found, if the line has lived on meanwhile.
    pub(crate) fn copy(&self, place: Place<usize>) -> Option<u32> {
        let [value, again] = [0, 1].map(|word| self.lines[place.line].value[word].load(Ordering::Relaxed));
        if self.is_ordered {
            fence(Ordering::Acquire);
        }
        let is_one_life = self.state(place.line).is_same_life(place.state);
        assert!(!is_one_life || value == again, "of two flows");
        is_one_life.then_some(value)
    }

    /// Stores a packet's time; what the line was at that moment.
    pub(crate) fn touch(&self, place: Place<usize>, now: u32) -> State {
        let set = |word: u64| Some(word & 0xffff_ffff | u64::from(now) << 32);
        let state = &self.lines[place.line].state;
        State(state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).unwrap())
    }

    /// Where this key is live, looking at states and words alone.
    pub(crate) fn lives(&self, key: &Key) -> Vec<usize> {
        (0..self.lines.len()).filter(|&line| met(self, line as u32, key).is_some()).collect()
    }

    /// After all have come to their end: each of these keys is live in one line and found there, each of those in none,
    /// and all other lines are free.
    pub(crate) fn check(&self, live: &[Key], gone: &[Key]) {
        for key in live {
            let lines = self.lives(key);
            assert_eq!(lines.len(), 1, "{key:?} is live in {lines:?}");
            let place = self.find(key).expect("what lives is found");
            assert_eq!((place.line, self.copy(place)), (lines[0], Some(value(key))));
        }
        for key in gone {
            assert!(self.lives(key).is_empty() && self.find(key).is_none(), "{key:?} is still there");
        }
        let free = self.lines.iter().filter(|line| {
            let state = State(line.state.load(Ordering::Relaxed));
            let tag = line.tag.load(Ordering::Relaxed);
            assert!(matches!(state.kind(), Kind::Free | Kind::Live), "{state:?} is left");
            assert_eq!(tag == 0, state.kind() == Kind::Free, "tag {tag} of {state:?}");
            tag == 0
        });
        assert_eq!(free.count() + live.len(), self.lines.len());
    }
}

impl Lines for Bucket {
    type Line = usize;

    fn line(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.lines.len()).then_some(index)
    }

    fn state(&self, line: usize) -> State {
        self.turn.fetch_add(1, Ordering::Relaxed);
        State(self.lines[line].state.load(Ordering::Acquire))
    }

    fn exchange(&self, line: usize, old: State, new: State) -> bool {
        self.lines[line].state.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn publish(&self, line: usize, new: State) {
        self.lines[line].state.swap(new.0, Ordering::Release);
    }

    fn set_tag(&self, index: u32, tag: u8) {
        self.lines[index as usize].tag.store(tag, Ordering::Relaxed);
    }
}

impl Table for Bucket {
    type Key = Key;
    type Tags = ();

    fn buckets(&self) -> u32 {
        1
    }

    fn tags(&self, bucket: u32) -> Option<()> {
        (bucket == 0).then_some(())
    }

    fn word(&self, (): (), word: u32) -> u64 {
        let lines = word * TAGS..(word + 1) * TAGS;
        if self.line(lines.start).is_some() {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        let tag =
            |line| self.lines.get(line as usize).map_or(IN_USE, |line| line.tag.load(Ordering::Relaxed));
        lines.rev().fold(0, |tags, line| tags << 8 | u64::from(tag(line)))
    }

    fn tag(&self, (): (), way: u32) -> u8 {
        let Some(line) = self.line(way) else { return IN_USE };
        self.turn.fetch_add(1, Ordering::Relaxed);
        self.lines[line].tag.load(Ordering::Relaxed)
    }

    fn has_key(&self, line: usize, key: &Key) -> bool {
        let line = &self.lines[line];
        let words = words(key);
        let is_equal = line.key[0].load(Ordering::Relaxed) == words[0]
            && line.key[1].load(Ordering::Relaxed) == words[1];
        if self.is_ordered {
            fence(Ordering::Acquire);
        }
        is_equal
    }
}

impl Locks for Bucket {
    fn sequence(&self, _: u32) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed);
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence & HELD == HELD {
            // Or loom tries all the orders in which nothing happens.
            thread::yield_now();
        }
        sequence
    }

    fn try_lock(&self, _: u32, sequence: u32) -> bool {
        let is_taken = self
            .sequence
            .compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if !is_taken {
            // Or loom tries all the orders in which nothing happens.
            thread::yield_now();
        }
        is_taken
    }

    fn unlock(&self, _: u32) {
        self.sequence.fetch_add(1, Ordering::Release);
    }
}
