//! A point on the monotonic clock, as the policy sees it.
//!
//! `std::time::Instant` can only be read, never made up, so a policy that took one could not be tested or simulated.
//! A `Moment` is a plain distance from a start that only the driver knows. Deliberately not here: a clock, and wall
//! time, which decides nothing (failure class 38).

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the monotonic clock: the time since the driver's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The driver's start.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// So long after the first moment.
    #[must_use]
    pub const fn after_zero(span: Duration) -> Self {
        Self(span)
    }

    /// So long before; what was before the first moment is taken for it.
    #[must_use]
    pub const fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// Saturates: a moment that can't be expressed never comes.
impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, distance: Duration) -> Self {
        Self(self.0.saturating_add(distance))
    }
}

/// The time from `earlier` to `self`; zero when `earlier` isn't earlier.
impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
