//! A flow table's memory, mapped into this process: lines, tags, and what is kept apart from lines.
//!
//! The controller looks at lines and takes them out, with the algorithm of `balancer_common::table`; it never makes one. What
//! walks do with each line is marked to be inlined, as in `words`.
#![expect(unsafe_code, reason = "a line is put together from the words of the mapping")]

use std::hint::black_box;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use balancer_common::abi::{CarriedSoFar, ClientSyn, Line, Opening, Past, SavedSyn, WireAddress};
use balancer_common::flow::Seen;
use balancer_common::table::{
    Kind, Lines, Place, State, TAG_WORDS, TAGS, Taker, give_up, remove, remove_as_met,
};

use super::DataplaneError;
use super::maps::Maps;
use super::tables::take_array;
use super::words::MappedWords;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// Words of what an established flow keeps apart from a line.
const PAST_WORDS: usize = size_of::<Past>() / WORD;
/// Words of what a handshake does.
const SYN_WORDS: usize = size_of::<ClientSyn>() / WORD;

/// One table of one family.
pub(super) struct MappedTable<A> {
    lines: MappedWords,
    tags: MappedWords,
    /// What is kept apart from lines: pasts of established flows, the SYNs of handshakes' clients.
    apart: MappedWords,
    of_handshakes: bool,
    family: PhantomData<A>,
}

/// The names of a table's maps.
pub(super) struct Names {
    pub(super) lines: &'static str,
    pub(super) tags: &'static str,
    pub(super) apart: &'static str,
}

/// A place for a copy of a line, aligned as lines are. The copy is looked at where it is: processors don't forward what was
/// stored word by word to wider loads, as those that copy a struct once more, which wait until all before them is done.
#[repr(C, align(64))]
pub(super) struct Copied<A> {
    words: [u64; 16],
    family: PhantomData<A>,
}

impl<A> Copied<A> {
    pub(super) const fn new() -> Self {
        Self { words: [0; 16], family: PhantomData }
    }
}

/// A live line as it was met.
pub(super) type Met = Place<u32>;

impl<A: WireAddress> MappedTable<A> {
    const LINE_WORDS: usize = size_of::<Line<A>>() / WORD;
    /// The word with the slots of service and backend.
    const SLOTS_WORD: usize = offset_of!(Line<A>, ip_delta) / WORD;
    /// The first of the two words in which a handshake has its [`Opening`].
    const OPENING_WORD: usize = offset_of!(Line<A>, acknowledged) / WORD;

    /// A table of established flows, or of handshakes.
    pub(super) fn take(
        maps: &mut impl Maps,
        names: &Names,
        of_handshakes: bool,
    ) -> Result<Self, DataplaneError> {
        let words_apart = if of_handshakes { SYN_WORDS } else { PAST_WORDS };
        Ok(Self {
            lines: take_array(maps, names.lines, Self::LINE_WORDS)?,
            tags: take_array(maps, names.tags, TAG_WORDS as usize)?,
            apart: take_array(maps, names.apart, words_apart)?,
            of_handshakes,
            family: PhantomData,
        })
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        (self.lines.len() / Self::LINE_WORDS) as u32
    }

    /// Lines that a controller had half taken out when it was killed.
    pub(super) fn finish_what_was_begun(&self) {
        for index in 0..self.len() {
            let state = self.state(index);
            if state.kind() == Kind::Leaving {
                give_up(self, Place { line: index, index, state });
            }
        }
    }

    /// All live lines, found by their tags: a table that is nearly empty is walked over in no time.
    pub(super) fn live(&self) -> impl Iterator<Item = Met> {
        let words = 0..self.tags.len();
        let tagged = words.flat_map(|word| {
            let tags = self.tags.peek(word);
            let in_use = (0..TAGS).filter(move |tag| (tags >> (8 * tag)) as u8 != 0);
            let in_use = in_use.take(if tags == 0 { 0 } else { TAGS as usize });
            in_use.map(move |tag| word as u32 * TAGS + tag)
        });
        tagged.filter_map(|index| self.met(index))
    }

