//! What only this module can see: the arithmetic on eight tags at once, and the state word. The algorithm itself is tested
//! from outside, in `tests/table`.

use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::abi::{Address4, FlowKey, Seed};

/// The eight tags of a word, the lowest first.
fn tags_of(word: u64) -> [u8; 8] {
    word.to_le_bytes()
}

fn word_of(tags: [u8; 8]) -> u64 {
    u64::from_le_bytes(tags)
}

/// The highest bit of each tag that is zero, by looking at one after the other.
fn naive_zeros(word: u64) -> u64 {
    word_of(tags_of(word).map(|tag| if tag == 0 { 0x80 } else { 0 }))
}

/// Tags that carries and borrows would show in.
const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0x81, 0xff];

#[test]
fn every_tag_is_zero_or_not_whatever_its_neighbours_are() {
    for tag in 0..=u8::MAX {
        for way in 0..8 {
            for below in EDGES {
                for above in EDGES {
                    let tags = core::array::from_fn(|at| if at < way { below } else { above });
                    let mut word = tags;
                    word[way] = tag;
                    let word = word_of(word);
                    assert_eq!(zeros(word), naive_zeros(word), "{word:#018x}");
                    assert_eq!(has_zero(below_zero(word)), naive_zeros(word) != 0, "{word:#018x}");
                }
            }
        }
    }
}

#[test]
fn every_tag_is_found_among_others_by_xor() {
    for tag in 1..=u8::MAX {
        let word = word_of([tag, tag ^ 1, tag, tag ^ 0x80, 0, !tag, tag ^ 1, tag]);
        assert_eq!(zeros(word ^ repeated(tag)), 0x8000_0000_0080_0080, "{tag:#04x}");
    }
}

#[test]
fn all_sets_of_eight_bits_are_walked_in_order() {
    for set in 0..=u8::MAX {
        let mut rest = word_of(core::array::from_fn(|way| if set >> way & 1 == 1 { 0x80 } else { 0 }));
        let mut walked = Vec::new();
        while rest != 0 {
            walked.push(lowest(rest));
            rest &= rest - 1;
        }
        let expected: Vec<_> = (0..8).filter(|way| set >> way & 1 == 1).collect();
        assert_eq!(walked, expected, "{set:#010b}");
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
    fn a_word_of_any_tags_has_the_zeros_that_one_sees(word in any::<u64>(), mask in any::<[bool; 8]>()) {
        let tags = tags_of(word);
        let word = word_of(core::array::from_fn(|way| if mask[way] { tags[way] } else { 0 }));
        prop_assert_eq!(zeros(word), naive_zeros(word));
    }

    #[test]
    fn a_tag_of_some_words_is_zero_if_it_is_in_one_of_them(words in vec(any::<[u8; 8]>(), 0..9), zero in 0..400_usize) {
        let mut words = words;
        if let Some(word) = words.get_mut(zero / 8) {
            word[zero % 8] = 0;
        }
        let words: Vec<_> = words.into_iter().map(word_of).collect();
        let below = words.iter().fold(0, |below, word| below | below_zero(*word));
        prop_assert_eq!(has_zero(below), words.iter().any(|word| naive_zeros(*word) != 0));
    }

    #[test]
    fn a_tag_is_found_in_the_first_line_that_has_it(
        word in any::<u64>(), tag in 1..=u8::MAX, mask in any::<[bool; 8]>(),
    ) {
        let mut tags = tags_of(word);
        for (has_it, has) in mask.into_iter().zip(&mut tags) {
            *has = if has_it { tag } else { *has };
        }
        let first = tags.iter().position(|&has| has == tag).map(|way| way as u32);
        prop_assert_eq!(first_with(word_of(tags), tag), first);
    }

    #[test]
    fn buckets_are_for_as_many_flows_as_they_were_made_for(buckets in 1..=u32::MAX / 32) {
        let flows = flows_for(buckets);
        prop_assert_eq!((buckets_for(flows), buckets_for(flows + 1)), (buckets, buckets + 1));
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
    fn a_hash_names_only_buckets_lines_and_locks_that_there_are(word in any::<u64>(), buckets in 1..=u32::MAX) {
        let hash = Hash::from_word(word);
        prop_assert!(hash.bucket(buckets) < buckets);
        prop_assert!(hash.way() < WAYS);
        prop_assert!(hash.lock() < LOCKS);
    }
}

#[test]
fn a_hash_whose_tag_would_be_zero_has_another() {
    for word in [0, 0xffff_ffff_ffff_00ff, 0x1234_5678_1234_0078, 0xff] {
        assert_eq!(Hash::from_word(word).tag(), 1, "{word:#x}");
    }
}
