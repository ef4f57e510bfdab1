//! Health: what the signals of one service on one backend say.
//!
//! nginx's `max_fails` and `fail_timeout`, as documented rather than as coded: a true sliding window, and a down time
//! that is exact. Deliberately not here: when to probe (`schedule`), and who gets the flows (`failover`).

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;
use super::settings::{BackendSettings, ProbeSchedule};

/// Failures remembered of a backend with `max_fails = 0`, which has no count to end its window: the largest
/// `max_fails` that the configuration takes, so that no window ever needs more.
const LARGEST_WINDOW: usize = 1000;

/// Whether a backend can serve. From best to worst: a backend is as well as the worst of its services says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It answers.
    Up,
    /// No signal has decided yet.
    Unknown,
    /// Its time down is over; probes decide.
    Probation,
    /// It failed, and is left alone for `fail_timeout`.
    Down,
}

impl Health {
    /// The word that status, events and logs use.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Probation => "probation",
            Self::Down => "down",
        }
    }

    /// Whether the active backend may stay: it isn't known to fail.
    pub(super) const fn may_stay(self) -> bool {
        match self {
            Self::Up | Self::Unknown => true,
            Self::Probation | Self::Down => false,
        }
    }
}

/// What is left of a monitor when the controller ends, in times that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// It is down for so long; nothing is left of that while in probation.
    pub down_left: Option<Duration>,
    /// How long its last time down was, or is.
    pub last_down: Duration,
    /// Going down within this is a relapse.
    pub relapse_left: Option<Duration>,
}

/// What a monitor is told.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A probe succeeded.
    Good,
    /// A probe failed, and why.
    Bad(String),
    /// Time went on.
    Elapsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Up,
    Down { until: Moment },
    Probation { good: u32 },
    Starting { good: u32 },
}

/// The health of one service on one backend.
///
/// ```text
///              good                    max_fails bad within fail_timeout
///   Unknown ----------> Up ------------------------------------.
///      |                ^                                      v
///      |                | rise good                          Down  (nothing counts)
///      |                |                  fail_timeout later  |  ^
///      |            Probation <--------------------------------'  |
///      |                | one bad                                 |
///      |                '----------------------------------------->|
///      '--------------- max_fails bad within fail_timeout --------'
/// ```
///
/// A bad signal that doesn't fill the window leaves the state as it is: the first one counts as a first failure. A good
/// signal never takes a failure out of the window; only time does. The failures that made it down leave the window at
/// the very moment at which probation begins, so nothing is ever cleared.
///
/// Damping: who goes down again within twice its last time down after it became up stays down for twice as long, up to
/// `fail_timeout_max`; staying up that long forgets it.
///
/// A `cold` backend that is being started is apart: *Starting* counts good signals in a row up to `rise`, as *Up* is what
/// it must reach, and knows no failure.
#[derive(Debug)]
pub(super) struct Monitor {
    max_fails: u32,
    fail_timeout: Duration,
    fail_timeout_max: Duration,
    rise: u32,
    state: State,
    failures: VecDeque<Moment>,
    last_failure: Option<String>,
    /// How long it was, or is, down the last time.
    last_down: Duration,
    /// Going down before this is a relapse.
    relapse_until: Option<Moment>,
}

impl Monitor {
    pub(super) fn new(backend: &BackendSettings, probe: &ProbeSchedule) -> Self {
        Self {
            max_fails: backend.max_fails,
            fail_timeout: backend.fail_timeout,
            fail_timeout_max: backend.fail_timeout_max.max(backend.fail_timeout),
            rise: probe.rise,
            state: State::Unknown,
            failures: VecDeque::new(),
            last_failure: None,
            last_down: backend.fail_timeout,
            relapse_until: None,
        }
    }

