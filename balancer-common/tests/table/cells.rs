//! A flow table in vectors, of std's atomics, for tests with one thread and with several.
//!
//! A line has its key in three words and a value in two, none of them written together, so that a line of two flows
//! would show. Tags are cells of their own, read one after the other, which promises less than eight bytes in one load.
//! The same goes for the time: std has no store into half of a cell, so it is a compare-and-swap of the whole.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use balancer_common::abi::{Address4, FlowKey, Port, Seed};
use balancer_common::table::{Hash, LOCKS, Lines, Locks, Place, State, TAGS, Table, WAYS};

/// What the tests look up.
pub(crate) type Key = FlowKey<Address4>;

#[derive(Default)]
struct Line {
    state: AtomicU64,
    key: [AtomicU32; 3],
    twin: AtomicU32,
    value: [AtomicU64; 2],
}

/// The table.
pub(crate) struct Cells {
    lines: Vec<Line>,
    tags: Vec<AtomicU8>,
    /// What its keys are hashed with.
    pub(crate) seed: Seed,
}

impl Cells {
    pub(crate) fn new(buckets: u32, seed: u64) -> Self {
        let lines = (buckets * WAYS) as usize;
        let mut random = Random(seed);
        Self {
            lines: (0..lines).map(|_| Line::default()).collect(),
            tags: (0..lines).map(|_| AtomicU8::new(0)).collect(),
            seed: Seed(std::array::from_fn(|_| random.next())),
        }
    }

    pub(crate) fn lines(&self) -> u32 {
        self.lines.len() as u32
    }

    pub(crate) fn hash(&self, key: &Key) -> Hash {
        Hash::of(key, &self.seed)
    }

    pub(crate) fn tag_of(&self, index: u32) -> u8 {
        self.tags[index as usize].load(Ordering::Relaxed)
    }

    /// Writes all of a line that its caller owns, as the packet path does: plain stores behind the claim.
    pub(crate) fn fill(&self, line: u32, key: &Key, twin: u32) {
        fence(Ordering::Release);
        self.set_twin(line, twin);
        let line = &self.lines[line as usize];
        for (cell, word) in line.key.iter().zip(words(key)) {
            cell.store(word, Ordering::Relaxed);
        }
        for (cell, word) in line.value.iter().zip(value(key)) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// What stands in a line: to be believed if its state says that it was one life all the time.
    pub(crate) fn read(&self, line: u32) -> (Key, u32, [u64; 2]) {
        let line = &self.lines[line as usize];
        let [source, destination, ports] = std::array::from_fn(|at| line.key[at].load(Ordering::Relaxed));
        let value = std::array::from_fn(|at| line.value[at].load(Ordering::Relaxed));
        let twin = line.twin.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let [a, b, c, d] = ports.to_ne_bytes();
        let key = FlowKey {
            source: Address4::from_words([source]),
            destination: Address4::from_words([destination]),
            source_port: Port::from_wire([a, b]),
            destination_port: Port::from_wire([c, d]),
        };
        (key, twin, value)
    }

    /// Names a line's twin, as soon as it is known.
    pub(crate) fn set_twin(&self, line: u32, twin: u32) {
        self.lines[line as usize].twin.store(twin, Ordering::Relaxed);
    }

    /// Stores the time of a packet, whatever has become of the line since it was found.
    pub(crate) fn touch(&self, place: Place<u32>, now: u32) {
        let state = &self.lines[place.line as usize].state;
        let _ = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(word & 0xffff_ffff | u64::from(now) << 32)
        });
    }
}

/// A value that only this key has.
pub(crate) fn value(key: &Key) -> [u64; 2] {
    let [source, destination, ports] = words(key).map(u64::from);
    let mut random = Random(source << 32 ^ destination << 16 ^ ports);
    [random.next(), random.next()]
}

fn words(key: &Key) -> [u32; 3] {
    [key.source.to_words()[0], key.destination.to_words()[0], key.ports()]
}

impl Lines for Cells {
    type Line = u32;

    fn line(&self, index: u32) -> Option<u32> {
        (index < self.lines()).then_some(index)
    }

    fn state(&self, line: u32) -> State {
        State(self.lines[line as usize].state.load(Ordering::Acquire))
    }

    fn exchange(&self, line: u32, old: State, new: State) -> bool {
        let state = &self.lines[line as usize].state;
        state.compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn publish(&self, line: u32, new: State) {
        self.lines[line as usize].state.store(new.0, Ordering::Release);
    }

    fn set_tag(&self, index: u32, tag: u8) {
        self.tags[index as usize].store(tag, Ordering::Relaxed);
    }
}

impl Table for Cells {
    type Key = Key;
    type Tags = u32;

    fn buckets(&self) -> u32 {
        self.lines() / WAYS
    }

    fn tags(&self, bucket: u32) -> Option<u32> {
        (bucket < self.buckets()).then_some(bucket * WAYS)
    }

    fn word(&self, first: u32, word: u32) -> u64 {
        let of_word = (0..TAGS).map(|way| self.tag(first, word * TAGS + way));
        of_word.rev().fold(0, |word, tag| word << 8 | u64::from(tag))
    }

    fn tag(&self, first: u32, way: u32) -> u8 {
        self.tag_of(first + way)
    }

    fn has_key(&self, line: u32, key: &Key) -> bool {
        self.read(line).0 == *key
    }
}

/// The locks.
pub(crate) struct Sequences(Vec<AtomicU32>);

impl Sequences {
    /// They begin just before they wrap.
    pub(crate) fn new() -> Self {
        Self((0..LOCKS).map(|_| AtomicU32::new(0_u32.wrapping_sub(4))).collect())
    }
}

impl Locks for Sequences {
    fn sequence(&self, lock: u32) -> u32 {
        self.0[lock as usize].load(Ordering::Acquire)
    }

    fn try_lock(&self, lock: u32, sequence: u32) -> bool {
        let next = sequence.wrapping_add(1);
        self.0[lock as usize].compare_exchange(sequence, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn unlock(&self, lock: u32) {
        self.0[lock as usize].fetch_add(1, Ordering::Release);
    }
}

/// A controller that dies after so many of the stores that it takes to give a line up.
pub(crate) struct Dying<'a> {
    table: &'a Cells,
    stores: Cell<u32>,
    is_dead: Cell<bool>,
}

impl<'a> Dying<'a> {
    pub(crate) fn new(table: &'a Cells, stores: u32) -> Self {
        Self { table, stores: stores.into(), is_dead: false.into() }
    }

    /// Whether it has come to the store that it didn't live to do.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.get()
    }

    fn lives(&self) -> bool {
        match self.stores.get().checked_sub(1) {
            Some(left) => self.stores.set(left),
            None => self.is_dead.set(true),
        }
        !self.is_dead.get()
    }
}

impl Lines for Dying<'_> {
    type Line = u32;

    fn line(&self, index: u32) -> Option<u32> {
        self.table.line(index)
    }

    fn state(&self, line: u32) -> State {
        self.table.state(line)
    }

    fn exchange(&self, line: u32, old: State, new: State) -> bool {
        self.table.exchange(line, old, new)
    }

    fn publish(&self, line: u32, new: State) {
        if self.lives() {
            self.table.publish(line, new);
        }
    }

    fn set_tag(&self, index: u32, tag: u8) {
        if self.lives() {
            self.table.set_tag(index, tag);
        }
    }
}

/// splitmix64: the same numbers from the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// One of so many numbers.
    pub(crate) fn below(&mut self, many: u32) -> u32 {
        (((self.next() >> 32) * u64::from(many)) >> 32) as u32
    }
}
