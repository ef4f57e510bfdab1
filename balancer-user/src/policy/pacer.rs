//! How far starts of probes are apart, over all targets together.
//!
//! Each target has a cadence of its own, and chance alone, or one failure of many, draws starts together. So they also
//! keep a distance: a few may come in a row, and behind them they come one and a half times as fast as on the average.
//! With 500 targets or more no 100 ms then holds more than twice its share; with fewer it holds 50 at most, which is
//! nothing to any machine. The price: when more than a third of many targets are suspect at once, they are asked less often
//! than `fast_interval` says.
//!
//! Deliberately not here: which target comes next, and how many are under way.

use std::time::Duration;

use super::Moment;

/// As many may start in a row after a pause: with a handful of backends nobody ever waits.
const IN_A_ROW: u32 = 8;

/// The distance, as a part of what starts are apart on the average …
const PART: f64 = 5.0 / 8.0;

/// … and at most this: then 100 ms hold `IN_A_ROW` and 40 more.
const LONGEST_GAP: Duration = Duration::from_micros(2500);

#[derive(Debug)]
pub(super) struct Pacer {
    gap: Duration,
    /// When the next one would start if none were ahead of its time.
    on_time: Moment,
}

impl Pacer {
    /// For targets with these intervals.
    pub(super) fn new(intervals: impl Iterator<Item = Duration>) -> Self {
        let per_second: f64 = intervals.map(|interval| interval.as_secs_f64().recip()).sum();
        // Without targets the gap has no end.
        let gap = Duration::try_from_secs_f64(PART / per_second).unwrap_or(LONGEST_GAP);
        Self { gap: gap.min(LONGEST_GAP), on_time: Moment::ZERO }
    }

    /// For other targets from now on; who has just started counts all the same.
    pub(super) const fn succeed(&mut self, new: &Self) {
        self.gap = new.gap;
    }

    /// When the next one may start.
    pub(super) fn next(&self) -> Moment {
        let ahead = self.gap * (IN_A_ROW - 1);
        Moment::ZERO + (self.on_time - Moment::ZERO).saturating_sub(ahead)
    }

    /// One starts.
    pub(super) fn start(&mut self, now: Moment) {
        self.on_time = self.on_time.max(now) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many start within 100 ms, when as many as possible wait all the time.
    fn at_most(targets: usize) -> usize {
        let mut pacer = Pacer::new((0..targets).map(|_| Duration::from_secs(2)));
        let mut now = Moment::ZERO + Duration::from_secs(60);
        let end = now + Duration::from_millis(100);
        let mut started = 0;
        while now < end {
            pacer.start(now);
            started += 1;
            now = now.max(pacer.next());
        }
        started
    }

    #[test]
    fn a_tenth_of_a_second_holds_no_more_than_twice_its_share() {
        for (targets, share) in [(500, 25), (1000, 50), (4000, 200)] {
            let most = at_most(targets);
            assert!((share * 3 / 2..=share * 2).contains(&most), "{most} of {targets}");
        }
        assert!((30..=50).contains(&at_most(2)) && at_most(0) <= 50);
    }

    #[test]
    fn a_handful_never_waits() {
        let mut pacer = Pacer::new([Duration::from_secs(2)].into_iter());
        let now = Moment::ZERO + Duration::from_secs(1);
        for nth in 0..IN_A_ROW {
            assert!(pacer.next() <= now, "{nth}");
            pacer.start(now);
        }
        assert!(pacer.next() > now);
    }
}
