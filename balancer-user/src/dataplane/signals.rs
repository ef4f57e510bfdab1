//! What the packet path tells of backends by numbers, and where it goes on with attempts that one did not take.
//!
//! What it tells at once is in `failures`. Deliberately not here: who comes after whom.

use std::collections::BTreeSet;

use aya::maps::{MapData, PerCpuArray};
use balancer_common::abi::{Signals, Successors, Watch};
use balancer_common::limits::{MAX_POOLS, MAX_SERVICES, MAX_SUCCESSORS};

use super::DataplaneError;
use super::clock::Jiffies;
use super::maps::Maps;
use super::tables::{clear, take, take_array, take_words};
use super::words::MappedWords;

const MAP: &str = "SIGNALS";
/// Bytes of a word.
const WORD: usize = size_of::<u64>();
const SUCCESSOR_WORDS: usize = size_of::<Successors>() / WORD;
const WATCH_WORDS: usize = size_of::<Watch>() / WORD;
/// Where the words of a [`Watch`] stand.
const ANSWERED: usize = 0;
const LOST: usize = 3;

/// The maps that hold it.
pub(super) struct SignalTables {
    successors: MappedWords,
    trials: MappedWords,
    signals: PerCpuArray<MapData, Signals>,
    watches: MappedWords,
}

impl SignalTables {
    pub(super) fn take(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        Ok(Self {
            successors: take_array(maps, "SUCCESSORS", SUCCESSOR_WORDS)?,
            trials: take_words(maps, "TRIALS", MAX_SERVICES)?,
            signals: take(maps, MAP)?,
            watches: take_array(maps, "WATCHES", WATCH_WORDS)?,
        })
    }

    /// Words that are what they shall be are not written: the packet path has them in its caches.
    pub(super) fn set_successors(&self, pool: u16, backends: &[u16]) {
        let first = usize::from(pool) * SUCCESSOR_WORDS;
        for (at, word) in words(backends).into_iter().enumerate() {
            if self.successors.load(first + at) != word {
                self.successors.store(first + at, word);
            }
        }
    }

    /// By service's slot: the backend that its next connection is to try, by slot; 0: nobody.
    pub(super) fn set_trial(&self, service: u16, backend: u16) {
        self.trials.store(service.into(), backend.into());
    }

    /// Whether nobody has taken it yet.
    pub(super) fn awaits_trial(&self, service: u16) -> bool {
        self.trials.load(service.into()) != 0
    }

    /// Empties the lists that name one of these backends, by slot.
    pub(super) fn forget_successors(&self, backends: &BTreeSet<u16>) {
        for pool in 0..MAX_POOLS {
            let words = (0..SUCCESSOR_WORDS).map(|at| self.successors.load(pool * SUCCESSOR_WORDS + at));
            if words.flat_map(slots).any(|slot| backends.contains(&slot)) {
                self.set_successors(pool as u16, &[]);
            }
        }
    }

    /// Somebody new is in this slot, to whom nothing leads yet.
    pub(super) fn begin_anew(&mut self, backend: u16) -> Result<(), DataplaneError> {
        let first = usize::from(backend) * WATCH_WORDS;
        (first..first + WATCH_WORDS).for_each(|word| self.watches.store(word, 0));
        clear(&mut self.signals, MAP, backend)
    }

    pub(super) fn of(&self, backend: u16) -> Result<Signals, DataplaneError> {
        let values = self.signals.get(&backend.into(), 0).map_err(DataplaneError::map("reading", MAP))?;
        Ok(values.iter().fold(Signals::default(), |sum, cpu| Signals {
            syns: sum.syns + cpu.syns,
            syn_acks: sum.syn_acks + cpu.syn_acks,
            refused: sum.refused + cpu.refused,
            unreachable: sum.unreachable + cpu.unreachable,
            unanswered: sum.unanswered + cpu.unanswered,
            retried_refused: sum.retried_refused + cpu.retried_refused,
            retried_unanswered: sum.retried_unanswered + cpu.retried_unanswered,
            rescued: sum.rescued + cpu.rescued,
        }))
    }

    pub(super) fn answered(&self, backend: u16) -> Option<Jiffies> {
        let answered = self.watches.load(usize::from(backend) * WATCH_WORDS + ANSWERED);
        (answered != 0).then_some(Jiffies(answered))
    }

    pub(super) fn lost(&self, backend: u16) -> u64 {
        self.watches.load(usize::from(backend) * WATCH_WORDS + LOST)
    }
}

/// A list as it stands in the map.
fn words(backends: &[u16]) -> [u64; SUCCESSOR_WORDS] {
    let mut list = [0; MAX_SUCCESSORS];
    list.iter_mut().zip(backends).for_each(|(slot, backend)| *slot = *backend);
    let bytes = list.map(u16::to_ne_bytes);
    let (words, _) = bytes.as_flattened().as_chunks::<WORD>();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// The slots in one of its words.
fn slots(word: u64) -> [u16; WORD / size_of::<u16>()] {
    let bytes = word.to_ne_bytes();
    std::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_in_its_words_as_the_packet_path_reads_it() {
        let backends: Vec<u16> = (1..=MAX_SUCCESSORS as u16 + 4).map(|slot| slot * 100).collect();
        for length in 0..=backends.len() {
            let read: Vec<u16> = words(&backends[..length]).into_iter().flat_map(slots).collect();
            let kept = length.min(MAX_SUCCESSORS);
            assert_eq!((&read[..kept], read.len()), (&backends[..kept], MAX_SUCCESSORS));
            assert!(read[kept..].iter().all(|slot| *slot == 0), "{read:?}");
        }
    }
}
