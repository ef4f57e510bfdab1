//! Any sequence of operations against a map: the table holds what the map holds, wherever it has put it.

use std::collections::{BTreeMap, BTreeSet};

use balancer_common::abi::{Address4, Port};
use balancer_common::table::{
    self, HELD, Hash, Kind, LOCK_TRIES, Lines, Locks, Place, Refused, State, TAG_WORDS, TAGS, Table, Taker,
    WAYS, WINDOW, WINDOWS, find, insert, mark, met, oldest, remove, remove_as_met,
};
use proptest::prelude::*;

use super::cells::{Cells, Dying, Key, Sequences, value};

/// One of so many keys, so that sequences meet the same ones again.
const KEYS: u8 = 112;

fn key(number: u8) -> Key {
    Key {
        source: Address4::from_wire([10, 0, 0, 1]),
        destination: Address4::from_wire([10, 0, 0, 2]),
        source_port: Port::new(1024 + u16::from(number)),
        destination_port: Port::new(443),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    Remove(u8, Taker),
    RemoveAsMet(u8, bool),
    Mark(u8, u8),
    Packet(u8),
    Oldest(u8, u8),
    /// The controller dies while it takes this key out, after so many stores.
    Die(u8, u32),
    /// A new controller gives up what it finds.
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..KEYS;
    prop_oneof![
        14 => (number.clone(), 0..64_u8).prop_map(|(key, marks)| Step::Insert(key, marks)),
        2 => (number.clone(), prop_oneof![Just(Taker::PacketPath), Just(Taker::Controller)])
            .prop_map(|(key, taker)| Step::Remove(key, taker)),
        1 => (number.clone(), any::<bool>()).prop_map(|(key, touched)| Step::RemoveAsMet(key, touched)),
        1 => (number.clone(), 0..64_u8).prop_map(|(key, marks)| Step::Mark(key, marks)),
        2 => number.clone().prop_map(Step::Packet),
        1 => (number.clone(), 0..4_u8).prop_map(|(key, mark)| Step::Oldest(key, mark)),
        1 => (number, 0..2_u32).prop_map(|(key, stores)| Step::Die(key, stores)),
        1 => Just(Step::Recover),
    ]
}

/// What the map knows of a key.
#[derive(Clone, Copy, Debug)]
struct Known {
    place: Place<u32>,
    marks: u8,
    time: u32,
}

struct Pair {
    table: Cells,
    model: BTreeMap<Key, Known>,
    left: BTreeSet<u32>,
    now: u32,
}

impl Pair {
    /// The clock begins just before it wraps.
    fn new(buckets: u32, seed: u64) -> Self {
        let table = Cells::new(buckets, seed);
        Self { table, model: BTreeMap::new(), left: BTreeSet::new(), now: u32::MAX - 20 }
    }

    fn bucket(&self, hash: Hash) -> u32 {
        hash.bucket(self.table.buckets())
    }

    fn places(bucket: u32) -> impl Iterator<Item = u32> {
        bucket * WAYS..(bucket + 1) * WAYS
    }

    fn free(&self, bucket: u32) -> usize {
        Self::places(bucket).filter(|&index| self.table.state(index).kind() == Kind::Free).count()
    }

    /// The lines of the key's bucket: by eights from those among which it would rather be, and there from the one that it
    /// would rather have.
    fn in_order(&self, hash: Hash) -> impl Iterator<Item = u32> + use<> {
        let bucket = self.bucket(hash);
        let (eight, one) = (hash.way() / TAGS, hash.way() % TAGS);
        (0..TAG_WORDS).flat_map(move |further| {
            let first = bucket * WAYS + (eight + further) % TAG_WORDS * TAGS;
            (0..TAGS).map(move |next| first + (one + next) % TAGS)
        })
    }

    /// The first free line of them.
    fn nearest(&self, hash: Hash) -> Option<u32> {
        self.in_order(hash).find(|&index| self.table.state(index).kind() == Kind::Free)
    }

    fn take(&mut self, step: &Step) {
        self.now = self.now.wrapping_add(1);
        match *step {
            Step::Insert(number, marks) => self.insert(&key(number), marks),
            Step::Remove(number, taker) => {
                if let Some(known) = self.model.remove(&key(number)) {
                    assert!(remove(&self.table, known.place, taker));
                    assert!(!remove(&self.table, known.place, taker), "it is gone");
                    assert!(!mark(&self.table, known.place, 1), "it is gone");
                }
            }
            Step::RemoveAsMet(number, touched) => {
                let Some(known) = self.model.get(&key(number)).copied() else { return };
                let place = met(&self.table, known.place.index, &key(number)).unwrap();
                if touched {
                    self.packet(&key(number));
                } else {
                    self.model.remove(&key(number));
                }
                assert_eq!(remove_as_met(&self.table, place, Taker::Controller), !touched);
            }
            Step::Mark(number, marks) => {
                let Some(known) = self.model.get_mut(&key(number)) else { return };
                assert!(mark(&self.table, known.place, marks));
                known.marks |= marks;
            }
            Step::Packet(number) => self.packet(&key(number)),
            Step::Oldest(number, wanted) => self.oldest(&key(number), wanted),
            Step::Die(number, stores) => {
                let Some(known) = self.model.remove(&key(number)) else { return };
                let dying = Dying::new(&self.table, stores);
                remove(&dying, known.place, Taker::Controller);
                assert!(dying.is_dead());
                self.left.insert(known.place.index);
            }
            Step::Recover => {
                for index in 0..self.table.lines() {
                    let state = self.table.state(index);
                    if state.kind() == Kind::Leaving {
                        assert!(self.left.remove(&index), "nobody died at line {index}");
                        table::give_up(&self.table, Place { line: index, index, state });
                    }
                }
                assert!(self.left.is_empty());
            }
        }
    }

    fn insert(&mut self, key: &Key, marks: u8) {
        if self.model.contains_key(key) {
            return;
        }
        let hash = self.table.hash(key);
        let free = self.free(self.bucket(hash));
        let nearest = self.nearest(hash);
        // Of a line that a dead controller has left the tags say that it is free.
        let is_free = |index: &u32| self.table.state(*index).kind() == Kind::Free;
        let likely = table::likely(&self.table, hash).filter(is_free);
        let made = insert(&self.table, hash, (marks, self.now), |line, index| {
            assert_eq!(line, index);
            assert_eq!(self.table.state(line).kind(), Kind::Claimed, "filled by its owner");
            self.table.fill(line, key, 0);
        });
        match made {
            Ok(place) => {
                assert_eq!(Some(place.index), nearest);
                assert!(
                    likely.is_none_or(|likely| likely == place.index),
                    "another line was likely: {likely:?}"
                );
                assert_eq!(place.state, self.table.state(place.line));
                assert!(
                    self.model.values().all(|known| known.place.index != place.index),
                    "a line of two keys"
                );
                self.model.insert(*key, Known { place, marks, time: self.now });
            }
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                assert_eq!(free, 0, "refused where there was place");
            }
        }
    }

    fn packet(&mut self, key: &Key) {
        if let Some(known) = self.model.get_mut(key) {
            self.table.touch(known.place, self.now);
            known.time = self.now;
        }
    }

    fn oldest(&self, key: &Key, wanted: u8) {
        let hash = self.table.hash(key);
        let may_go = |state: State| state.marks() & wanted == wanted;
        for window in 0..WINDOWS {
            let lines = self.in_order(hash).skip((window * WINDOW) as usize).take(WINDOW as usize);
            let lines: Vec<u32> = lines.collect();
            let there = self.model.values().filter(|known| lines.contains(&known.place.index));
            let may_go_there = there.filter(|known| known.marks & wanted == wanted);
            let expected = may_go_there.map(|known| self.now.wrapping_sub(known.time)).max();
            let found = oldest(&self.table, hash, window, self.now, may_go);
            assert_eq!(found.map(|place| self.now.wrapping_sub(place.state.last_seen())), expected);
            assert!(found.is_none_or(|place| lines.contains(&place.index)));
            assert!(found.is_none_or(|place| may_go(self.table.state(place.line))));
        }
    }

    fn check(&self) {
        for number in 0..KEYS {
            let key = key(number);
            let hash = self.table.hash(&key);
            let found = find(&self.table, hash, &key);
            let known = self.model.get(&key);
            assert_eq!(found.map(|place| place.index), known.map(|known| known.place.index), "{key:?}");
            let (Some(place), Some(known)) = (found, known) else { continue };
            assert_eq!((place.state.marks(), place.state.last_seen()), (known.marks, known.time));
            assert!(place.state.is_same_life(known.place.state));
            assert_eq!(self.table.read(place.line), (key, 0, value(&key)));
            assert_eq!(self.table.tag_of(place.index), hash.tag());
        }
        for index in 0..self.table.lines() {
            match self.table.state(index).kind() {
                Kind::Free => assert_eq!(self.table.tag_of(index), 0, "a free line has no tag"),
                Kind::Live => assert!(self.model.values().any(|known| known.place.index == index)),
                Kind::Leaving => assert!(self.left.contains(&index)),
                Kind::Claimed => panic!("line {index} is claimed"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_table_of_any_size_holds_what_a_map_holds(
        buckets in 1..=3_u32, seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut pair = Pair::new(buckets, seed);
        for step in &steps {
            pair.take(step);
            pair.check();
        }
    }
}

#[test]
fn a_line_lives_on_when_its_generations_wrap() {
    let table = Cells::new(1, 1);
    let one = key(0);
    let place =
        |key: &Key| insert(&table, table.hash(key), (0, 0), |line, _| table.fill(line, key, 0)).unwrap();
    let first = place(&one);
    // As if it had been published so often that the next time is the last one before the number begins again.
    assert!(table.exchange(first.line, first.state, State(first.state.0 | 0xffff_ff00)));
    let last = find(&table, table.hash(&one), &one).unwrap();
    assert!(remove(&table, last, Taker::PacketPath));
    // Another key that would have the same line.
    let (other, reborn) = (1..=u8::MAX)
        .find_map(|number| {
            let other = key(number);
            let reborn = place(&other);
            let is_the_same = reborn.index == last.index;
            (is_the_same || !remove(&table, reborn, Taker::PacketPath)).then_some((other, reborn))
        })
        .unwrap();
    assert_eq!(reborn.index, last.index);
    assert_eq!(find(&table, table.hash(&other), &other), Some(reborn));
    assert_eq!(find(&table, table.hash(&one), &one), None);
    assert!(!remove(&table, last, Taker::Controller), "a life ago");
}

#[test]
fn a_lock_that_is_not_to_be_had_is_tried_so_often_and_no_more() {
    /// A lock that somebody has, or that another is always faster to take.
    struct Lost {
        sequence: u32,
        seen: std::cell::Cell<u32>,
        tried: std::cell::Cell<u32>,
    }
    impl Locks for Lost {
        fn sequence(&self, _: u32) -> u32 {
            self.seen.set(self.seen.get() + 1);
            self.sequence
        }
        fn try_lock(&self, _: u32, _: u32) -> bool {
            self.tried.set(self.tried.get() + 1);
            false
        }
        fn unlock(&self, _: u32) {}
    }
    let hash = Cells::new(1, 1).hash(&key(0));
    for (sequence, tries) in [(6, LOCK_TRIES), (6 | HELD, 0)] {
        let lost = Lost { sequence, seen: 0.into(), tried: 0.into() };
        assert_eq!(table::lock(&lost, hash.lock()), Err(Refused::Contended));
        assert_eq!((lost.seen.get(), lost.tried.get()), (LOCK_TRIES, tries));
    }

    let locks = Sequences::new();
    assert_eq!(table::lock(&locks, hash.lock()), Ok(()));
    assert_eq!(table::lock(&locks, hash.lock()), Err(Refused::Contended));
    locks.unlock(hash.lock());
    assert_eq!(table::lock(&locks, hash.lock()), Ok(()));
}

#[test]
fn a_lock_can_be_taken_as_it_was_seen_until_somebody_has_had_it() {
    let (locks, number) = (Sequences::new(), 7);
    for _ in 0..4 {
        let seen = locks.sequence(number);
        assert!(table::lock_since(&locks, number, seen));
        let held = locks.sequence(number);
        assert_eq!(held & HELD, HELD);
        assert!(!table::lock_since(&locks, number, seen), "somebody has it");
        assert!(!table::lock_since(&locks, number, held), "somebody has it");
        locks.unlock(number);
        assert!(!table::lock_since(&locks, number, seen), "somebody has had it");
        assert!(!table::lock_since(&locks, number, held), "somebody has had it");
        assert!(!table::lock_since(&locks, number, HELD));
    }
}

#[test]
fn a_packet_that_is_newer_than_now_is_not_the_oldest() {
    let table = Cells::new(1, 1);
    // All of them where the first one's would go.
    let hash = table.hash(&key(0));
    for (number, time) in [(0, 90), (1, 101), (2, 95)] {
        insert(&table, hash, (0, time), |line, _| table.fill(line, &key(number), 0)).unwrap();
    }
    // Another CPU's clock ticked after this one's was read.
    let found = oldest(&table, hash, 0, 100, |_| true).unwrap();
    assert_eq!(found.state.last_seen(), 90);
}

#[test]
fn a_table_of_no_buckets_has_nothing_and_takes_nothing() {
    let table = Cells::new(0, 1);
    let hash = table.hash(&key(0));
    assert_eq!(find(&table, hash, &key(0)), None);
    assert_eq!(insert(&table, hash, (0, 0), |_, _| {}), Err(Refused::Full));
    assert_eq!(oldest(&table, hash, 0, 0, |_| true), None);
}
