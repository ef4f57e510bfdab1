//! Tells the service manager that the loop still turns: by the loop itself, so that one that hangs is missed.
//!
//! Deliberately not here: a thread. It would go on telling so for a loop that has stopped.

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// What the service manager expects, if it expects anything (`WatchdogSec=`).
#[derive(Debug)]
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the environment says. Needs a tokio runtime.
    pub(super) fn expected() -> Self {
        // Zero means off, as in the unit.
        let within = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        Self(within.map(|within| {
            let mut turn = interval(within / 2);
            // After a stop once is enough.
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
            turn
        }))
    }

    /// Half of the time is over, or never when nobody waits for it.
    pub(super) async fn turn(&mut self) {
        match &mut self.0 {
            Some(turn) => drop(turn.tick().await),
            None => std::future::pending().await,
        }
    }

    /// The loop turns.
    pub(super) fn tell(&self) {
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            debug!(event = "watchdog", %error, "the service manager could not be told");
        }
    }
}
