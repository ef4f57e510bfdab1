//! What only this module can see: the arithmetic on four tags at once, and the state word. The algorithm itself is tested
//! from outside, in `tests/table`.

use std::vec::Vec;

use proptest::prelude::*;

use super::tags::count;
use super::*;
use crate::abi::{Address4, FlowKey, Seed};

/// The four tags of a word, the lowest first.
fn tags_of(word: u64) -> [u16; 4] {
    core::array::from_fn(|way| (word >> (16 * way)) as u16)
}

fn word_of(tags: [u16; 4]) -> u64 {
    tags.iter().rev().fold(0, |word, &tag| word << 16 | u64::from(tag))
}

/// The highest bit of each tag that is zero, by looking at one after the other.
fn naive_zeros(word: u64) -> u64 {
    word_of(tags_of(word).map(|tag| if tag == 0 { 0x8000 } else { 0 }))
}

/// Tags that carries and borrows would show in.
const EDGES: [u16; 10] = [0, 1, 2, 0x00ff, 0x0100, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];

#[test]
fn every_tag_is_zero_or_not_whatever_its_neighbours_are() {
    for tag in 0..=u16::MAX {
        for way in 0..4 {
            for neighbour in [0, 1, 0x7fff, 0x8000, 0xffff] {
                let mut tags = [neighbour; 4];
                tags[way] = tag;
                let word = word_of(tags);
                assert_eq!(zeros(word), naive_zeros(word), "{word:#018x}");
            }
        }
    }
    for a in EDGES {
        for b in EDGES {
            for c in EDGES {
                for d in EDGES {
                    let word = word_of([a, b, c, d]);
                    assert_eq!(zeros(word), naive_zeros(word), "{word:#018x}");
                }
            }
        }
    }
}

#[test]
fn every_tag_is_found_among_others_by_xor() {
    for tag in 1..=u16::MAX {
        let word = word_of([tag, tag ^ 1, tag, tag ^ 0x8000]);
        assert_eq!(zeros(word ^ repeated(tag)), 0x0000_8000_0000_8000, "{tag:#06x}");
    }
}

#[test]
fn all_sixteen_sets_of_four_bits_are_counted_and_walked_in_order() {
    for set in 0..16_u32 {
        let bits = word_of(core::array::from_fn(|way| if set >> way & 1 == 1 { 0x8000 } else { 0 }));
        assert_eq!(count(bits), set.count_ones(), "{set:#06b}");
        let (mut walked, mut rest) = (Vec::new(), bits);
        while rest != 0 {
            walked.push(lowest(rest));
            rest &= rest - 1;
        }
        let expected: Vec<_> = (0..4).filter(|way| set >> way & 1 == 1).collect();
        assert_eq!(walked, expected, "{set:#06b}");
    }
}

const KINDS: [Kind; 4] = [Kind::Free, Kind::Claimed, Kind::Live, Kind::Leaving];

/// Of a state word: kind, marks, generation, time.
fn parts(state: State) -> (Kind, u8, u32, u32) {
    (state.kind(), state.marks(), (state.0 as u32) >> 8, state.last_seen())
}

#[test]
fn a_zeroed_line_is_free() {
    assert_eq!(parts(State::default()), (Kind::Free, 0, 0, 0));
}

#[test]
fn a_generation_wraps_into_nothing_else() {
    let last = State(0xffff_ff00);
    assert_eq!(parts(last.born(0, 0)), (Kind::Live, 0, 0, 0));
    assert_eq!(parts(last.born(0b11_1111, u32::MAX)), (Kind::Live, 0b11_1111, 0, u32::MAX));
    assert!(!last.born(0, 0).is_same_life(last.with_kind(Kind::Live)));
}

