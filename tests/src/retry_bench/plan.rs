//! How much is measured.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How often each subject has its turn.
    pub(super) rounds: u32,
    /// Of connections, before the primary fails.
    pub(super) before: Duration,
    /// Of connections, after it has failed. Shorter than the 10 s after which it is tried again.
    pub(super) after: Duration,
    pub(super) idle_flows: usize,
}

impl Plan {
    /// 3,000 connections around each death.
    pub(super) const USUAL: Self =
        Self { rounds: 5, before: Duration::from_secs(2), after: Duration::from_secs(8), idle_flows: 10_000 };

    pub(super) const QUICK: Self =
        Self { rounds: 1, before: Duration::from_secs(1), after: Duration::from_secs(3), idle_flows: 1000 };
}
