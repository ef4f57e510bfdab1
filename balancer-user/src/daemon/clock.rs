//! The daemon's clock: where its loop reads the time. Deliberately not here: what anything waits for.

use std::time::{Duration, Instant, SystemTime};

use crate::policy::Moment;

/// The only reader of time: monotonic for decisions, wall time for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The same moment as people write it: taken once, so that what was told of a moment stays what it was.
    started_wall: SystemTime,
}

impl Clock {
    /// Now.
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), started_wall: SystemTime::now() }
    }

    /// The daemon's start, as a moment. What was before it has moments, too: an earlier daemon's changes.
    pub(super) const START: Moment = Moment::after_zero(Duration::from_secs(100 * 365 * 86_400));

    pub(super) fn now(&self) -> Moment {
        Self::START + self.started.elapsed()
    }

    /// What was before the start is taken for it.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.started + (moment - Self::START)
    }

    /// When something was, as people write it.
    pub(super) fn wall(&self, moment: Moment) -> SystemTime {
        self.started_wall + (moment - Self::START) - (Self::START - moment)
    }

    /// How long ago something was that people wrote down.
    pub(super) fn age(&self, wall: SystemTime) -> Duration {
        self.started_wall.duration_since(wall).unwrap_or_default() + self.started.elapsed()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
