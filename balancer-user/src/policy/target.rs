//! One service on one backend: the health that signals make, and the schedule that asks for signals, if it is probed.
//!
//! The two know nothing of each other; here they meet. Deliberately not here: what the services of a backend say together
//! (`backend`), and the queue for probes (`queue`).

use std::time::Duration;

use super::Moment;
use super::health::{Health, Input, Monitor, Past};
use super::schedule::{Landing, Pace, Schedule};

/// The outcome of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The backend answered as it should.
    Good,
    /// It didn't; the text says how, and is shown to people.
    Bad(String),
    /// The controller itself could not probe (out of file descriptors, say): nothing is known about the backend.
    Inconclusive,
}

/// What a target's deadline meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A probe is to start.
    Probe { turn: Turn },
    /// The time down is over, or a probe never reported: the deadline is a new one.
    Replanned { lost: bool },
}

/// When a probe that is due may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// As the first one ever, for which the start is waiting.
    First,
    /// Before all others, as a client has just failed.
    Urgent,
    /// Behind those that wait.
    Next,
}

/// One service on one backend.
#[derive(Debug)]
pub(super) struct Target {
    service: String,
    monitor: Monitor,
    /// None: it isn't probed, and only clients' own connection attempts say something.
    schedule: Option<Schedule>,
    queued: bool,
    /// Of a cold standby: not probed.
    asleep: bool,
    /// Without probes, live connections decide in probation.
    tries_live: bool,
}

impl Target {
    pub(super) const fn new(
        service: String,
        monitor: Monitor,
        schedule: Option<Schedule>,
        asleep: bool,
        tries_live: bool,
    ) -> Self {
        Self { service, monitor, schedule, queued: false, asleep, tries_live }
    }