    /// Goes on where an earlier life of the controller ended.
    pub(super) fn restore(&mut self, past: Past, now: Moment) {
        self.last_down = past.last_down.clamp(self.fail_timeout, self.fail_timeout_max);
        self.relapse_until = past.relapse_left.map(|left| now + left);
        if let Some(left) = past.down_left {
            self.state = State::Down { until: now + left.min(self.last_down) };
            self.last_failure = Some("down since before the controller's restart".to_owned());
        }
    }

    /// What a later life has to know; nothing while nothing is wrong.
    pub(super) fn past(&self, now: Moment) -> Option<Past> {
        let down_left = match self.state {
            State::Down { until } => Some(until - now),
            // Its trial begins anew: it is no better for the controller's restart.
            State::Probation { .. } => Some(Duration::ZERO),
            State::Unknown | State::Up | State::Starting { .. } => None,
        };
        let past = Past {
            down_left,
            last_down: self.last_down,
            relapse_left: self.relapse_until.filter(|until| *until > now).map(|until| until - now),
        };
        (past.down_left.is_some() || past.relapse_left.is_some()).then_some(past)
    }

    /// Nothing is known of it, as at the start.
    pub(super) const fn forget(&mut self) {
        self.state = State::Unknown;
    }

    /// From now on it has to show that it runs.
    pub(super) const fn start(&mut self) {
        self.state = State::Starting { good: 0 };
    }

    pub(super) fn handle(&mut self, input: Input, now: Moment) {
        self.state = match (self.state, input) {
            (State::Unknown | State::Up, Input::Good) => State::Up,
            (State::Unknown | State::Up, Input::Bad(reason)) => {
                self.count(reason, now);
                if self.window_is_full() { self.fall(now) } else { self.state }
            }
            (
                State::Unknown | State::Up | State::Probation { .. } | State::Starting { .. },
                Input::Elapsed,
            ) => self.state,
            (State::Starting { good }, Input::Good) if good.saturating_add(1) < self.rise => {
                State::Starting { good: good + 1 }
            }
            (State::Starting { .. }, Input::Good) => State::Up,
            (State::Starting { .. }, Input::Bad(reason)) => {
                self.last_failure = Some(reason);
                State::Starting { good: 0 }
            }
            (State::Down { .. }, Input::Good | Input::Bad(_)) => self.state,
            (State::Down { until }, Input::Elapsed) if now < until => self.state,
            (State::Down { .. }, Input::Elapsed) => State::Probation { good: 0 },
            (State::Probation { good }, Input::Good) if good.saturating_add(1) < self.rise => {
                State::Probation { good: good + 1 }
            }
            (State::Probation { .. }, Input::Good) => {
                self.relapse_until = Some(now + self.last_down * 2);
                State::Up
            }
            (State::Probation { .. }, Input::Bad(reason)) => {
                self.count(reason, now);
                self.down(now)
            }
        };
    }

    pub(super) const fn health(&self) -> Health {
        match self.state {
            State::Unknown | State::Starting { .. } => Health::Unknown,
            State::Up => Health::Up,
            State::Down { .. } => Health::Down,
            State::Probation { .. } => Health::Probation,
        }
    }

    /// When its time down is over; `None` unless it is down.
    pub(super) const fn down_until(&self) -> Option<Moment> {
        match self.state {
            State::Down { until } => Some(until),
            State::Unknown | State::Up | State::Probation { .. } | State::Starting { .. } => None,
        }
    }

    /// Failures in the window now.
    pub(super) fn fails(&self, now: Moment) -> usize {
        self.failures.iter().rev().take_while(|at| self.counts(**at, now)).count()
    }

    /// Some failures, but not enough of them, or about to start: worth asking again soon.
    pub(super) fn is_suspect(&self, now: Moment) -> bool {
        if matches!(self.state, State::Starting { .. }) {
            return true;
        }
        self.health().may_stay() && self.max_fails > 0 && self.fails(now) > 0
    }

