//! Puts a configuration in the place of the one that runs, over the same maps and under traffic.
//!
//! Like a restart that forgets nothing. First everything that may fail: slots, pools and backends that nothing leads to
//! yet; when one of these fails, what was there is written again. Then who is known goes on in the policy, its decisions go
//! into the kernel, and only then services lead to them. Deliberately not here: whether a configuration may take the place
//! (`reload`), what becomes of flows of those who are gone (`leaving`), and programs on interfaces (`interfaces`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::abi::{ActiveWord, NextHop};
use tracing::{error, warn};

use crate::config::Config;
use crate::dataplane::flows::Lifetimes;
use crate::dataplane::slots::{self, Busy, Occupied, PoolPlan, PoolSlots};
use crate::notify::Notifier;
use crate::policy::{BackendIndex, PoolView};
use crate::probe::Prober;

use super::first_ways::FirstWay;
use super::kin::{is_doubtful, kin};
use super::leaving::{Leaving, Slot};
use super::memory::{self, boot_moment};
use super::parts::Families;
use super::relapses::Relapses;
use super::trials::Trials;
use super::{Daemon, plan};

/// Probers by pool and service.
pub(super) type Probers = Vec<Vec<Option<Prober>>>;

/// A configuration with its slots, which the kernel knows already and nothing leads to yet.
pub(super) struct Written {
    config: Config,
    probers: Probers,
    plan: Vec<PoolPlan>,
    slots: Vec<PoolSlots>,
}

impl Daemon {
    /// All that may fail. After an error everything is as before.
    pub(super) fn write(
        &mut self,
        config: Config,
        probers: Probers,
        busy: &Busy,
        ways: &BTreeMap<IpAddr, FirstWay>,
    ) -> Result<Written, String> {
        self.refuse_new_family(&config)?;
        let plan = plan::for_dataplane(&config);
        let occupied = self.parts.tables.occupied().map_err(|error| error.to_string())?;
        let slots = slots::assign(&plan, &occupied, &self.taken(busy)).map_err(|error| error.to_string())?;
        if let Err(error) = self.parts.tables.write_pools(&plan, &slots) {
            self.undo();
            return Err(error.to_string());
        }
        for slots in slots.iter().filter(|slots| slots.pool.fresh) {
            // Its clients wait for its first decision, which is as near as the first answers to its probes.
            self.parts.tables.set_active(slots.pool.index, ActiveWord::hold(0, 0));
        }
        self.lead_to_the_new(&plan, &slots, ways);
        Ok(Written { config, probers, plan, slots })
    }

    /// In the place of the one that runs.
    pub(super) fn put_in_place(&mut self, written: Written) {
        let Written { config, probers, plan, slots } = written;
        let now = self.clock.now();
        let mut kin = kin(&self.parts.config, &config);
        self.reloads.note_gone(&self.parts.config, &config);
        let past = self.exchange_departed(&config, now);
        for ((kin, pool), past) in kin.iter_mut().zip(&config.pools).zip(past) {
            let is_doubtful = is_doubtful(&self.parts.config, pool, self.reloads.gone());
            kin.past = if is_doubtful { Some(memory::doubtful(past.unwrap_or_default())) } else { past };
        }
        for (kin, pool) in kin.iter_mut().zip(&config.pools) {
            let Some(before) = kin.pool else { continue };
            let PoolView { holder, transition, .. } = self.policy.snapshot(before, now);
            let heir = holder.and_then(|holder| kin.backend(holder));
            let holder = holder.map(|holder| &self.parts.config.pools[before.0].backends[holder.0]);
            let lost = self.reloads.bereave(&pool.name, holder, heir, transition.is_some());
            let is_back = |(name, address): &(String, IpAddr)| {
                pool.backends.iter().position(|backend| backend.name == *name && backend.address == *address)
            };
            kin.regains = lost.and_then(is_back).map(BackendIndex);
        }
        self.leaving.left(&self.parts.config, (&self.parts.plan, &self.parts.slots), &slots, now);
        for slot in slots.iter().flat_map(|pool| &pool.backends).filter(|slot| slot.fresh) {
            self.resets_sent.remove(&slot.index);
            self.cuts.forget(slot.index);
        }
        if self.parts.config.gateway.notify != config.gateway.notify {
            self.notifier = config.gateway.notify.clone().map(Notifier::new);
        }
        self.flows.set_lifetimes(Lifetimes { established: config.gateway.idle_timeout });
        self.probes.succeed(&config, &kin);
        self.certificates.succeed(&kin);
        self.failovers.succeed(&kin);
        self.move_waiting(&kin);
        self.policy.succeed(plan::for_policy(&config), &kin, now);
        (self.parts.config, self.parts.probers) = (config, probers);
        (self.parts.plan, self.parts.slots) = (plan, slots);
        self.redirect();
        self.live.succeed(&self.parts.slots, plan::rescue_rules(&self.parts));
        self.trials = Trials::default();
        self.relapses = Relapses::default();
        self.decide();
        self.keep_roles();
        if let Err(error) = self.parts.tables.publish_services(&self.parts.plan, &self.parts.slots) {
            error!(event = "dataplane", error = %error, "the kernel's tables may be behind; reload once more");
            self.reloads.is_behind = true;
        }
        self.ports_are_accepted();
        self.parts.slots.iter_mut().for_each(PoolSlots::settle);
        self.lead_traces();
        let names = self.parts.config.gateway.interfaces.clone();
        if let Err(error) = self.want_interfaces(&names) {
            error!(event = "dataplane", error = %error, "the program stays on an interface that is not configured");
            self.reloads.is_behind = true;
            self.watch();
        }
        let known = self.watched_backends();
        self.no_ways.retain(|slot, _| known.contains_key(slot));
    }

