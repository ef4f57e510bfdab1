//! The walk that counts flows and forgets those that have outlived their time.
//!
//! Most flows are judged by their client's line alone; the other direction's is looked at when the client was silent for too
//! long, or when the flow may have begun to end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use balancer_common::abi::{Count, WireAddress};
use balancer_common::flow::Stage;
use balancer_common::limits::{HALF_OPEN_IDLE_NS, HELD_IDLE_NS, MAX_BACKENDS, MAX_SERVICES};

use super::age::Ager;
use super::both::both;
use super::{COUNT_WORDS, Counted, FamilyTables, SWEPT, read_count};
use crate::dataplane::lines::{MappedTable, Met, seen};
use crate::dataplane::slots::Busy;
use crate::dataplane::words::MappedWords;

const HALF_OPEN_IDLE: Duration = Duration::from_nanos(HALF_OPEN_IDLE_NS);
const HELD_IDLE: Duration = Duration::from_nanos(HELD_IDLE_NS);

/// A walk over a large table rests after so many lines, some ten milliseconds of work at the most, and for so long: whoever
/// else wants its processor has it.
const STRETCH: u32 = 1 << 17;
const REST: Duration = Duration::from_millis(1);

/// What one walk over the tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Established flows that haven't begun to close, by backend slot.
    pub established: BTreeMap<u16, u64>,
    /// Slots that any flow refers to.
    pub busy: Busy,
}

/// A walk's notes, in arrays as it passes many flows.
pub(super) struct Notes {
    established: Vec<u64>,
    backends: Vec<bool>,
    services: Vec<bool>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self {
            established: vec![0; MAX_BACKENDS],
            backends: vec![false; MAX_BACKENDS],
            services: vec![false; MAX_SERVICES],
        }
    }

    /// Slots that no controller gives away are nobody's.
    fn refer(&mut self, (service, backend): (u16, u16), is_open: bool) {
        if let Some(busy) = self.services.get_mut(usize::from(service)) {
            *busy = true;
        }
        if backend != 0
            && let Some(busy) = self.backends.get_mut(usize::from(backend))
        {
            *busy = true;
            self.established[usize::from(backend)] += u64::from(is_open);
        }
    }

    pub(super) fn census(self) -> Census {
        let slots = |busy: Vec<bool>| {
            busy.into_iter().enumerate().filter_map(|(slot, busy)| busy.then_some(slot as u16)).collect()
        };
        let counted = self.established.into_iter().enumerate().filter(|(_, flows)| *flows > 0);
        Census {
            established: counted.map(|(slot, flows)| (slot as u16, flows)).collect(),
            busy: Busy { backends: slots(self.backends), services: slots(self.services) },
        }
    }
}

impl<A: WireAddress> FamilyTables<A> {
    /// Counts flows, and takes out those whose time is over.
    pub(super) fn sweep(&self, ager: &Ager, notes: &mut Notes) {
        let Self { established, half_open, counts } = self;
        half_open.sweep(counts, |table, met| judge_handshake(table, ager, notes, met));
        established.sweep(counts, |table, met| judge(table, ager, notes, met));
    }
}

/// What becomes of a line that a walk comes to.
#[derive(PartialEq, Eq)]
enum Fate {
    /// A flow that stays.
    Kept,
    /// A flow whose time is over; the other direction's line with it.
    Over(Option<Met>),
    /// Half a flow, left over.
    Remains,
    /// Not a flow's line to be counted.
    Passed,
}

impl<A: WireAddress> Counted<A> {
    fn sweep(&self, counts: &MappedWords, mut judge: impl FnMut(&MappedTable<A>, Met) -> Fate) {
        let before = read_count(counts, self.count);
        let (mut there, mut swept) = (0_i64, 0);
        let mut stretch = 0;
        for met in self.table.live() {
            if met.index / STRETCH != stretch {
                stretch = met.index / STRETCH;
                sleep(REST);
            }
            match judge(&self.table, met) {
                Fate::Kept => there += 1,
                Fate::Passed => {}
                // The client's line first: without it no packet of the client finds the other.
                Fate::Over(twin) => {
                    if self.table.remove_if_silent(met) {
                        swept += 1;
                        if let Some(twin) = twin {
                            self.table.remove(twin);
                        }
                    } else {
                        there += 1;
                    }
                }
                Fate::Remains => {
                    self.table.remove_if_silent(met);
                }
            }
        }
        self.count_swept(counts, swept);
        let before = Count { swept: before.swept.wrapping_add(swept), ..before };
        self.audit(counts, &before, there);
    }