    /// The line at this index, if it is live.
    #[inline]
    pub(super) fn met(&self, index: u32) -> Option<Met> {
        let line = self.line(index)?;
        let state = self.state(line);
        (state.kind() == Kind::Live).then_some(Place { line, index, state })
    }

    /// Slots of the service and the backend of a line that was met.
    #[inline]
    pub(super) fn slots(&self, met: Met) -> (u16, u16) {
        let word = self.lines.peek(met.index as usize * Self::LINE_WORDS + Self::SLOTS_WORD).to_ne_bytes();
        (u16::from_ne_bytes([word[4], word[5]]), u16::from_ne_bytes([word[6], word[7]]))
    }

    /// Whether the line is one of handshakes whose SYN is held: it has no backend.
    pub(super) fn is_held(&self, met: Met) -> bool {
        self.slots(met).1 == 0
    }

    /// A copy of a line that was met, if it has still the same life after that. Of a handshake it is as an established flow's.
    pub(super) fn read(&self, met: Met) -> Option<Line<A>> {
        self.read_into(met, &mut Copied::new()).copied()
    }

    /// The same, in a place of the caller's.
    #[inline]
    pub(super) fn read_into<'a>(&self, met: Met, into: &'a mut Copied<A>) -> Option<&'a Line<A>> {
        const { assert!(size_of::<Line<A>>() <= size_of::<Copied<A>>()) };
        let first = met.index as usize * Self::LINE_WORDS;
        for (at, word) in into.words.iter_mut().take(Self::LINE_WORDS).enumerate() {
            *word = self.lines.peek(first + at);
        }
        fence(Ordering::Acquire);
        if !self.is_there(met) {
            return None;
        }
        if self.of_handshakes {
            let opening = opening([into.words[Self::OPENING_WORD], into.words[Self::OPENING_WORD + 1]]);
            let acknowledged = if seen(met).is_from_client() { 0 } else { opening.began_or_acknowledged };
            let carried = CarriedSoFar(opening.carried).carried();
            into.words[Self::OPENING_WORD] = word([acknowledged, carried.low]);
            into.words[Self::OPENING_WORD + 1] = carried.high;
        }
        // SAFETY: as many bytes and more, aligned as a line is, which is made of integers for which any value is sound; borrowed
        // for as long as the place is.
        Some(unsafe { &*(&raw const *into).cast::<Line<A>>() })
    }

    /// What only the beginning and the end of a flow need, of a direction that was met.
    #[inline]
    pub(super) fn past(&self, met: Met) -> Past {
        if self.of_handshakes {
            let Opening { twin, first_sequence, began_or_acknowledged, carried: _ } = self.opening(met.index);
            let began = if seen(met).is_from_client() { began_or_acknowledged } else { 0 };
            return Past { began, twin, first_sequence, ..Past::default() };
        }
        let halves = |word| self.halves_of_past(met.index, word);
        let ([began, twin], [first_sequence, fin_end], [packets_at_reset, padding]) =
            (halves(0), halves(1), halves(2));
        Past { began, twin, first_sequence, fin_end, packets_at_reset, padding }
    }

    /// The index of the other direction's line, if there is one.
    #[inline]
    pub(super) fn twin_of(&self, index: u32) -> u32 {
        if self.of_handshakes {
            return self.opening(index).twin;
        }
        let [_began, twin] = self.halves_of_past(index, 0);
        twin
    }

    #[inline]
    fn halves_of_past(&self, index: u32, word: usize) -> [u32; 2] {
        halves(self.apart.peek(index as usize * PAST_WORDS + word))
    }

    #[inline]
    fn opening(&self, index: u32) -> Opening {
        let first = index as usize * Self::LINE_WORDS + Self::OPENING_WORD;
        opening([self.lines.peek(first), self.lines.peek(first + 1)])
    }

    /// The SYN beside a client's line at this index of handshakes; meaningful if the line has still the same life after
    /// that.
    pub(super) fn saved_syn(&self, index: u32) -> SavedSyn {
        const AT: usize = offset_of!(ClientSyn, syn) / WORD;
        let word = |word| self.apart.peek(index as usize * SYN_WORDS + AT + word).to_ne_bytes();
        let mut options = [0; 10];
        for (at, option) in options.iter_mut().enumerate() {
            let bytes = word(at / 2);
            let half = if at % 2 == 0 { [0, 1, 2, 3] } else { [4, 5, 6, 7] };
            *option = u32::from_ne_bytes(half.map(|byte: usize| bytes[byte]));
        }
        let [a, b, options_length, flags, traffic_class, hops, c, d] = word(5);
        SavedSyn { options, window: [a, b], options_length, flags, traffic_class, hops, check: [c, d] }
    }

    /// The backends that have not taken it, see [`ClientSyn`]; meaningful as [`Self::saved_syn`] is.
    pub(super) fn tried(&self, index: u32) -> u64 {
        const AT: usize = offset_of!(ClientSyn, tried) / WORD;
        self.apart.peek(index as usize * SYN_WORDS + AT)
    }

    /// The other direction of a line.
    pub(super) fn twin(&self, line: &Line<A>, past: &Past) -> Option<(Met, Line<A>)> {
        let mut twin = Copied::new();
        self.twin_into(line, past, &mut twin).map(|(met, twin)| (met, *twin))
    }

    /// The same, in a place of the caller's.
    #[inline]
    pub(super) fn twin_into<'a>(
        &self,
        line: &Line<A>,
        past: &Past,
        into: &'a mut Copied<A>,
    ) -> Option<(Met, &'a Line<A>)> {
        let met = self.met(past.twin)?;
        let twin = self.read_into(met, into)?;
        (twin.key == line.becomes.reversed()).then_some((met, twin))
    }

    /// Has the processor fetch these lines all at once: they are anywhere in memory, and reading one after the other waits
    /// for each.
    pub(super) fn fetch(&self, indices: impl Iterator<Item = u32>) {
        let known = indices.filter(|index| *index < self.len());
        let words = known.fold(0, |words, index| {
            let first = index as usize * Self::LINE_WORDS;
            words ^ self.lines.peek(first) ^ self.lines.peek(first + Self::LINE_WORDS - 1)
        });
        black_box(words);
    }

    /// Whether a line that was met has still the same life.
    #[inline]
    pub(super) fn is_there(&self, met: Met) -> bool {
        self.state(met.line).is_same_life(met.state)
    }

    /// Takes a line out, if no packet has come since it was met.
    pub(super) fn remove_if_silent(&self, met: Met) -> bool {
        remove_as_met(self, met, Taker::Controller)
    }

    /// Takes a line out, whatever comes meanwhile; `false`: it is gone, or too much came.
    pub(super) fn remove(&self, met: Met) -> bool {
        remove(self, met, Taker::Controller)
    }
}