    /// Slots that live flows refer to, and those that were led to until now: some may come while this is carried out.
    fn taken(&self, busy: &Busy) -> Busy {
        let mut taken = busy.clone();
        for pool in &self.parts.slots {
            taken.services.extend(pool.services.iter().map(|slot| slot.index));
            taken.backends.extend(pool.backends.iter().map(|slot| slot.index));
        }
        for (slot, _) in self.leaving.all() {
            match slot {
                Slot::Backend(slot) => taken.backends.insert(*slot),
                Slot::Service(slot) => taken.services.insert(*slot),
            };
        }
        taken
    }

    fn refuse_new_family(&self, config: &Config) -> Result<(), String> {
        let (wanted, loaded) = (Families::of(config), self.parts.families);
        for (is_new, family) in [(wanted.ipv4 && !loaded.ipv4, "IPv4"), (wanted.ipv6 && !loaded.ipv6, "IPv6")]
        {
            if is_new {
                return Err(format!(
                    "the first {family} service needs a program and tables that were not loaded: start the daemon anew with \
                     this configuration, which costs no flow"
                ));
            }
        }
        Ok(())
    }

    /// Ways to whoever has not been led to before.
    fn lead_to_the_new(&mut self, plan: &[PoolPlan], slots: &[PoolSlots], ways: &BTreeMap<IpAddr, FirstWay>) {
        let places: Vec<_> = self.interfaces.places().into_values().flatten().collect();
        for (plan, slots) in plan.iter().zip(slots) {
            for (backend, slot) in plan.backends.iter().zip(&slots.backends) {
                let Some(FirstWay { source, ifindex, mac }) = ways.get(&backend.address) else { continue };
                let Some(place) = places.iter().find(|place| place.ifindex == *ifindex) else { continue };
                let hop = NextHop { mac: *mac, interface: place.slot };
                if let Err(error) = self.parts.tables.set_way(slot.index, Some((*source, hop))) {
                    // The watcher of ways finds it once more.
                    warn!(event = "dataplane", error = %error, backend = backend.name, "no way yet");
                }
            }
        }
    }

    /// What was there is written again.
    fn undo(&mut self) {
        let Self { parts, .. } = self;
        if let Err(error) = parts.tables.write_pools(&parts.plan, &parts.slots) {
            error!(event = "dataplane", error = %error, "the kernel's tables may be ahead; reload once more");
        }
    }

    /// Who had flows at the start and isn't configured.
    pub(super) fn find_leaving(&mut self, found: &(Occupied, Busy)) {
        let now = self.clock.now();
        let saved = self.saved.as_ref();
        let remembered = saved.map_or(&[][..], |state| &state.leaving);
        let passed = saved.map_or(Duration::ZERO, |state| state.age_at(&boot_moment()));
        let parts = &self.parts;
        self.leaving = Leaving::found(found, &parts.config, &parts.slots, (remembered, passed), now);
        self.keep_roles();
        self.watch();
    }
}
