//! When to probe: the cadence of one target, which is one service on one backend.
//!
//! Probes are told apart by a serial number, so that an answer to a probe that was given up changes nothing. Deliberately
//! not here: whose turn it is among all targets (`queue`), running a probe, and what its outcome means.

use std::time::Duration;

use super::Moment;
use super::settings::ProbeSchedule;

/// At the start all targets are probed at once, this far apart …
const START_SPACING: Duration = Duration::from_millis(1);

/// … and however many there are, the last no later than this.
const START_SPREAD: Duration = Duration::from_millis(100);

/// No target is probed more often than this unless clients fail at it, whatever the settings say (a `fail_timeout` of nothing and a backend that
/// refuses would otherwise go round as fast as the machine can). The smallest interval that the configuration takes.
const SMALLEST_GAP: Duration = Duration::from_millis(10);

/// Pseudo-random numbers that are the same for the same seed (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The dice of one of many: `which` tells them apart.
    pub(super) const fn new(seed: u64, which: u64) -> Self {
        Self(seed ^ which.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(super) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from nothing up to, and without, `span`.
    pub(super) fn below(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let scaled = (u128::from(nanos) * u128::from(self.roll())) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

/// How soon to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Normal,
    Fast,
    AtOnce,
}

#[derive(Debug)]
struct Flight {
    /// Given up then: the prober ends by itself at its timeout, so an answer later than this never comes.
    bound: Moment,
    /// The controller itself stood still meanwhile: a failure would be its own.
    void: bool,
    /// Nobody keeps the backend running any more: what it sees says nothing about a later start.
    past: bool,
}

/// What an outcome is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// The probe was given up before: nothing.
    Late,
    /// Nothing, but the target's next probe may be planned.
    Past,
    /// A success counts, a failure doesn't.
    Void,
    Counts,
}

/// The cadence of one target.
#[derive(Debug)]
pub(super) struct Schedule {
    settings: ProbeSchedule,
    dice: Dice,
    /// When the next one starts if no client wants it before.
    planned: Moment,
    launched: Option<Moment>,
    flight: Option<Flight>,
    serial: u64,
    answered: bool,
    pace: Pace,
    /// When a client's connection attempt failed, if no probe has started since.
    wanted: Option<Moment>,
    /// When the last one started that was wanted.
    hurried: Option<Moment>,
    /// Not before this for a client alone: one that was wanted of another service of the backend has just started.
    held_until: Moment,
}

impl Schedule {
    /// The `nth` of `count` targets, all of which start at `now`.
    pub(super) fn new(settings: ProbeSchedule, seed: u64, nth: u32, count: u32, now: Moment) -> Self {
        let spacing = START_SPACING.min(START_SPREAD / count.max(1));
        Self {
            settings,
            dice: Dice::new(seed, u64::from(nth)),
            planned: now + spacing * nth,
            launched: None,
            flight: None,
            serial: 0,
            answered: false,
            pace: Pace::AtOnce,
            wanted: None,
            hurried: None,
            held_until: Moment::ZERO,
        }
    }

    /// When the next probe starts; none while one is in flight.
    pub(super) fn next(&self) -> Option<Moment> {
        let hurried = self.hurried_at();
        self.flight.is_none().then(|| hurried.map_or(self.planned, |hurried| hurried.min(self.planned)))
    }

    /// Since when a client wants a probe, if it may start for that alone.
    pub(super) fn waits_since(&self, now: Moment) -> Option<Moment> {
        self.wanted.filter(|_| self.flight.is_none() && self.planned > now && self.is_urgent(now))
    }

    /// When the probe in flight is given up.
    pub(super) fn bound(&self) -> Option<Moment> {
        self.flight.as_ref().map(|flight| flight.bound)
    }

    /// The number of the probe in flight.
    pub(super) fn in_flight(&self) -> Option<u64> {
        self.flight.as_ref().map(|_| self.serial)
    }

    pub(super) const fn has_started(&self) -> bool {
        self.launched.is_some()
    }

    /// Whether a probe has ended, however, that wasn't void.
    pub(super) const fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether the next probe may start. `is_behind`: another service of the backend has been wanted for longer.
    pub(super) fn may_start(&self, is_behind: bool, now: Moment) -> bool {
        self.planned <= now || (!is_behind && self.hurried_at().is_some_and(|at| at <= now))
    }

    /// Starts the probe with this number; says whether it was wanted.
    pub(super) fn launch(&mut self, serial: u64, now: Moment) -> bool {
        self.serial = serial;
        self.launched = Some(now);
        let was_wanted = self.wanted.take().is_some();
        if was_wanted {
            self.hurried = Some(now);
        }
        // Twice the prober's own bound and a second: enough for a busy machine to say that the time is over.
        let bound = now + self.settings.timeout.saturating_mul(2) + Duration::from_secs(1);
        self.flight = Some(Flight { bound, void: false, past: false });
        was_wanted
    }

    /// A probe of another service of the backend was wanted, and has started.
    pub(super) const fn hold(&mut self, until: Moment) {
        self.held_until = until;
    }

    pub(super) const fn fast_interval(&self) -> Duration {
        self.settings.fast_interval
    }

    /// Goes on where the one before is, which may have had another cadence: a probe that is due stays due, and none comes
    /// later than the new interval allows.
    pub(super) fn inherit(&mut self, before: Self, now: Moment) {
        let settings = self.settings;
        *self = Self { settings, ..before };
        if settings != before.settings {
            let latest = self.launched.unwrap_or(now) + settings.interval;
            self.planned = self.planned.min(latest.max(now));
        }
    }

    /// What is asked is something else from now on: an answer to what was asked before says nothing.
    pub(super) fn ask_anew(&mut self, now: Moment) {
        self.disown();
        if self.flight.is_none() {
            self.plan(Pace::AtOnce, now);
        }
    }

    /// Ends the probe in flight, if it is that one.
    pub(super) fn land(&mut self, serial: u64) -> Landing {
        if serial != self.serial {
            return Landing::Late;
        }
        let Some(flight) = self.flight.take() else { return Landing::Late };
        self.answered |= !flight.void && !flight.past;
        match flight {
            Flight { past: true, .. } => Landing::Past,
            Flight { void: true, .. } => Landing::Void,
            Flight { .. } => Landing::Counts,
        }
    }

    /// Gives the probe in flight up if its bound has come; says whether.
    pub(super) fn give_up(&mut self, now: Moment) -> bool {
        let Some(flight) = self.flight.take_if(|flight| flight.bound <= now) else { return false };
        self.answered |= !flight.void;
        true
    }

    /// The controller stood still for `late`. More than two intervals of it void a failure of the probe in flight; says
    /// whether there was one.
    pub(super) fn stalled(&mut self, late: Duration) -> bool {
        if late <= self.settings.interval.saturating_mul(2) {
            return false;
        }
        self.flight.as_mut().map(|flight| flight.void = true).is_some()
    }

    /// The probe in flight, if there is one, will say nothing.
    pub(super) const fn disown(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.past = true;
        }
    }

    /// Sets the next probe. Intervals run from start to start, up to a tenth shorter, so that targets which once fell
    /// into step fall out of it, and never longer. The first at the normal pace comes anywhere in the interval: that
    /// spreads what the start, or one failure of many, drew together.
    pub(super) fn plan(&mut self, pace: Pace, now: Moment) {
        let started = self.launched.unwrap_or(now);
        let gap = match pace {
            Pace::AtOnce => Duration::ZERO,
            Pace::Fast => self.shortened(self.settings.fast_interval),
            Pace::Normal if self.pace != Pace::Normal => self.dice.below(self.settings.interval),
            Pace::Normal => self.shortened(self.settings.interval),
        };
        self.pace = pace;
        self.planned = (started + gap.max(SMALLEST_GAP)).max(now);
        // What was asked for while one was in flight may start from now on.
        self.wanted = self.wanted.map(|wanted| wanted.max(now));
    }

    /// A client's connection attempt failed: the next probe starts at once, but no sooner than `fast_interval` after the
    /// last one that was wanted, nor than the backend's other services allow. One in flight started before that attempt ended, and may have seen the
    /// backend as it was then: when it ends well, another one starts.
    pub(super) const fn want(&mut self, now: Moment) {
        if self.wanted.is_none() {
            self.wanted = Some(now);
        }
    }

    /// The probe in flight failed, or the backend is down: nothing is left to ask.
    pub(super) const fn satisfy(&mut self) {
        self.wanted = None;
    }

    /// Whether the next probe is wanted, and may start now.
    pub(super) fn is_urgent(&self, now: Moment) -> bool {
        self.hurried_at().is_some_and(|at| at <= now)
    }

    /// Suspect from now on: the next probe comes as soon as behind one that failed.
    pub(super) fn suspect(&mut self, now: Moment) {
        self.pace = Pace::Fast;
        self.planned = self.planned.min(now + self.shortened(self.settings.fast_interval));
    }

    /// When the next probe may start because it is wanted.
    fn hurried_at(&self) -> Option<Moment> {
        let wanted = self.wanted?;
        let own = self.hurried.map_or(wanted, |last| last + self.settings.fast_interval);
        Some(wanted.max(own).max(self.held_until))
    }

    fn shortened(&mut self, interval: Duration) -> Duration {
        interval - self.dice.below(interval / 10)
    }
}
