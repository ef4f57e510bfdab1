//! One backend: its targets (one per probed service), and what they say together.
//!
//! A target joins the two machines that know nothing of each other: the health that signals make, and the schedule that
//! asks for signals. Deliberately not here: which backend gets the flows (`failover`).

use std::time::Duration;

use super::Moment;
use super::health::{Health, Input, Monitor, Past};
use super::history::BackendHistory;
use super::schedule::{Landing, Pace, Schedule};
use super::settings::{BackendSettings, ServiceIndex};
use super::view::{Admin, BackendView};

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
    Probe { is_first: bool },
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
    /// Of a cold standby: not probed.
    asleep: bool,
}

impl Target {
    pub(super) const fn new(service: String, monitor: Monitor, schedule: Schedule, asleep: bool) -> Self {
        Self { service, monitor, schedule, queued: false, asleep }
    }

    /// `None` while it waits in the queue for its turn, or sleeps.
    pub(super) fn deadline(&self) -> Option<Moment> {
        if self.queued {
            return None;
        }
        if self.schedule.in_flight() {
            return Some(self.schedule.deadline());
        }
        let probe = || (!self.asleep).then(|| self.schedule.deadline());
        self.monitor.down_until().or_else(probe)
    }

    /// Its deadline has come.
    pub(super) fn due(&mut self, now: Moment) -> Due {
        if self.schedule.give_up(now) {
            self.schedule.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: true };
        }
        if self.monitor.down_until().is_some() {
            self.monitor.handle(Input::Elapsed, now);
            if self.asleep {
                self.monitor.forget();
            }
            self.schedule.plan(Pace::AtOnce, now);
            return Due::Replanned { lost: false };
        }
        if self.asleep {
            return Due::Replanned { lost: false };
        }
        self.queued = true;
        Due::Probe { is_first: !self.schedule.has_started() }
    }

    /// Its turn has come: the number of the probe to start. None if it fell asleep while it waited.
    pub(super) fn launch(&mut self, now: Moment) -> Option<u64> {
        self.queued = false;
        (!self.asleep).then(|| self.schedule.launch(now))
    }

    /// The outcome of probe `serial`; says whether that probe was in flight.
    pub(super) fn land(&mut self, serial: u64, signal: Signal, now: Moment) -> bool {
        match (self.schedule.land(serial), signal) {
            (Landing::Late, _) => return false,
            (Landing::Past, _) => {}
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
    admin: Admin,
    /// Its flows are cut then.
    drained_at: Option<Moment>,
}

impl Backend {
    /// `targets` has one place per service; `None` where it isn't probed.
    pub(super) const fn new(settings: BackendSettings, targets: Vec<Option<Target>>, now: Moment) -> Self {
        let admin = if settings.disabled { Admin::Disabled } else { Admin::Ready };
        Self { settings, targets, health: Health::Unknown, since: now, admin, drained_at: None }
    }

    /// Takes over what an earlier life left behind.
    pub(super) fn restore(&mut self, past: &BackendHistory, now: Moment) {
        // Whether it is disabled is the configuration's word alone.
        if self.admin != Admin::Disabled && past.admin != Admin::Disabled {
            self.admin = past.admin;
            self.drained_at = past.drain_left.map(|left| now + left);
        }
        for (service, past) in &past.services {
            if let Some(target) = self.target(*service) {
                target.monitor.restore(*past, now);
            }
        }
        self.refresh(now);
    }

    /// What a later life has to know.
    pub(super) fn history(&self, now: Moment) -> BackendHistory {
        let past = |(service, target): (ServiceIndex, &Target)| Some((service, target.monitor.past(now)?));
        let services: Vec<(ServiceIndex, Past)> = self.targets().filter_map(past).collect();
        BackendHistory { admin: self.admin, drain_left: self.drained_at.map(|at| at - now), services }
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

    pub(super) const fn admin(&self) -> Admin {
        self.admin
    }

    /// The operator's will; `drained_at`: when flows that are left are cut.
    pub(super) const fn set_admin(&mut self, admin: Admin, drained_at: Option<Moment>) {
        self.admin = admin;
        self.drained_at = drained_at;
    }

    pub(super) const fn drained_at(&self) -> Option<Moment> {
        self.drained_at
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.admin, Admin::Ready)
    }

    /// Seen to be up.
    pub(super) fn is_up(&self) -> bool {
        self.is_ready() && self.health == Health::Up
    }

    /// As good as up: what doesn't run before it is started counts as that.
    pub(super) fn counts_as_up(&self) -> bool {
        self.is_up() || (self.is_ready() && self.is_asleep() && self.health == Health::Unknown)
    }

    /// Probes go on, or begin. `starting`: it has yet to come up, and failures don't count before.
    pub(super) fn wake(&mut self, starting: bool, now: Moment) {
        for target in self.targets.iter_mut().flatten() {
            target.asleep = false;
            if starting {
                target.monitor.start();
            }
            target.schedule.plan(Pace::AtOnce, now);
        }
    }

    /// It is no longer probed, if it is a cold one.
    pub(super) fn let_sleep(&mut self) {
        for target in self.targets.iter_mut().flatten().filter(|_| self.settings.cold) {
            target.asleep = true;
            target.schedule.disown();
            if target.monitor.down_until().is_none() {
                target.monitor.forget();
            }
        }
    }

    /// A cold one that isn't probed.
    pub(super) fn is_asleep(&self) -> bool {
        self.settings.cold && self.targets().all(|(_, target)| target.asleep)
    }

    /// Nothing is known of it, and its first probes will soon say something.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_ready()
            && self.health == Health::Unknown
            && self.targets().any(|(_, target)| !target.asleep && !target.schedule.has_answered())
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
            admin: self.admin,
            fails: self.targets().map(|(_, target)| target.monitor.fails(now)).max().unwrap_or(0),
            reason: self.evidence(now),
            since: self.since,
        }
    }
}
