//! When to probe: the cadence of one target, and the queue that bounds all of them.
//!
//! A *target* is one service on one backend. Probes are told apart by a serial number, so that an answer to a probe that
//! was given up changes nothing. Deliberately not here: running a probe, and what its outcome means.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;
use super::pacer::Pacer;
use super::settings::{BackendIndex, PoolIndex, ProbeSchedule, ServiceIndex};

/// Probes in flight at once, over all pools: 64 handshakes cost a small machine some tens of milliseconds, and their
/// sockets stay far below the usual 1024 file descriptors.
pub const MAX_IN_FLIGHT: usize = 64;

/// At the start all targets are probed at once, this far apart …
const START_SPACING: Duration = Duration::from_millis(1);

/// … and however many there are, the last no later than this.
const START_SPREAD: Duration = Duration::from_millis(100);

/// No target is probed more often than this, whatever the settings say (a `fail_timeout` of nothing and a backend that
/// refuses would otherwise go round as fast as the machine can). The smallest interval that the configuration takes.
const SMALLEST_GAP: Duration = Duration::from_millis(10);

/// One service on one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetId {
    pub(super) pool: PoolIndex,
    pub(super) backend: BackendIndex,
    pub(super) service: ServiceIndex,
}

/// One probe to run. Its outcome is handed back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeTicket {
    /// The pool.
    pub pool: PoolIndex,
    /// The backend to probe …
    pub backend: BackendIndex,
    /// … and on which service's port.
    pub service: ServiceIndex,
    pub(super) serial: u64,
}

impl ProbeTicket {
    pub(super) const fn new(target: TargetId, serial: u64) -> Self {
        Self { pool: target.pool, backend: target.backend, service: target.service, serial }
    }

    pub(super) const fn target(&self) -> TargetId {
        TargetId { pool: self.pool, backend: self.backend, service: self.service }
    }
}

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
    next: Moment,
    launched: Option<Moment>,
    flight: Option<Flight>,
    serial: u64,
    answered: bool,
    pace: Pace,
    /// A client's connection attempt failed, and no probe has started since.
    wanted: bool,
    /// When the last one started that was wanted.
    hurried: Option<Moment>,
}

impl Schedule {
    /// The `nth` of `count` targets, all of which start at `now`.
    pub(super) fn new(settings: ProbeSchedule, seed: u64, nth: u32, count: u32, now: Moment) -> Self {
        let spacing = START_SPACING.min(START_SPREAD / count.max(1));
        Self {
            settings,
            dice: Dice::new(seed, u64::from(nth)),
            next: now + spacing * nth,
            launched: None,
            flight: None,
            serial: 0,
            answered: false,
            pace: Pace::AtOnce,
            wanted: false,
            hurried: None,
        }
    }

    /// When the next probe starts; none while one is in flight.
    pub(super) fn next(&self) -> Option<Moment> {
        self.flight.is_none().then_some(self.next)
    }

    /// When the probe in flight is given up.
    pub(super) fn bound(&self) -> Option<Moment> {
        self.flight.as_ref().map(|flight| flight.bound)
    }

    pub(super) const fn has_started(&self) -> bool {
        self.launched.is_some()
    }

    /// Whether a probe has ended, however, that wasn't void.
    pub(super) const fn has_answered(&self) -> bool {
        self.answered
    }

    /// Starts a probe and returns its number.
    pub(super) fn launch(&mut self, now: Moment) -> u64 {
        self.serial += 1;
        self.launched = Some(now);
        if std::mem::take(&mut self.wanted) {
            self.hurried = Some(now);
        }
        // Twice the prober's own bound and a second: enough for a busy machine to say that the time is over.
        let bound = now + self.settings.timeout.saturating_mul(2) + Duration::from_secs(1);
        self.flight = Some(Flight { bound, void: false, past: false });
        self.serial
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
        self.next = (started + gap.max(SMALLEST_GAP)).max(now);
        self.hurry(now);
    }

