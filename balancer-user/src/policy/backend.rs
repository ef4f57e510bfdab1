//! One backend: its targets (one per service), and what they say together.
//!
//! A target joins the two machines that know nothing of each other: the health that signals make, and the schedule that
//! asks for signals, if the service is probed. Deliberately not here: which backend gets the flows (`failover`).

use std::time::Duration;

use super::Moment;
use super::health::{Health, Input, Monitor, Past};
use super::history::BackendHistory;
use super::live::{LiveFailure, Suspicion};
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
}

impl Target {
    pub(super) const fn new(
        service: String,
        monitor: Monitor,
        schedule: Option<Schedule>,
        asleep: bool,
    ) -> Self {
        Self { service, monitor, schedule, queued: false, asleep }
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
            // Without probes nothing decides: it is as good as one that nothing is known of.
            if self.asleep || self.schedule.is_none() {
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

    /// Its turn has come: the number of the probe to start. None if it fell asleep or went down while it waited.
    pub(super) fn launch(&mut self, now: Moment) -> Option<u64> {
        self.queued = false;
        let rests = self.asleep || self.monitor.down_until().is_some();
        self.schedule.as_mut().filter(|_| !rests).map(|schedule| schedule.launch(now))
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
    fn want(&mut self, now: Moment) -> bool {
        let rests = self.asleep || self.monitor.down_until().is_some();
        let Some(schedule) = self.schedule.as_mut().filter(|_| !rests) else { return false };
        schedule.want(now);
        self.queued && schedule.is_urgent(now)
    }

    /// Clients' connection attempts failed, which counts as a failed probe does.
    fn blame(&mut self, reason: String, now: Moment) {
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

    pub(super) fn stalled(&mut self, late: Duration) -> bool {
        self.schedule.as_mut().is_some_and(|schedule| schedule.stalled(late))
    }

    fn plan(&mut self, pace: Pace, now: Moment) {
        if let Some(schedule) = &mut self.schedule {
            schedule.plan(pace, now);
        }
    }

    /// What it says about its backend: a service that isn't probed says only that it fails.
    fn health(&self) -> Option<Health> {
        let health = self.monitor.health();
        (self.schedule.is_some() || !health.may_stay()).then_some(health)
    }

    /// The failure that explains its health.
    fn reason(&self, now: Moment) -> Option<&str> {
        let says = self.health().is_some() || self.monitor.fails(now) > 0;
        self.monitor.reason(now).filter(|_| says)
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
    targets: Vec<Target>,
    suspicion: Suspicion,
    health: Health,
    since: Moment,
    admin: Admin,
    /// Its flows are cut then.
    drained_at: Option<Moment>,
}

impl Backend {
    /// `targets` has one for each service; it is empty if the backend is disabled.
    pub(super) fn new(settings: BackendSettings, targets: Vec<Target>, now: Moment) -> Self {
        let admin = if settings.disabled { Admin::Disabled } else { Admin::Ready };
        let suspicion = Suspicion::default();
        Self { settings, targets, suspicion, health: Health::Unknown, since: now, admin, drained_at: None }
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
        self.targets.get_mut(service.0)
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = (ServiceIndex, &Target)> {
        self.targets.iter().enumerate().map(|(n, target)| (ServiceIndex(n), target))
    }

    /// Makes its health that of the worst of its services; returns the one before if it is another.
    pub(super) fn refresh(&mut self, now: Moment) -> Option<Health> {
        // While none says anything nothing is known.
        let worst = self.targets.iter().filter_map(Target::health).max();
        let health = worst.unwrap_or(Health::Unknown);
        if health == self.health {
            return None;
        }
        self.since = now;
        if health == Health::Down {
            self.suspicion.forget();
        }
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
        for target in &mut self.targets {
            target.asleep = false;
            if starting && target.schedule.is_some() {
                target.monitor.start();
            }
            target.plan(Pace::AtOnce, now);
        }
    }

    /// It is no longer probed, if it is a cold one.
    pub(super) fn let_sleep(&mut self) {
        for target in self.targets.iter_mut().filter(|_| self.settings.cold) {
            target.asleep = true;
            target.schedule.iter_mut().for_each(Schedule::disown);
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
            && self
                .targets
                .iter()
                .filter(|target| !target.asleep)
                .any(|target| target.schedule.as_ref().is_some_and(|schedule| !schedule.has_answered()))
    }

    /// A client's connection attempt failed: that service is to be probed. Says whether it waits for its turn, and may
    /// start now.
    pub(super) fn want(&mut self, service: ServiceIndex, now: Moment) -> bool {
        let is_down = self.health == Health::Down;
        self.target(service).filter(|_| !is_down).is_some_and(|target| target.want(now))
    }

    /// The same, and such failures count; says whether this one did.
    pub(super) fn blame(&mut self, failure: &LiveFailure, spacing: Duration, now: Moment) -> bool {
        let is_down = self.health == Health::Down;
        let Some(target) = self.targets.get_mut(failure.service.0) else { return false };
        // One that sleeps, or has yet to come up, gets no new flows: what failed is an older one.
        let is_late = is_down || target.asleep || target.monitor.is_starting();
        let counts = !is_late && self.suspicion.add(failure, spacing, now);
        if counts {
            target.blame(format!("live traffic: {}, 2 flows", failure.what.words()), now);
        }
        counts
    }

    /// The failure that explains its health: that of the service which is worst.
    pub(super) fn evidence(&self, now: Moment) -> Option<String> {
        self.targets()
            .filter_map(|(_, target)| {
                let reason = target.reason(now)?;
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
