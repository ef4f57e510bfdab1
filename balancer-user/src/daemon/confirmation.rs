//! A reload that is taken back unless somebody confirms it: until when, and what to go back to.
//!
//! It outlives the daemon, as text and with the time that is left: whoever has locked himself out waits for the old configuration,
//! and a daemon that is killed meanwhile, or a machine that is started anew, must not leave him there. The clock on the wall has no
//! say in it, as it may be wrong at a machine's start. A file that is another one by then was written by somebody who is not locked
//! out: then nothing is taken back. Deliberately not here: taking it back (`reload`).

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::Known;
use crate::control::protocol::Reloaded;
use crate::control::server::NotReloaded;
use crate::policy::Moment;
use crate::store::state;

use super::accepted::Accepted;
use super::choice::TakenBack;
use super::memory::{boot_moment, left, ms};
use super::prepare::Source;
use super::reload::Reloads;
use super::{Daemon, Entry, names};

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
    Written {
        text: Arc<str>,
        /// Where host names had led by then.
        known: Known,
    },
}

impl Before {
    const fn text(&self) -> &Arc<str> {
        match self {
            Self::Known(accepted) => &accepted.text,
            Self::Written { text, .. } => text,
        }
    }

    /// Where the names led that it has.
    fn known(&self) -> Known {
        match self {
            Self::Known(accepted) => accepted.config.known(),
            Self::Written { known, .. } => known.clone(),
        }
    }
}

impl Reloads {
    /// Where host names have led last, those of the configuration to go back to among them: they are asked for again only when
    /// it is back, and there may be no answer then.
    pub(super) fn known(&self) -> Known {
        let mut known = self.confirmation.as_ref().map(|waiting| waiting.before.known()).unwrap_or_default();
        known.extend(self.wanted().known());
        known
    }

    /// What is to be remembered of it.
    pub(super) fn unconfirmed(&self, now: Moment) -> Option<state::Confirmation> {
        let Some(Confirmation { until, before, .. }) = &self.confirmation else {
            // The file is as it was: so is the next start, once this one is over and told of.
            let TakenBack { of, why, is_told } = self.taken_back.as_ref()?;
            let taken_back = is_told.then(|| why.clone());
            let before = self.text().to_string();
            return Some(state::Confirmation { ends_in_ms: 0, of: of.clone(), before, taken_back });
        };
        let (of, before) = (state::digest(self.text().as_bytes()), before.text().to_string());
        Some(state::Confirmation { ends_in_ms: ms(*until - now), of, before, taken_back: None })
    }
}

/// How much is left of it, `passed` after it was written down; what was left before a reboot is left again.
pub(super) fn time_left(saved: &state::Confirmation, passed: Duration) -> Duration {
    left(saved.ends_in_ms, passed).min(LONGEST)
}

impl Daemon {
    /// What a person has to know, by name.
    pub(super) fn reload_troubles(&self) -> Option<(String, String)> {
        let TakenBack { why, .. } = self.reloads.taken_back.as_ref().filter(|_| self.ready)?;
        let words = format!(
            "the configuration is the one before the last reload, which {why}: correct what the file says, and `balancer reload`"
        );
        Some(("configuration".to_owned(), words))
    }

    /// What was just accepted waits for its confirmation; `before`: in whose place it is.
    pub(super) fn await_confirmation(&mut self, within: Duration, before: Accepted) {
        let first = self.reloads.confirmation.take().map(|confirmation| confirmation.before);
        let before = first.unwrap_or_else(|| Before::Known(Box::new(before)));
        let until = self.clock.now() + within;
        self.reloads.confirmation = Some(Confirmation { until, has_failed: false, before });
    }

    /// A reload of an earlier life may still wait for it, or have been taken back; one whose time has run out is as one whose
    /// time does so now.
    pub(super) fn wait_on(&mut self, taken_back: Option<TakenBack>) {
        if taken_back.is_some() {
            self.reloads.taken_back = taken_back;
            return;
        }
        let Some(state) = &self.saved else { return };
        let Some(saved) = &state.confirmation else { return };
        if saved.of != state::digest(self.reloads.text().as_bytes()) {
            if saved.taken_back.is_none() {
                warn!(
                    event = "reload",
                    "the configuration is another one than the one that waited for a confirmation: it stays"
                );
            }
            return;
        }
        let left = time_left(saved, state.age_at(&boot_moment()));
        let until = self.clock.now() + left;
        let words = if left.is_zero() {
            "nobody has confirmed the configuration in time: it is taken back as soon as this start is over"
        } else {
            "the configuration still waits for `balancer reload --confirmed`"
        };
        warn!(event = "reload", until = %self.written(until), "{words}");
        let before =
            Before::Written { text: saved.before.as_str().into(), known: names::known(&state.hosts) };
        self.reloads.confirmation = Some(Confirmation { until, has_failed: false, before });
    }

    /// The start is over that has taken a reload back, or has left it taken back: a person is called once for it.
    pub(super) fn tell_taken_back(&mut self) {
        let Some(taken_back) = &mut self.reloads.taken_back else { return };
        let (was_told, why) = (std::mem::replace(&mut taken_back.is_told, true), taken_back.why.clone());
        self.tell_back(&why);
        if !was_told {
            self.alarm(Entry::reload("rolled_back", format!("the last reload {why}")));
            self.remember();
        }
    }

    /// What to go back to; `None`: it was confirmed.
    pub(super) fn before(&self) -> Option<Source> {
        Some(match &self.reloads.confirmation.as_ref()?.before {
            Before::Known(before) => Source::Known(Box::new(self.with_addresses_of_now(before))),
            Before::Written { text, .. } => Source::Text(text.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_on_without_a_daemon_and_not_without_a_machine() {
        let left = |ends_in_ms, passed| {
            let (of, before) = (String::new(), String::new());
            let saved = state::Confirmation { ends_in_ms, of, before, taken_back: None };
            time_left(&saved, Duration::from_secs(passed))
        };
        assert_eq!(left(60_000, 0), Duration::from_secs(60), "after a reboot");
        assert_eq!(left(60_000, 59), Duration::from_secs(1));
        assert_eq!(left(60_000, 61), Duration::ZERO);
        assert_eq!(left(u64::MAX, 0), LONGEST);
    }
}