    /// The last failure, for as long as it explains something.
    pub(super) fn reason(&self, now: Moment) -> Option<&str> {
        if self.state == State::Up && self.fails(now) == 0 {
            return None;
        }
        self.last_failure.as_deref()
    }

    /// A failure exactly `fail_timeout` old no longer counts.
    fn counts(&self, failure: Moment, now: Moment) -> bool {
        now - failure < self.fail_timeout
    }

    fn count(&mut self, reason: String, now: Moment) {
        while self.failures.front().is_some_and(|oldest| !self.counts(*oldest, now)) {
            self.failures.pop_front();
        }
        if self.failures.len() >= LARGEST_WINDOW.max(self.max_fails as usize) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        self.last_failure = Some(reason);
    }

    fn window_is_full(&self) -> bool {
        self.max_fails > 0 && self.failures.len() >= self.max_fails as usize
    }

    /// Down again, or for the first time.
    fn fall(&mut self, now: Moment) -> State {
        let relapses = self.relapse_until.take().is_some_and(|until| now < until);
        self.last_down =
            if relapses { (self.last_down * 2).min(self.fail_timeout_max) } else { self.fail_timeout };
        self.down(now)
    }

    fn down(&self, now: Moment) -> State {
        State::Down { until: now + self.last_down }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_nanos(1);
    const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

    fn monitor(max_fails: u32, rise: u32) -> Monitor {
        damped(max_fails, rise, FAIL_TIMEOUT)
    }

    fn damped(max_fails: u32, rise: u32, fail_timeout_max: Duration) -> Monitor {
        Monitor {
            max_fails,
            fail_timeout: FAIL_TIMEOUT,
            fail_timeout_max,
            rise,
            state: State::Unknown,
            failures: VecDeque::new(),
            last_failure: None,
            last_down: FAIL_TIMEOUT,
            relapse_until: None,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + SECOND * u32::try_from(seconds).unwrap()
    }

    fn bad() -> Input {
        Input::Bad("refused".to_owned())
    }

    #[test]
    fn every_state_answers_every_input() {
        let now = at(100);
        let down = State::Down { until: now + FAIL_TIMEOUT };
        let early = State::Down { until: now + TICK };
        let over = State::Down { until: now };
        let probation = |good| State::Probation { good };
        let starting = |good| State::Starting { good };
        // max_fails = 2 with `earlier` failures a second ago, rise = 2
        let table = [
            (State::Unknown, 0, Input::Good, State::Up),
            (State::Unknown, 1, Input::Good, State::Up),
            (State::Unknown, 0, bad(), State::Unknown),
            (State::Unknown, 1, bad(), down),
            (State::Unknown, 0, Input::Elapsed, State::Unknown),
            (State::Up, 0, Input::Good, State::Up),
            (State::Up, 0, bad(), State::Up),
            (State::Up, 1, bad(), down),
            (State::Up, 1, Input::Elapsed, State::Up),
            (early, 0, Input::Good, early),
            (early, 0, bad(), early),
            (early, 0, Input::Elapsed, early),
            (over, 0, Input::Good, over),
            (over, 0, bad(), over),
            (over, 0, Input::Elapsed, probation(0)),
            (probation(0), 0, Input::Good, probation(1)),
            (probation(1), 0, Input::Good, State::Up),
            (probation(0), 0, bad(), down),
            (probation(1), 0, bad(), down),
            (probation(1), 0, Input::Elapsed, probation(1)),
            (starting(0), 0, Input::Good, starting(1)),
            (starting(1), 0, Input::Good, State::Up),
            (starting(1), 0, bad(), starting(0)),
            (starting(1), 0, Input::Elapsed, starting(1)),
        ];
        for (state, earlier, input, expected) in table {
            let mut monitor = monitor(2, 2);
            monitor.state = state;
            monitor.failures.extend(vec![at(99); earlier]);
            monitor.handle(input.clone(), now);
            assert_eq!(monitor.state, expected, "{state:?}, {earlier} earlier failures, {input:?}");
        }
    }

    #[test]
    fn a_failure_exactly_fail_timeout_old_no_longer_counts() {
        for (second_failure, expected) in [
            (FAIL_TIMEOUT - TICK, Health::Down),
            (FAIL_TIMEOUT, Health::Up),
            (FAIL_TIMEOUT + TICK, Health::Up),
        ] {
            let mut monitor = monitor(2, 1);
            monitor.handle(Input::Good, at(0));
            monitor.handle(bad(), at(1));
            monitor.handle(bad(), at(1) + second_failure);
            assert_eq!(monitor.health(), expected, "second failure {second_failure:?} after the first");
        }
    }

    #[test]
    fn a_success_takes_no_failure_out_of_the_window() {
        let mut monitor = monitor(3, 1);
        for second in 0..2 {
            monitor.handle(Input::Good, at(second));
            monitor.handle(bad(), at(second));
            monitor.handle(Input::Good, at(second));
        }
        assert_eq!(monitor.fails(at(2)), 2);
        monitor.handle(bad(), at(2));
        assert_eq!(monitor.health(), Health::Down);
    }

    /// The run of nginx in `nginx-semantics.md` in which we differ: failures at 0, 3 and 5 s, a window of 3 s.
    #[test]
    fn where_nginx_adds_up_across_windows_we_stay_up() {
        let mut monitor = monitor(3, 1);
        monitor.fail_timeout = SECOND * 3;
        for (second, input) in
            [(0, bad()), (1, Input::Good), (2, Input::Good), (3, bad()), (4, Input::Good), (5, bad())]
        {
            monitor.handle(input, at(second));
        }
        assert_eq!((monitor.health(), monitor.fails(at(5))), (Health::Up, 2));
    }

    #[test]
    fn down_ends_at_fail_timeout_and_not_a_tick_earlier() {
        let mut monitor = monitor(1, 1);
        monitor.handle(bad(), at(5));
        monitor.handle(Input::Elapsed, at(5) + (FAIL_TIMEOUT - TICK));
        assert_eq!(monitor.health(), Health::Down);
        assert_eq!(monitor.fails(at(5) + (FAIL_TIMEOUT - TICK)), 1);
        monitor.handle(Input::Elapsed, at(5) + FAIL_TIMEOUT);
        assert_eq!(monitor.health(), Health::Probation);
        assert_eq!(monitor.fails(at(5) + FAIL_TIMEOUT), 0, "the window is empty when probation begins");
    }

    #[test]
    fn one_failure_in_probation_is_enough_whatever_max_fails() {
        let mut monitor = monitor(3, 2);
        (0..3).for_each(|second| monitor.handle(bad(), at(second)));
        monitor.handle(Input::Elapsed, at(12));
        monitor.handle(Input::Good, at(12));
        monitor.handle(bad(), at(13));
        assert_eq!(monitor.down_until(), Some(at(23)));
    }

    /// [37]
    #[test]
    fn each_relapse_within_twice_the_last_time_down_doubles_it_up_to_the_maximum() {
        let mut monitor = damped(1, 1, FAIL_TIMEOUT * 3);
        let mut now = at(0);
        for (up_for, expected) in [
            (SECOND, FAIL_TIMEOUT),
            (FAIL_TIMEOUT * 2 - TICK, FAIL_TIMEOUT * 2),
            (FAIL_TIMEOUT * 4 - TICK, FAIL_TIMEOUT * 3),
            (FAIL_TIMEOUT * 6 - TICK, FAIL_TIMEOUT * 3),
            (FAIL_TIMEOUT * 6, FAIL_TIMEOUT),
            (FAIL_TIMEOUT * 2, FAIL_TIMEOUT),
        ] {
            monitor.handle(Input::Good, now);
            assert_eq!(monitor.health(), Health::Up);
            now = now + up_for;
            monitor.handle(bad(), now);
            assert_eq!(monitor.down_until(), Some(now + expected), "after {up_for:?} up");
            now = now + expected;
            monitor.handle(Input::Elapsed, now);
        }
    }

    #[test]
    fn a_failure_in_probation_is_no_relapse_and_keeps_the_time_down() {
        let mut monitor = damped(1, 1, FAIL_TIMEOUT * 4);
        monitor.handle(bad(), at(0));
        monitor.handle(Input::Elapsed, at(10));
        monitor.handle(Input::Good, at(10));
        monitor.handle(bad(), at(11));
        assert_eq!(monitor.down_until(), Some(at(31)));
        monitor.handle(Input::Elapsed, at(31));
        monitor.handle(bad(), at(32));
        assert_eq!(monitor.down_until(), Some(at(52)));
    }

    #[test]
    fn a_restored_monitor_goes_on_where_it_was() {
        let mut before = damped(1, 1, FAIL_TIMEOUT * 4);
        before.handle(bad(), at(0));
        before.handle(Input::Elapsed, at(10));
        before.handle(Input::Good, at(10));
        before.handle(bad(), at(11));
        let mut after = damped(1, 1, FAIL_TIMEOUT * 4);
        assert_eq!(after.past(at(0)), None);
        after.restore(before.past(at(15)).unwrap(), at(2));
        assert_eq!(after.down_until(), Some(at(18)), "16 of 20 s were left");
        after.handle(Input::Elapsed, at(18));
        after.handle(Input::Good, at(18));
        let risen = after.past(at(18)).unwrap();
        let mut later = damped(1, 1, FAIL_TIMEOUT * 4);
        later.restore(risen, at(0));
        later.handle(bad(), at(39));
        assert_eq!(later.down_until(), Some(at(79)), "a relapse within 40 s doubles 20 s");
    }

    #[test]
    fn max_fails_zero_never_goes_down_and_its_window_is_bounded() {
        let mut monitor = monitor(0, 1);
        monitor.handle(Input::Good, at(0));
        for _ in 0..3 * LARGEST_WINDOW {
            monitor.handle(bad(), at(1));
        }
        assert_eq!(monitor.health(), Health::Up);
        assert!(!monitor.is_suspect(at(1)));
        assert_eq!(monitor.fails(at(1)), LARGEST_WINDOW);
    }

    #[test]
    fn the_reason_is_forgotten_when_it_explains_nothing() {
        let mut monitor = monitor(2, 1);
        monitor.handle(Input::Good, at(0));
        monitor.handle(bad(), at(1));
        assert_eq!(monitor.reason(at(1)), Some("refused"));
        assert_eq!(monitor.reason(at(11)), None);
    }

    proptest! {
        /// Against a model that keeps every failure for ever and counts them anew each time.
        #[test]
        fn the_window_equals_a_recount(
            max_fails in 1u32..5,
            steps in prop::collection::vec((0u64..6_000, any::<bool>()), 1..200),
        ) {
            let mut monitor = monitor(max_fails, 1);
            let mut now = Moment::ZERO;
            let mut failures: Vec<Moment> = Vec::new();
            for (gap_ms, good) in steps {
                now = now + Duration::from_millis(gap_ms);
                monitor.handle(Input::Elapsed, now);
                let before = monitor.health();
                monitor.handle(if good { Input::Good } else { bad() }, now);
                if !good && before != Health::Down {
                    failures.push(now);
                }
                let recount = failures.iter().filter(|at| now - **at < FAIL_TIMEOUT).count();
                prop_assert_eq!(monitor.fails(now), recount);
                match before {
                    Health::Up | Health::Unknown => {
                        let full = !good && recount >= max_fails as usize;
                        prop_assert_eq!(monitor.health() == Health::Down, full);
                    }
                    Health::Probation => prop_assert_eq!(monitor.health() == Health::Down, !good),
                    Health::Down => prop_assert_eq!(monitor.health(), Health::Down),
                }
            }
        }
    }
}
