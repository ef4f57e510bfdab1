//! Health: what the signals of one service on one backend say.
//!
//! nginx's `max_fails` and `fail_timeout`, as documented rather than as coded: a true sliding window, and a down time
//! that is exact. Deliberately not here: when to probe (`schedule`), and who gets the flows (`failover`).

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;
use super::settings::BackendSettings;

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
    /// A probe failed, or clients' own connection attempts did, and why.
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
    /// `rise`: good signals in probation before it is up again; 0 means 1.
    pub(super) fn new(backend: &BackendSettings, rise: u32) -> Self {
        Self {
            max_fails: backend.max_fails,
            fail_timeout: backend.fail_timeout,
            fail_timeout_max: backend.fail_timeout_max.max(backend.fail_timeout),
            rise,
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

    /// Goes on where the one before is, by its own rules: nobody is down for longer than they allow.
    pub(super) fn inherit(&mut self, before: Self, now: Moment) {
        let longest = now + self.fail_timeout_max;
        self.state = match before.state {
            State::Down { until } => State::Down { until: until.min(longest) },
            state => state,
        };
        self.last_down = before.last_down.clamp(self.fail_timeout, self.fail_timeout_max);
        self.relapse_until = before.relapse_until;
        (self.failures, self.last_failure) = (before.failures, before.last_failure);
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
    pub(super) fn forget(&mut self) {
        (self.state, self.last_failure) = (State::Unknown, None);
    }

    /// From now on it has to show that it runs.
    pub(super) const fn start(&mut self) {
        self.state = State::Starting { good: 0 };
    }

    /// It has yet to show that it runs.
    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
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
        if self.is_starting() {
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
mod tests;
