//! A reload that is taken back unless somebody confirms it: until when, and what to go back to.
//!
//! It outlives the daemon, as text and by the clock on the wall: whoever has locked himself out waits for the old configuration,
//! and a daemon that is killed meanwhile, or a machine that is started anew, must not leave him there. A file that is another one by
//! then was written by somebody who is not locked out: then nothing is taken back. Deliberately not here: taking it back
//! (`reload`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::control::protocol::Reloaded;
use crate::control::server::NotReloaded;
use crate::policy::Moment;
use crate::store::state;

use super::prepare::{Accepted, Source};
use super::reload::Reloads;
use super::{Clock, Daemon, Entry};

/// The longest time for a confirmation: nobody comes back later than that to find out.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is waited for.
pub(super) struct Confirmation {
    pub(super) until: Moment,
    /// Taking it back was tried, and is tried again.
    pub(super) has_failed: bool,
    before: Before,
}

/// What was there before.
enum Before {
    /// It was carried out by this daemon.
    Known(Box<Accepted>),
    /// By an earlier one.
    Written(Arc<str>),
}

impl Before {
    const fn text(&self) -> &Arc<str> {
        match self {
            Self::Known(accepted) => &accepted.text,
            Self::Written(text) => text,
        }
    }
}

impl Reloads {
    /// What is to be remembered of it.
    pub(super) fn unconfirmed(&self, clock: &Clock) -> Option<state::Confirmation> {
        let Confirmation { until, before, .. } = self.confirmation.as_ref()?;
        let (of, before) = (state::digest(self.text().as_bytes()), before.text().to_string());
        Some(state::Confirmation { until: clock.wall(*until).into(), of, before })
    }
}

impl Daemon {
    /// What was just accepted waits for its confirmation; `before`: in whose place it is.
    pub(super) fn await_confirmation(&mut self, within: Duration, before: Accepted) {
        let first = self.reloads.confirmation.take().map(|confirmation| confirmation.before);
        let before = first.unwrap_or_else(|| Before::Known(Box::new(before)));
        let until = self.clock.now() + within;
        self.reloads.confirmation = Some(Confirmation { until, has_failed: false, before });
    }

    /// A reload of an earlier life may still wait for it.
    pub(super) fn wait_on(&mut self) {
        let Some(saved) = self.saved.as_ref().and_then(|state| state.confirmation.clone()) else { return };
        if saved.of != state::digest(self.reloads.text().as_bytes()) {
            warn!(
                event = "reload",
                "the configuration is another one than the one that waited for a confirmation: it stays"
            );
            return;
        }
        // Clocks of machines may be wrong at their start.
        let left = SystemTime::from(saved.until).duration_since(SystemTime::now()).unwrap_or_default();
        let until = self.clock.now() + left.min(LONGEST);
        warn!(event = "reload", until = %saved.until, "the configuration still waits for `balancer reload --confirmed`");
        let before = Before::Written(saved.before.into());
        self.reloads.confirmation = Some(Confirmation { until, has_failed: false, before });
    }

    /// What to go back to; `None`: it was confirmed.
    pub(super) fn before(&self) -> Option<Source> {
        Some(match &self.reloads.confirmation.as_ref()?.before {
            Before::Known(before) => Source::Known(Box::new(self.with_addresses_of_now(before))),
            Before::Written(text) => Source::Text(text.clone()),
        })
    }

    /// Somebody is still there.
    pub(super) fn confirm(&mut self, uid: u32) -> Result<Reloaded, NotReloaded> {
        let has_failed = self.reloads.confirmation.as_ref().is_some_and(|it| it.has_failed);
        if has_failed || self.reloads.is_rolling_back() {
            let reason = "it is being taken back: the time is over (`balancer events` tells)";
            return Err(NotReloaded::Refused(reason.to_owned()));
        }
        if self.reloads.confirmation.take().is_none() {
            let reason = "no reload waits for a confirmation: it came in time already, or the configuration before is back \
                          (`balancer events` tells)";
            return Err(NotReloaded::Refused(reason.to_owned()));
        }
        self.remember();
        let generation = self.reloads.generation();
        info!(event = "reload", generation, "confirmed");
        self.note(Entry::reload("confirmed", format!("generation {generation}, by uid {uid}")));
        Ok(Reloaded {
            message: format!("configuration generation {generation} is confirmed"),
            ..self.reloaded(Vec::new())
        })
    }
}
