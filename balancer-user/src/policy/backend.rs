//! One backend: its targets (one per service), and what they say together.
//!
//! Deliberately not here: one service alone (`target`), and which backend gets the flows (`failover`).

use std::time::Duration;

use super::Moment;
use super::health::{Health, Past};
use super::history::BackendHistory;
use super::live::{LiveFailure, Suspicion};
use super::settings::{BackendSettings, ServiceIndex};
use super::succession::Heirloom;
use super::target::Target;
use super::view::{Admin, BackendView};

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
                target.restore(*past, now);
            }
        }
        self.refresh(now);
    }

    /// The operator wants the same of it.
    pub(super) fn inherit_will(&mut self, before: &Self) {
        // Whether it is disabled is the configuration's word alone.
        if self.admin != Admin::Disabled && before.admin != Admin::Disabled {
            (self.admin, self.drained_at) = (before.admin, before.drained_at);
        }
    }

    /// Goes on where the one before is, by its own settings.
    pub(super) fn inherit(&mut self, before: Self, services: &[Option<Heirloom>], now: Moment) {
        self.inherit_will(&before);
        (self.health, self.since, self.suspicion) = (before.health, before.since, before.suspicion);
        let was_cold = before.settings.cold;
        let mut targets: Vec<Option<Target>> = before.targets.into_iter().map(Some).collect();
        for (target, heirloom) in self.targets.iter_mut().zip(services) {
            let Some(Heirloom { service, asks_anew }) = *heirloom else { continue };
            if let Some(before) = targets.get_mut(service.0).and_then(Option::take) {
                target.inherit(before, asks_anew, now);
            }
        }
        if was_cold && !self.settings.cold {
            self.wake(false, now);
        }
    }

    /// What a later life has to know.
    pub(super) fn history(&self, now: Moment) -> BackendHistory {
        let past = |(service, target): (ServiceIndex, &Target)| Some((service, target.past(now)?));
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
        self.targets.iter_mut().for_each(|target| target.wake(starting, now));
    }

    /// What of it isn't probed yet is from now on.
    pub(super) fn wake_sleepers(&mut self, now: Moment) {
        let sleepers = self.targets.iter_mut().filter(|target| target.is_asleep());
        sleepers.for_each(|target| target.wake(false, now));
    }

    /// It is no longer probed, if it is a cold one.
    pub(super) fn let_sleep(&mut self) {
        if self.settings.cold {
            self.targets.iter_mut().for_each(Target::let_sleep);
        }
    }

    /// A cold one that isn't probed.
    pub(super) fn is_asleep(&self) -> bool {
        self.settings.cold && self.targets.iter().all(Target::is_asleep)
    }

    /// Nothing is known of it, and its first probes will soon say something.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_ready() && self.health == Health::Unknown && self.targets.iter().any(Target::is_awaited)
    }

    /// A client's connection attempt failed: that service is to be probed. Says whether it waits for its turn, and may
    /// start now.
    pub(super) fn want(&mut self, service: ServiceIndex, now: Moment) -> bool {
        let is_down = self.health == Health::Down;
        self.target(service).filter(|_| !is_down).is_some_and(|target| target.want(now))
    }

    /// The turn of one of its services has come: the probe with this number starts, if it is to. Of those that clients want
    /// one starts per (shortest) `fast_interval`, and the one that has waited longest is the next. Says whether a client wanted it.
    pub(super) fn launch(&mut self, service: ServiceIndex, serial: u64, now: Moment) -> Option<bool> {
        let waiting =
            self.targets().filter_map(|(service, target)| Some((target.waits_since(now)?, service)));
        let is_behind = waiting.min().is_some_and(|(_, first)| first != service);
        let was_wanted = self.target(service)?.launch(serial, is_behind, now)?;
        if was_wanted {
            let shortest = self.targets.iter().filter_map(Target::fast_interval).min().unwrap_or_default();
            self.targets.iter_mut().for_each(|target| target.hold(now + shortest));
        }
        Some(was_wanted)
    }

    /// The same, and such failures count; says whether this one did.
    pub(super) fn blame(&mut self, failure: &LiveFailure, spacing: Duration, now: Moment) -> bool {
        let is_down = self.health == Health::Down;
        let Some(target) = self.targets.get_mut(failure.service.0) else { return false };
        // Then it gets no new flows: what failed is an older one.
        let is_late = is_down || target.is_out_of_use();
        let is_trial = target.is_on_trial();
        let counts = !is_late && (is_trial || self.suspicion.add(failure, spacing, now));
        if counts {
            let flows = if is_trial { "on trial" } else { "2 flows" };
            target.blame(format!("live traffic: {}, {flows}", failure.what.words()), now);
        }
        counts
    }

    /// The service whose next connection is its trial: one after the other, as one answer can't tell them apart.
    pub(super) fn trial(&self) -> Option<ServiceIndex> {
        let may_be_tried = self.is_ready() && self.health == Health::Probation;
        let (service, _) =
            self.targets().filter(|_| may_be_tried).find(|(_, target)| target.is_on_trial())?;
        Some(service)
    }

    /// The failure that explains its health: that of the service which is worst.
    pub(super) fn evidence(&self, now: Moment) -> Option<String> {
        let found = self.targets.iter().filter_map(|target| target.evidence(now));
        found.max_by_key(|(health, _)| *health).map(|(_, evidence)| evidence)
    }

    pub(super) fn view(&self, now: Moment) -> BackendView {
        BackendView {
            health: self.health,
            admin: self.admin,
            fails: self.targets.iter().map(|target| target.fails(now)).max().unwrap_or(0),
            reason: self.evidence(now),
            since: self.since,
        }
    }
}