    /// So many flows were taken out here.
    pub(in crate::dataplane) fn count_swept(&self, counts: &MappedWords, flows: u64) {
        counts.add(self.count * COUNT_WORDS + SWEPT, flows);
    }

    /// Whoever is killed between taking a line out and counting it leaves the count wrong by one. What two walks in a row
    /// have found, beyond what came and went meanwhile, is mended.
    fn audit(&self, counts: &MappedWords, before: &Count, there: i64) {
        let after = read_count(counts, self.count);
        let moved = |now: u64, then: u64| (now.wrapping_sub(then) as i64).abs();
        // Flows that are cut meanwhile are swept by others.
        let unsure = moved(after.begun, before.begun)
            + moved(after.ended, before.ended)
            + moved(after.swept, before.swept);
        let counted = after.begun.wrapping_sub(after.ended).wrapping_sub(after.swept) as i64;
        let gap = counted - there;
        let off = if gap > 0 { (gap - unsure).max(0) } else { (gap + unsure).min(0) };
        let last = self.off.load(Ordering::Relaxed);
        let sure = if off.signum() == last.signum() { off.signum() * off.abs().min(last.abs()) } else { 0 };
        if sure != 0 {
            counts.add(self.count * COUNT_WORDS + SWEPT, sure as u64);
        }
        self.off.store(off - sure, Ordering::Relaxed);
    }
}

/// A line of an established flow. Made and taken out together within microseconds, so alone means: in the making, or left
/// over by a crash.
#[inline]
fn judge<A: WireAddress>(table: &MappedTable<A>, ager: &Ager, notes: &mut Notes, met: Met) -> Fate {
    let silent = ager.since(met.state.last_seen());
    let is_young = silent <= ager.lifetimes.established;
    if !seen(met).is_from_client() {
        let may_have_twin = if ager.is_thorough { silent <= HALF_OPEN_IDLE } else { is_young };
        return if may_have_twin || has_twin(table, met) { Fate::Passed } else { Fate::Remains };
    }
    if is_young && !seen(met).may_end() {
        notes.refer(table.slots(met), true);
        return Fate::Kept;
    }
    let Some(both) = both(table, met) else {
        return if silent <= HALF_OPEN_IDLE { Fate::Kept } else { Fate::Over(None) };
    };
    let stage = both.stage(met);
    let (backend, ..) = both.backend;
    if silent.min(ager.since(backend.state.last_seen())) > ager.lifetime(stage) {
        return Fate::Over(Some(backend));
    }
    notes.refer(table.slots(met), stage == Stage::Established);
    Fate::Kept
}

/// A line of a handshake. Only the client's own packets keep one alive: a backend goes on answering a SYN that was forged.
/// One that is held has no other direction.
fn judge_handshake<A: WireAddress>(table: &MappedTable<A>, ager: &Ager, notes: &mut Notes, met: Met) -> Fate {
    let lifetime = if table.is_held(met) { HELD_IDLE } else { HALF_OPEN_IDLE };
    let is_young = ager.since(met.state.last_seen()) <= lifetime;
    if !seen(met).is_from_client() {
        return if is_young || has_twin(table, met) { Fate::Passed } else { Fate::Remains };
    }
    if is_young {
        notes.refer(table.slots(met), false);
        return Fate::Kept;
    }
    Fate::Over(both(table, met).map(|both| both.backend.0))
}

fn has_twin<A: WireAddress>(table: &MappedTable<A>, met: Met) -> bool {
    table.read(met).is_some_and(|line| table.twin(&line, &table.past(met)).is_some())
}