/// What was seen of a direction when its line was met.
pub(super) fn seen(met: Met) -> Seen {
    Seen(met.state.marks())
}

/// From the two words that it is.
#[inline]
fn opening([first, last]: [u64; 2]) -> Opening {
    let ([twin, first_sequence], [began_or_acknowledged, carried]) = (halves(first), halves(last));
    Opening { twin, first_sequence, began_or_acknowledged, carried }
}

/// By arithmetic: bytes that go by the stack wait there for every load that is under way, and so would the next flow.
#[inline]
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// The word of these [`halves`].
#[inline]
fn word([first, last]: [u32; 2]) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), last.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

impl<A: WireAddress> Lines for MappedTable<A> {
    type Line = u32;

    #[inline]
    fn line(&self, index: u32) -> Option<u32> {
        (index < self.len()).then_some(index)
    }

    #[inline]
    fn state(&self, line: u32) -> State {
        State(self.lines.load(line as usize * Self::LINE_WORDS))
    }

    fn exchange(&self, line: u32, old: State, new: State) -> bool {
        self.lines.exchange(line as usize * Self::LINE_WORDS, old.0, new.0)
    }

    fn publish(&self, line: u32, new: State) {
        self.lines.store(line as usize * Self::LINE_WORDS, new.0);
    }

    fn set_tag(&self, index: u32, tag: u8) {
        self.tags.store_byte(index as usize, tag);
    }
}
