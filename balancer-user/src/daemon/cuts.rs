//! Cuts that are under way: how often each has failed, and when it is tried again.
//!
//! A change with steps waits for its cut, and its policy gives it up in the end. Nobody waits for another one: that is tried
//! for as long as it takes, less and less often, and told. Deliberately not here: how flows are ended (`steps`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::error;

use crate::policy::{BackendIndex, Cut, PoolIndex, Whose};

use super::Daemon;
use super::steps::Done;

/// Before a cut that could not be finished is tried again for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Each pause is twice the one before, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What fails less often is a storm of packets that is over in moments, and nobody's business.
const WORTH_TELLING: u32 = 3;

/// A cut by slots: where its pool and backends stand in the configuration may change while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotCut {
    pool: u16,
    whose: WhoseSlot,
    transition: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WhoseSlot {
    Of(u16),
    AllBut(u16),
}

/// The cuts that have not ended.
#[derive(Debug, Default)]
pub(super) struct Cuts(BTreeMap<SlotCut, UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    /// How many of the same were asked for and have not ended: flows may be made between one and the next.
    runs: u32,
    failures: u32,
    problem: String,
}

impl Cuts {
    pub(super) fn begun(&mut self, cut: SlotCut) {
        self.0.entry(cut).or_default().runs += 1;
    }

    pub(super) fn ended(&mut self, cut: SlotCut) {
        if let Some(under_way) = self.0.get_mut(&cut) {
            under_way.runs -= 1;
            (under_way.failures, under_way.problem) = (0, String::new());
        }
        self.0.retain(|_, under_way| under_way.runs > 0);
    }

    /// This slot is another backend's now: nothing of what was to be cut is its.
    pub(super) fn forget(&mut self, slot: u16) {
        self.0.retain(|cut, _| !matches!(cut.whose, WhoseSlot::Of(of) | WhoseSlot::AllBut(of) if of == slot));
    }

    /// For how long nothing is tried now.
    fn failed(&mut self, cut: SlotCut, problem: String) -> Duration {
        let under_way = self.0.entry(cut).or_default();
        under_way.failures = under_way.failures.saturating_add(1);
        under_way.problem = problem;
        if cut.transition.is_some() {
            return FIRST_PAUSE;
        }
        FIRST_PAUSE.saturating_mul(1 << (under_way.failures - 1).min(10)).min(LONGEST_PAUSE)
    }

    /// Whether it has not ended, and why if it fails again and again.
    pub(super) fn under_way(&self, cut: SlotCut) -> Option<Option<&str>> {
        let under_way = self.0.get(&cut)?;
        Some(Some(under_way.problem.as_str()).filter(|_| under_way.failures >= WORTH_TELLING))
    }

    /// Those that fail again and again, and why; but those that a change waits for and gives up.
    pub(super) fn failing(&self) -> impl Iterator<Item = (SlotCut, &str)> {
        let failing = self
            .0
            .iter()
            .filter(|(cut, under_way)| cut.transition.is_none() && under_way.failures >= WORTH_TELLING);
        failing.map(|(cut, under_way)| (*cut, under_way.problem.as_str()))
    }
}

impl Daemon {
    /// Ends all flows of some backends.
    pub(super) fn cut(&mut self, cut: Cut) {
        let cut = self.by_slots(cut);
        self.cuts.begun(cut);
        self.try_cut(cut);
    }

    pub(super) fn by_slots(&self, cut: Cut) -> SlotCut {
        let slots = &self.parts.slots[cut.pool.0];
        let slot = |backend: BackendIndex| slots.backends[backend.0].index;
        let whose = match cut.whose {
            Whose::Of(backend) => WhoseSlot::Of(slot(backend)),
            Whose::AllBut(backend) => WhoseSlot::AllBut(slot(backend)),
        };
        SlotCut { pool: slots.pool.index, whose, transition: cut.transition }
    }

    /// `None`: it has ended, or who is meant has left the configuration, and is somebody else's business.
    pub(super) fn by_place(&self, cut: SlotCut) -> Option<Cut> {
        self.cuts.under_way(cut)?;
        let pool = self.parts.slots.iter().position(|slots| slots.pool.index == cut.pool)?;
        let backends = &self.parts.slots[pool].backends;
        let place = |slot| backends.iter().position(|backend| backend.index == slot).map(BackendIndex);
        let whose = match cut.whose {
            WhoseSlot::Of(slot) => Whose::Of(place(slot)?),
            WhoseSlot::AllBut(slot) => Whose::AllBut(place(slot)?),
        };
        Some(Cut { pool: PoolIndex(pool), whose, transition: cut.transition })
    }

    /// Not all of them could be ended.
    pub(super) fn cut_failed(&mut self, by_slots: SlotCut, problem: String) {
        let Some(cut) = self.by_place(by_slots) else {
            self.cuts.ended(by_slots);
            return;
        };
        let is_wanted = self.policy.handle_cut_trouble(cut, &problem);
        let then = if is_wanted { "trying again" } else { "given up" };
        let pool = self.pool_name(cut.pool);
        error!(event = "cut", pool, problem, "flows could not all be ended; {then}");
        if is_wanted {
            let pause = self.cuts.failed(by_slots, problem);
            tokio::spawn(again(by_slots, pause, self.done.0.clone()));
        } else {
            self.cuts.ended(by_slots);
        }
    }
}

async fn again(cut: SlotCut, pause: Duration, done: mpsc::Sender<Done>) {
    tokio::time::sleep(pause).await;
    let _ = done.send(Done::CutAgain(cut)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(transition: Option<u64>) -> SlotCut {
        SlotCut { pool: 0, whose: WhoseSlot::Of(1), transition }
    }

    #[test]
    fn one_that_nobody_waits_for_is_tried_less_and_less_often_and_told() {
        let mut cuts = Cuts::default();
        cuts.begun(cut(None));
        let pauses: Vec<_> =
            (0..40).map(|_| cuts.failed(cut(None), "a storm".to_owned()).as_secs()).collect();
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
        assert_eq!(cuts.failing().collect::<Vec<_>>(), [(cut(None), "a storm")]);
        assert_eq!(cuts.under_way(cut(None)), Some(Some("a storm")));
        cuts.ended(cut(None));
        assert_eq!((cuts.failing().count(), cuts.under_way(cut(None))), (0, None));
    }

    #[test]
    fn one_that_is_asked_for_twice_ends_with_the_last() {
        let mut cuts = Cuts::default();
        (0..2).for_each(|_| cuts.begun(cut(None)));
        cuts.ended(cut(None));
        assert_eq!(cuts.under_way(cut(None)), Some(None));
        cuts.ended(cut(None));
        assert_eq!(cuts.under_way(cut(None)), None);
    }

    #[test]
    fn one_of_who_is_gone_is_not_tried_on_who_comes_into_the_slot() {
        let mut cuts = Cuts::default();
        cuts.begun(cut(None));
        cuts.forget(2);
        assert_eq!(cuts.under_way(cut(None)), Some(None));
        cuts.forget(1);
        assert_eq!(cuts.under_way(cut(None)), None);
    }

    #[test]
    fn one_that_a_change_waits_for_is_tried_each_second_until_that_is_held() {
        let mut cuts = Cuts::default();
        cuts.begun(cut(Some(7)));
        assert!((0..9).all(|_| cuts.failed(cut(Some(7)), String::new()) == FIRST_PAUSE));
        assert_eq!(cuts.failing().count(), 0, "the change tells it");
    }
}
