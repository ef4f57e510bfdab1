//! One backend: its targets (one per probed service), and what they say together.
//!
//! A target joins the two machines that know nothing of each other: the health that signals make, and the schedule that
//! asks for signals. Deliberately not here: which backend gets the flows (`failover`).

use std::time::Duration;

use super::Moment;
use super::event::{Admin, BackendView};
use super::health::{Health, Input, Monitor};
use super::schedule::{Landing, Pace, Schedule};
use super::settings::{BackendSettings, ServiceIndex};

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
    Probe,
    /// The time down is over, or a probe never reported: the deadline is a new one.
    Replanned { lost: bool },
}

/// One service on one backend.
#[derive(Debug)]
pub(super) struct Target {
    service: String,
    monitor: Monitor,
    schedule: Schedule,
    queued: bool,
}

impl Target {
    pub(super) const fn new(service: String, monitor: Monitor, schedule: Schedule) -> Self {
        Self { service, monitor, schedule, queued: false }
    }

    /// `None` while it waits in the queue for its turn.
    pub(super) fn deadline(&self) -> Option<Moment> {
        if self.queued {
            return None;
        }
        if self.schedule.in_flight() {
            return Some(self.schedule.deadline());
        }
        Some(self.monitor.down_until().unwrap_or_else(|| self.schedule.deadline()))
    }

    /// Its deadline has come.
    pub(super) fn due(&mut self, now: Moment) -> Due {
        if self.schedule.give_up(now) {
            self.schedule.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: true };
        }
        if self.monitor.down_until().is_some() {
            self.monitor.handle(Input::Elapsed, now);
            self.schedule.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: false };
        }
        self.queued = true;
        Due::Probe
    }

    /// Its turn has come: the number of the probe to start.
    pub(super) fn launch(&mut self, now: Moment) -> u64 {
        self.queued = false;
        self.schedule.launch(now)
    }

    /// The outcome of probe `serial`; says whether that probe was in flight.
    pub(super) fn land(&mut self, serial: u64, signal: Signal, now: Moment) -> bool {
        match (self.schedule.land(serial), signal) {
            (Landing::Late, _) => return false,
            // After a standstill the interval is long over: the probe is repeated at once.
            (Landing::Void, Signal::Bad(_)) => {}
            (Landing::Void | Landing::Counts, Signal::Inconclusive) => {}
            (Landing::Void | Landing::Counts, Signal::Good) => self.monitor.handle(Input::Good, now),
            (Landing::Counts, Signal::Bad(reason)) => self.monitor.handle(Input::Bad(reason), now),
        }
        self.schedule.plan(self.pace(now), now);
        true
    }

    pub(super) fn stalled(&mut self, late: Duration) -> bool {
        self.schedule.stalled(late)
    }

    fn pace(&self, now: Moment) -> Pace {
        match self.monitor.health() {
            Health::Probation => Pace::Fast,
            Health::Up | Health::Unknown if self.monitor.is_suspect(now) => Pace::Fast,
            Health::Up | Health::Unknown | Health::Down => Pace::Normal,
        }
    }
}

/// One backend of a pool.
#[derive(Debug)]
pub(super) struct Backend {
    settings: BackendSettings,
    targets: Vec<Option<Target>>,
    health: Health,
    since: Moment,
}

impl Backend {
    /// `targets` has one place per service; `None` where it isn't probed.
    pub(super) const fn new(settings: BackendSettings, targets: Vec<Option<Target>>, now: Moment) -> Self {
        Self { settings, targets, health: Health::Unknown, since: now }
    }

    pub(super) const fn settings(&self) -> &BackendSettings {
        &self.settings
    }

    pub(super) fn target(&mut self, service: ServiceIndex) -> Option<&mut Target> {
        self.targets.get_mut(service.0)?.as_mut()
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = (ServiceIndex, &Target)> {
        self.targets.iter().enumerate().filter_map(|(n, target)| Some((ServiceIndex(n), target.as_ref()?)))
    }

    /// Makes its health that of the worst of its services; returns the one before if it is another.
    pub(super) fn refresh(&mut self, now: Moment) -> Option<Health> {
        // Services without a probe don't count, unless none has one: then nothing is ever known.
        let worst = self.targets().map(|(_, target)| target.monitor.health()).max();
        let health = worst.unwrap_or(Health::Unknown);
        if health == self.health {
            return None;
        }
        self.since = now;
        Some(std::mem::replace(&mut self.health, health))
    }

    pub(super) const fn health(&self) -> Health {
        self.health
    }

    /// Since when its health is what it is.
    pub(super) const fn since(&self) -> Moment {
        self.since
    }

    pub(super) const fn is_ready(&self) -> bool {
        !self.settings.disabled
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_ready() && self.health == Health::Up
    }

    /// Nothing is known of it, and its first probes will soon say something.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_ready()
            && self.health == Health::Unknown
            && self.targets().any(|(_, target)| !target.schedule.has_answered())
    }

    /// The failure that explains its health: that of the service which is worst.
    pub(super) fn evidence(&self, now: Moment) -> Option<String> {
        self.targets()
            .filter_map(|(_, target)| {
                let reason = target.monitor.reason(now)?;
                Some((target.monitor.health(), format!("{}: {reason}", target.service)))
            })
            .max_by_key(|(health, _)| *health)
            .map(|(_, evidence)| evidence)
    }

    pub(super) fn view(&self, now: Moment) -> BackendView {
        BackendView {
            health: self.health,
            admin: if self.settings.disabled { Admin::Disabled } else { Admin::Ready },
            fails: self.targets().map(|(_, target)| target.monitor.fails(now)).max().unwrap_or(0),
            reason: self.evidence(now),
            since: self.since,
        }
    }
}