    /// A client's connection attempt failed: the next probe starts at once, but no sooner than `fast_interval` after the
    /// last one that was wanted. One in flight started before that attempt ended, and may have seen the backend as it was
    /// then: when it ends well, another one starts.
    pub(super) fn want(&mut self, now: Moment) {
        self.wanted = true;
        self.hurry(now);
    }

    /// The probe in flight failed, or the backend is down: nothing is left to ask.
    pub(super) const fn satisfy(&mut self) {
        self.wanted = false;
    }

    /// Whether the next probe is wanted, and may start now.
    pub(super) fn is_urgent(&self, now: Moment) -> bool {
        self.wanted && self.next <= now && self.may_hurry_from() <= now
    }

    /// Suspect from now on: the next probe comes as soon as behind one that failed.
    pub(super) fn suspect(&mut self, now: Moment) {
        self.pace = Pace::Fast;
        self.next = self.next.min(now + self.shortened(self.settings.fast_interval));
    }

    fn hurry(&mut self, now: Moment) {
        if self.wanted {
            self.next = self.next.min(self.may_hurry_from().max(now));
        }
    }

    fn may_hurry_from(&self) -> Moment {
        self.hurried.map_or(Moment::ZERO, |last| last + self.settings.fast_interval)
    }

    fn shortened(&mut self, interval: Duration) -> Duration {
        interval - self.dice.below(interval / 10)
    }
}

/// The targets whose probe is due, in the order in which they came to be: none waits for ever. Those at which a client
/// has just failed overtake the others, which have every other turn then.
#[derive(Debug)]
pub(super) struct ProbeQueue {
    waiting: VecDeque<Waiting>,
    urgent: VecDeque<TargetId>,
    /// The last turn was an urgent one's.
    overtaken: bool,
    in_flight: usize,
    pacer: Pacer,
}

#[derive(Debug)]
struct Waiting {
    target: TargetId,
    /// Its first probe ever: the start is waiting for it.
    is_first: bool,
}

impl ProbeQueue {
    pub(super) const fn new(pacer: Pacer) -> Self {
        Self { waiting: VecDeque::new(), urgent: VecDeque::new(), overtaken: false, in_flight: 0, pacer }
    }

    pub(super) fn push(&mut self, target: TargetId, is_first: bool) {
        self.waiting.push_back(Waiting { target, is_first });
    }

    /// A client has just failed at this one.
    pub(super) fn push_urgent(&mut self, target: TargetId) {
        self.urgent.push_back(target);
    }

    /// The same, and it waits already.
    pub(super) fn overtake(&mut self, target: TargetId) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.target == target) {
            self.waiting.remove(at);
            self.urgent.push_back(target);
        }
    }

    /// The next target to probe, unless enough are in flight or it is too early.
    pub(super) fn launch(&mut self, now: Moment) -> Option<TargetId> {
        if self.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        let may_start = self.turn_of_waiting().is_some_and(|turn| turn <= now);
        let target = if may_start && (self.overtaken || self.urgent.is_empty()) {
            let Waiting { target, is_first } = self.waiting.pop_front()?;
            if !is_first {
                self.pacer.start(now);
            }
            self.overtaken = false;
            target
        } else {
            self.overtaken = true;
            self.urgent.pop_front()?
        };
        self.in_flight += 1;
        Some(target)
    }

    /// From when on the next one may start; `None`: not before something else has happened.
    pub(super) fn next_start(&self) -> Option<Moment> {
        let turn = if self.urgent.is_empty() { self.turn_of_waiting() } else { Some(Moment::ZERO) };
        turn.filter(|_| self.in_flight < MAX_IN_FLIGHT)
    }

    fn turn_of_waiting(&self) -> Option<Moment> {
        let next = self.waiting.front()?;
        Some(if next.is_first { Moment::ZERO } else { self.pacer.next() })
    }

    /// One in flight ended.
    pub(super) const fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}