proptest! {
    #[test]
    fn a_word_of_any_tags_has_the_zeros_that_one_sees(word in any::<u64>(), mask in any::<[bool; 4]>()) {
        let tags = tags_of(word);
        let word = word_of(core::array::from_fn(|way| if mask[way] { tags[way] } else { 0 }));
        prop_assert_eq!(zeros(word), naive_zeros(word));
        prop_assert_eq!(count(zeros(word)), tags_of(word).iter().filter(|&&tag| tag == 0).count() as u32);
    }

    #[test]
    fn a_tag_is_found_in_the_first_line_that_has_it(
        words in any::<[u64; 2]>(), tag in 1..=u16::MAX, mask in any::<[bool; 8]>(),
    ) {
        let mut tags: Vec<u16> = words.into_iter().flat_map(tags_of).collect();
        for (has_it, has) in mask.into_iter().zip(&mut tags) {
            *has = if has_it { tag } else { *has };
        }
        let in_words = [word_of([tags[0], tags[1], tags[2], tags[3]]), word_of([tags[4], tags[5], tags[6], tags[7]])];
        let first = tags.iter().position(|&has| has == tag).map(|way| way as u32);
        prop_assert_eq!(way_of(in_words, tag), first);
    }

    #[test]
    fn a_kind_changes_and_nothing_else(word in any::<u64>(), kind in 0..4_usize) {
        let (_, marks, generation, time) = parts(State(word));
        prop_assert_eq!(parts(State(word).with_kind(KINDS[kind])), (KINDS[kind], marks, generation, time));
    }

    #[test]
    fn marks_are_added_and_nothing_else_changes(word in any::<u64>(), more in any::<u8>()) {
        let (kind, marks, generation, time) = parts(State(word));
        prop_assert_eq!(parts(State(word).marked(more)), (kind, marks | more & 0b11_1111, generation, time));
    }

    #[test]
    fn a_birth_keeps_nothing_of_the_life_before(word in any::<u64>(), marks in any::<u8>(), now in any::<u32>()) {
        let (_, _, generation, _) = parts(State(word));
        let next = generation.wrapping_add(1) & 0xff_ffff;
        prop_assert_eq!(parts(State(word).born(marks, now)), (Kind::Live, marks & 0b11_1111, next, now));
    }

    #[test]
    fn a_freed_line_keeps_its_generation_alone(word in any::<u64>()) {
        let (_, _, generation, _) = parts(State(word));
        prop_assert_eq!(parts(State(word).freed()), (Kind::Free, 0, generation, 0));
    }

    #[test]
    fn a_life_is_the_same_whatever_is_marked_and_stored_in_it(
        word in any::<u64>(), marks in any::<u8>(), time in any::<u32>(), bit in 8..32_u32,
    ) {
        let alive = State(word).with_kind(Kind::Live);
        let later = State(alive.marked(marks).0 & 0xffff_ffff | u64::from(time) << 32);
        prop_assert!(alive.is_same_life(later) && later.is_same_life(alive));
        prop_assert!(!alive.is_same_life(State(alive.0 ^ 1 << bit)), "another generation");
        for kind in [Kind::Free, Kind::Claimed, Kind::Leaving] {
            let other = alive.with_kind(kind);
            prop_assert!(!alive.is_same_life(other) && !other.is_same_life(alive) && !other.is_same_life(other));
        }
    }

    #[test]
    fn a_tag_is_never_zero(addresses in any::<[u32; 2]>(), ports in any::<[u16; 2]>(), seed in any::<[u64; 10]>()) {
        let key = FlowKey {
            source: Address4::from_words([addresses[0]]),
            destination: Address4::from_words([addresses[1]]),
            source_port: crate::abi::Port::new(ports[0]),
            destination_port: crate::abi::Port::new(ports[1]),
        };
        prop_assert_ne!(Hash::of(&key, &Seed(seed)).tag(), 0);
    }

    #[test]
    fn a_hash_names_only_buckets_and_locks_that_there_are(word in any::<u64>(), buckets in 1..=u32::MAX) {
        prop_assert!(Hash::from_word(word).buckets(buckets).iter().all(|&bucket| bucket < buckets));
        prop_assert!(Hash::from_word(word).lock() < LOCKS);
    }
}

#[test]
fn a_hash_whose_tag_would_be_zero_has_another() {
    for word in [0, 0xffff_0000_ffff_ffff, 0x1234_0000_1234_5678, 0xffff] {
        assert_eq!(Hash::from_word(word).tag(), 1, "{word:#x}");
    }
}