    /// The end of its time down, the bound of its probe in flight, or its next probe, unless that waits for its turn.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let until = self.monitor.down_until();
        let rests = until.is_some() || self.queued || self.asleep;
        let next = self.schedule.as_ref().filter(|_| !rests).and_then(Schedule::next);
        let bound = self.schedule.as_ref().and_then(Schedule::bound);
        until.into_iter().chain(bound).chain(next).min()
    }

    /// Its deadline has come.
    pub(super) fn due(&mut self, now: Moment) -> Due {
        if self.schedule.as_mut().is_some_and(|schedule| schedule.give_up(now)) {
            self.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: true };
        }
        if self.monitor.down_until().is_some() {
            self.monitor.handle(Input::Elapsed, now);
            // Where nothing decides it is as good as one that nothing is known of.
            if self.asleep || (self.schedule.is_none() && !self.tries_live) {
                self.monitor.forget();
            }
            self.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: false };
        }
        let Some(schedule) = self.schedule.as_ref().filter(|_| !self.asleep) else {
            return Due::Replanned { lost: false };
        };
        self.queued = true;
        let turn = match schedule.has_started() {
            _ if schedule.is_urgent(now) => Turn::Urgent,
            false => Turn::First,
            true => Turn::Next,
        };
        Due::Probe { turn }
    }

    /// Its turn has come: the probe with this number starts; says whether a client wanted it. `None`: it fell asleep or went
    /// down while it waited, or another service of its backend was hurried. `is_behind`: that one has been wanted for longer.
    pub(super) fn launch(&mut self, serial: u64, is_behind: bool, now: Moment) -> Option<bool> {
        self.queued = false;
        let rests = self.rests();
        let schedule = self.schedule.as_mut().filter(|_| !rests)?;
        schedule.may_start(is_behind, now).then(|| schedule.launch(serial, now))
    }

    /// Since when a client wants its probe, if that may start for it.
    pub(super) fn waits_since(&self, now: Moment) -> Option<Moment> {
        self.schedule.as_ref().filter(|_| !self.rests())?.waits_since(now)
    }

    /// A probe of its backend that a client wanted has started.
    pub(super) fn hold(&mut self, until: Moment) {
        self.schedule.iter_mut().for_each(|schedule| schedule.hold(until));
    }

    pub(super) fn fast_interval(&self) -> Option<Duration> {
        self.schedule.as_ref().map(Schedule::fast_interval)
    }

    fn rests(&self) -> bool {
        self.asleep || self.monitor.down_until().is_some()
    }

    /// Goes on where the one before is, if that is one of its kind: of a service that wasn't probed nothing is known that
    /// matters to one that is. `asks_anew`: by another question.
    pub(super) fn inherit(&mut self, before: Self, asks_anew: bool, now: Moment) {
        match (&mut self.schedule, before.schedule) {
            (Some(schedule), Some(before)) => schedule.inherit(before, now),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return,
        }
        self.monitor.inherit(before.monitor, now);
        (self.queued, self.asleep) = (before.queued, before.asleep);
        if self.schedule.is_none() && !self.tries_live && self.monitor.health() == Health::Probation {
            // Nothing decides any more whether it is up.
            self.monitor.forget();
        }
        if let Some(schedule) = self.schedule.as_mut().filter(|_| asks_anew) {
            schedule.ask_anew(now);
        }
    }

    /// It waits for its turn.
    pub(super) const fn is_queued(&self) -> bool {
        self.queued
    }

    /// When its probe in flight is given up.
    pub(super) fn bound(&self) -> Option<Moment> {
        self.schedule.as_ref().and_then(Schedule::bound)
    }

    /// The number of the probe in flight.
    pub(super) fn in_flight(&self) -> Option<u64> {
        self.schedule.as_ref().and_then(Schedule::in_flight)
    }

    /// The outcome of probe `serial`; says whether that probe was in flight.
    pub(super) fn land(&mut self, serial: u64, signal: Signal, now: Moment) -> bool {
        let Some(schedule) = &mut self.schedule else { return false };
        match (schedule.land(serial), signal) {
            (Landing::Late, _) => return false,
            // It says nothing about now: another one starts at once, if one is to.
            (Landing::Past, _) => {
                self.plan(Pace::AtOnce, now);
                return true;
            }
            // After a standstill the interval is long over: the probe is repeated at once.
            (Landing::Void, Signal::Bad(_)) => {}
            (Landing::Void | Landing::Counts, Signal::Inconclusive) => {}
            (Landing::Void | Landing::Counts, Signal::Good) => self.monitor.handle(Input::Good, now),
            (Landing::Counts, Signal::Bad(reason)) => {
                schedule.satisfy();
                self.monitor.handle(Input::Bad(reason), now);
            }
        }
        self.plan(self.pace(now), now);
        true
    }

    /// A client's connection attempt failed: it is probed as soon as that may be. Says whether it waits for its turn, and
    /// may start now.
    pub(super) fn want(&mut self, now: Moment) -> bool {
        let rests = self.rests();
        let Some(schedule) = self.schedule.as_mut().filter(|_| !rests) else { return false };
        schedule.want(now);
        self.queued && schedule.is_urgent(now)
    }

    /// Clients' connection attempts failed, which counts as a failed probe does.
    pub(super) fn blame(&mut self, reason: String, now: Moment) {
        self.monitor.handle(Input::Bad(reason), now);
        let fell = self.monitor.down_until().is_some();
        let is_suspect = self.pace(now) == Pace::Fast;
        let Some(schedule) = &mut self.schedule else { return };
        if fell {
            // What the probe in flight saw is older.
            schedule.satisfy();
            schedule.disown();
        } else if is_suspect {
            schedule.suspect(now);
        }
    }

    /// Whether live connections decide whether it is up again.
    pub(super) fn is_on_trial(&self) -> bool {
        let decides = self.tries_live && self.schedule.is_none() && !self.asleep;
        decides && self.monitor.health() == Health::Probation
    }

    /// A client's connection attempt was answered; in a trial that is a good signal.
    pub(super) fn prove(&mut self, now: Moment) {
        if self.is_on_trial() {
            self.monitor.handle(Input::Good, now);
        }
    }

    pub(super) fn stalled(&mut self, late: Duration) -> bool {
        self.schedule.as_mut().is_some_and(|schedule| schedule.stalled(late))
    }

    fn plan(&mut self, pace: Pace, now: Moment) {
        if let Some(schedule) = &mut self.schedule {
            schedule.plan(pace, now);
        }
    }

    fn pace(&self, now: Moment) -> Pace {
        match self.monitor.health() {
            Health::Probation => Pace::Fast,
            Health::Up | Health::Unknown if self.monitor.is_suspect(now) => Pace::Fast,
            Health::Up | Health::Unknown | Health::Down => Pace::Normal,
        }
    }

    /// What it says about its backend: a service that isn't probed says only that it fails, or has passed its trial.
    pub(super) fn health(&self) -> Option<Health> {
        let health = self.monitor.health();
        (self.schedule.is_some() || health != Health::Unknown).then_some(health)
    }

    /// The failure that explains its health, `service: failure`, and how much that weighs.
    pub(super) fn evidence(&self, now: Moment) -> Option<(Health, String)> {
        let says = self.health().is_some() || self.fails(now) > 0;
        let reason = self.monitor.reason(now).filter(|_| says)?;
        Some((self.monitor.health(), format!("{}: {reason}", self.service)))
    }

    /// Failures in its window now.
    pub(super) fn fails(&self, now: Moment) -> usize {
        self.monitor.fails(now)
    }

    /// Takes over what an earlier life left behind.
    pub(super) fn restore(&mut self, past: Past, now: Moment) {
        self.monitor.restore(past, now);
    }

    /// What a later life has to know.
    pub(super) fn past(&self, now: Moment) -> Option<Past> {
        self.monitor.past(now)
    }

    /// It is probed from now on. `starting`: it has yet to come up, and failures don't count before.
    pub(super) fn wake(&mut self, starting: bool, now: Moment) {
        self.asleep = false;
        match &self.schedule {
            Some(_) if starting => self.monitor.start(),
            // Nothing would show it.
            None if starting => self.monitor.forget(),
            Some(_) | None => {}
        }
        self.plan(Pace::AtOnce, now);
    }

    /// It isn't probed any more.
    pub(super) fn let_sleep(&mut self) {
        self.asleep = true;
        self.schedule.iter_mut().for_each(Schedule::disown);
        if self.monitor.down_until().is_none() {
            self.monitor.forget();
        }
    }

    pub(super) const fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Whether its first probe will soon say something.
    pub(super) fn is_awaited(&self) -> bool {
        !self.asleep && self.schedule.as_ref().is_some_and(|schedule| !schedule.has_answered())
    }

    /// It sleeps, or has yet to come up: it gets no new flows.
    pub(super) const fn is_out_of_use(&self) -> bool {
        self.asleep || self.monitor.is_starting()
    }
}
