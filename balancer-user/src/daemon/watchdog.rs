//! Tells the service manager that the loop still turns: by the loop itself, so that one that hangs is missed.
//!
//! Also before the first decision, which may take longer than the service manager has patience with a start: a probe's `timeout`
//! is the operator's. Deliberately not here: a thread. It would go on telling so for a loop that has stopped.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// How often a start asks for more time: well within the shortest `TimeoutStartSec` that anybody sets.
const START_TURN: Duration = Duration::from_secs(5);
/// What it asks for: some turns may be missed on a busy machine.
const MORE_TIME_USEC: u32 = 30_000_000;

/// What the service manager expects.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// If it expects anything while the loop runs (`WatchdogSec=`).
    running: Option<Interval>,
    starting: Interval,
}

impl Watchdog {
    /// As the environment says. Needs a tokio runtime.
    pub(super) fn expected() -> Self {
        // Zero means off, as in the unit.
        let within = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        // After a stop once is enough.
        let every = |turn: Duration| {
            let mut turn = interval(turn);
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
            turn
        };
        Self { running: within.map(|within| every(within / 2)), starting: every(START_TURN) }
    }

    /// It is time to tell; what is to be told.
    pub(super) async fn turn(&mut self, is_starting: bool) -> NotifyState<'static> {
        let Self { running, starting } = self;
        let running = async {
            match running {
                Some(turn) => drop(turn.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = running => NotifyState::Watchdog,
            _ = starting.tick(), if is_starting => NotifyState::ExtendTimeoutUsec(MORE_TIME_USEC),
        }
    }

    /// The loop turns.
    pub(super) fn tell(&self, what: NotifyState<'static>) {
        if let Err(error) = sd_notify::notify(&[what]) {
            debug!(event = "watchdog", %error, "the service manager could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_asks_for_more_time_at_once_and_only_a_start() {
        let mut watchdog = Watchdog::expected();
        let later = tokio::time::timeout(Duration::from_millis(50), watchdog.turn(false)).await;
        assert!(later.is_err(), "{later:?}");
        let told = watchdog.turn(true).await.to_string();
        assert_eq!(told, "EXTEND_TIMEOUT_USEC=30000000");
    }
}
