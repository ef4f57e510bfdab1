//! When the kernel is looked at: soon after it has told of a change, not for each of many, and now and then in any case.
//!
//! Pure. A flood of news costs one look in a while, however long it lasts and however much of it there is.

use std::time::{Duration, Instant};

/// After the first news: what belongs together comes together.
const GATHER: Duration = Duration::from_millis(10);
/// From the end of a look to the next one at least.
const APART: Duration = Duration::from_millis(100);
/// At most, without any news: for what the kernel does not tell.
const CALM: Duration = Duration::from_secs(1);

/// When the next look is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    looked: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// The first look is due at once.
    pub(super) const fn new() -> Self {
        Self { looked: None, due: None }
    }

    /// Something has changed.
    pub(super) fn heard(&mut self, now: Instant) {
        let soon = now + GATHER;
        let due = self.looked.map_or(soon, |looked| soon.max(looked + APART));
        self.due.get_or_insert(due);
    }

    /// Everything may have changed, and somebody waits.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    pub(super) fn next(&self, now: Instant) -> Instant {
        let calm = self.looked.map_or(now, |looked| looked + CALM);
        self.due.map_or(calm, |due| due.min(calm))
    }

    /// A look has ended; what was heard before it began is in it.
    pub(super) fn looked(&mut self, now: Instant) {
        (self.looked, self.due) = (Some(now), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks in this many milliseconds when there is news at these.
    fn looks(until: u32, news: impl Fn(u32) -> bool) -> Vec<u32> {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut looks = Vec::new();
        for ms in 0..until {
            let now = start + MS * ms;
            if news(ms) {
                pace.heard(now);
            }
            if pace.next(now) <= now {
                pace.looked(now);
                looks.push(ms);
            }
        }
        looks
    }

    #[test]
    fn without_news_there_is_a_look_now_and_then() {
        assert_eq!(looks(2500, |_| false), [0, 1000, 2000]);
    }

    #[test]
    fn news_after_a_calm_are_looked_at_soon_and_together() {
        assert_eq!(looks(1200, |ms| (500..505).contains(&ms)), [0, 510]);
    }

    #[test]
    fn a_flood_costs_ten_looks_a_second() {
        let looks = looks(2000, |ms| ms >= 500);
        assert_eq!(looks.len(), 16, "{looks:?}");
    }

    #[test]
    fn what_comes_after_a_look_gets_one_of_its_own() {
        assert_eq!(looks(900, |ms| [500, 511].contains(&ms)), [0, 510, 610]);
    }

    #[test]
    fn whoever_waits_does_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::new();
        pace.looked(now);
        pace.hurry(now);
        assert_eq!(pace.next(now), now);
    }
}
