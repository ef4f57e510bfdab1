//! A new configuration in the place of the one before: who is in both goes on with all that is known of them, by the new
//! rules. A restart forgets most of that; a reload may come many times a minute, and forgets nothing.
//!
//! Whether somebody is in both is the driver's word: it knows addresses and ports. Deliberately not here: what becomes of
//! the flows of those who are gone. Somebody who is active and left out stays, disabled, until the role has moved on.

use super::decision::{Outbox, Route};
use super::event::Event;
use super::history::PoolHistory;
use super::pacer::Pacer;
use super::pool::Pool;
use super::queue::TargetId;
use super::settings::{BackendIndex, HookSettings, HookWhen, PoolIndex, PoolSettings, ServiceIndex};
use super::timers::Timers;
use super::transition::{Phase, Stop, Transition};
use super::{Moment, Policy, build, shortest_interval, target_intervals};

/// Who a pool and its members were in the configuration before. The default: nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kin {
    /// The pool.
    pub pool: Option<PoolIndex>,
    /// By backend, in the new settings' order.
    pub backends: Vec<Option<BackendIndex>>,
    /// By service, in the new settings' order.
    pub services: Vec<Option<Heirloom>>,
    /// Of a pool that is new: what is known of an earlier one of its name.
    pub past: Option<PoolHistory>,
    /// Who had the role when it was lost out of sight, and is there again.
    pub regains: Option<BackendIndex>,
}

/// What a service takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heirloom {
    /// All that is known of this one.
    pub service: ServiceIndex,
    /// But what is under way there asks something that nobody wants to know any more.
    pub asks_anew: bool,
}

impl Kin {
    /// Where a backend of the pool stands now.
    #[must_use]
    pub fn backend(&self, before: BackendIndex) -> Option<BackendIndex> {
        self.backends.iter().position(|kin| *kin == Some(before)).map(BackendIndex)
    }

    /// Where a service of the pool stands now.
    #[must_use]
    pub fn service(&self, before: ServiceIndex) -> Option<ServiceIndex> {
        let is_it = |kin: &Option<Heirloom>| kin.is_some_and(|kin| kin.service == before);
        self.services.iter().position(is_it).map(ServiceIndex)
    }

    /// Where a pool stands now, and who its members are.
    #[must_use]
    pub fn of(all: &[Self], before: PoolIndex) -> Option<(PoolIndex, &Self)> {
        let at = all.iter().position(|kin| kin.pool == Some(before))?;
        Some((PoolIndex(at), &all[at]))
    }
}

impl Policy {
    /// Takes other settings, in which `kin` (one for each pool) names who was there before. Everything that waited is to be
    /// polled before: what is polled afterwards speaks of the new settings. Tickets and hooks under way may be reported as
    /// before. No pool that [is busy](Self::is_busy) may have other members, hooks or names than before.
    pub fn succeed(&mut self, settings: Vec<PoolSettings>, kin: &[Kin], now: Moment) {
        // What has come due meanwhile is for the new settings: nothing is decided any more in the old ones' places.
        let (then, now) = (now, self.now);
        self.seed = self.seed.wrapping_add(1);
        self.shortest_interval = shortest_interval(&settings);
        let pacer = Pacer::new(settings.iter().flat_map(target_intervals));
        let old = std::mem::replace(&mut self.pools, build(settings, self.seed, now));
        let bounds = bounds(&old);
        let mut old: Vec<Option<Pool>> = old.into_iter().map(Some).collect();
        for (pool, kin) in self.pools.iter_mut().zip(kin) {
            if let Some(before) = kin.pool.and_then(|pool| old.get_mut(pool.0)?.take()) {
                pool.inherit(before, kin, now, &mut self.outbox);
            } else if let Some(past) = &kin.past {
                pool.restore(past.clone(), now, &mut self.outbox);
            }
        }
        self.move_probes(&pacer, kin, |id| {
            bounds.iter().find(|(of, _)| *of == id).map_or(now, |(_, at)| *at)
        });
        self.timers = Timers::default();
        for n in 0..self.pools.len() {
            let pool = &mut self.pools[n];
            for b in 0..pool.backends.len() {
                pool.tell_health(BackendIndex(b), now, &mut self.outbox);
            }
            pool.reconsider(now, &mut self.outbox);
            self.set_timers(PoolIndex(n));
        }
        self.advance(then);
    }

    /// A change of the pool is under way that waits for nobody, or a hook of it runs: it is left alone.
    ///
    /// # Panics
    /// When the settings have no such pool.
    #[must_use]
    pub fn is_busy(&self, pool: PoolIndex) -> bool {
        let pool = &self.pools[pool.0];
        let changes = |change: &Transition| change.is_holding() && !change.is_held();
        pool.running.is_some() || pool.transition.as_ref().is_some_and(changes)
    }

    /// Probes that wait or are under way belong to whoever has taken over.
    fn move_probes(&mut self, pacer: &Pacer, kin: &[Kin], bound: impl Fn(TargetId) -> Moment) {
        let Self { queue, pools, .. } = self;
        let target = |id: TargetId| {
            let (pool, kin) = Kin::of(kin, id.pool)?;
            let id = TargetId { pool, backend: kin.backend(id.backend)?, service: kin.service(id.service)? };
            let backend = &pools[id.pool.0].backends[id.backend.0];
            let (_, target) = backend.targets().nth(id.service.0)?;
            Some((id, target.is_queued(), target.in_flight().is_some()))
        };
        queue.succeed(
            pacer,
            |id| target(id).filter(|(_, is_queued, _)| *is_queued).map(|(id, ..)| id),
            |id| target(id).filter(|(.., is_in_flight)| *is_in_flight).map(|(id, ..)| id),
            bound,
        );
    }
}

/// When probes in flight are given up, by their targets.
fn bounds(pools: &[Pool]) -> Vec<(TargetId, Moment)> {
    let mut bounds = Vec::new();
    for pool in pools {
        for (backend, of) in pool.backends() {
            let bound = |(service, target): (ServiceIndex, &super::target::Target)| {
                Some((TargetId { pool: pool.index, backend, service }, target.bound()?))
            };
            bounds.extend(of.targets().filter_map(bound));
        }
    }
    bounds
}

impl Pool {
    fn inherit(&mut self, before: Self, kin: &Kin, now: Moment, out: &mut Outbox) {
        let heir = |b: BackendIndex| kin.backend(b);
        self.decided = before.decided;
        self.condition = before.condition;
        (self.since, self.reason, self.wish) = (before.since, before.reason, before.wish);
        (self.running, self.doubtful) = (before.running, before.doubtful);
        self.active = before.active.and_then(heir);
        self.routed = match before.routed {
            Some(Route::To(b)) => heir(b).map(Route::To),
            routed => routed,
        };
        for (backend, _) in self.backends.iter_mut().zip(&kin.backends).filter(|(_, kin)| kin.is_none()) {
            // At another address it is somebody new, of whom the same is wanted.
            let name = &backend.settings().name;
            if let Some(before) = before.backends.iter().find(|before| before.settings().name == *name) {
                backend.inherit_will(before);
            }
        }
        let mut members: Vec<_> = before.backends.into_iter().map(Some).collect();
        for (backend, kin_of) in self.backends.iter_mut().zip(&kin.backends) {
            if let Some(before) = kin_of.and_then(|b| members.get_mut(b.0)?.take()) {
                backend.inherit(before, &kin.services, now);
            }
        }
        if let Some(change) = before.transition {
            self.take_over(change, &before.settings.hooks, heir, out);
        }
        let has_lost_it = before.active.is_some() && self.active.is_none() && self.transition.is_none();
        if has_lost_it && self.has_hooks(HookWhen::Before) {
            self.hold_in_doubt(
                "who had the role is not in the configuration any more, or at another address",
                out,
            );
        }
        // Nobody was given the role, or is on the way to it.
        if self.doubtful && self.active.is_none() && self.transition.is_none() && kin.regains.is_some() {
            (self.active, self.doubtful) = (kin.regains, false);
        }
        self.put_to_sleep(now, out);
    }

    /// A change that stands still, or whose switch is made, as far as the new settings know what it was about.
    fn take_over(
        &mut self,
        change: Transition,
        hooks: &[HookSettings],
        heir: impl Fn(BackendIndex) -> Option<BackendIndex>,
        out: &mut Outbox,
    ) {
        let id = change.id;
        let is_before_steps = matches!(change.phase, Phase::Cutting(_) | Phase::Held(Stop::Uncut));
        let are_steps_the_same = has_same_steps(hooks, &self.settings.hooks);
        let to = heir(change.to).filter(|to| self.order.contains(to));
        match to {
            Some(to) if are_steps_the_same || (!change.switched && is_before_steps) => {
                let from = change.from.and_then(&heir);
                let cold = self.backends[to.0].settings().cold;
                self.transition = Some(Transition { to, from, cold, ..change });
                return;
            }
            _ => {}
        }
        let evidence = if to.is_none() {
            "the backend to be is gone from the configuration"
        } else if change.switched {
            "the hooks behind the switch are others now"
        } else {
            "its hooks are others now, after steps had been taken"
        };
        out.tell(Event::Abandoned { id, pool: self.index, evidence: evidence.to_owned() });
        if !change.switched && !is_before_steps && self.has_hooks(HookWhen::Before) {
            self.hold_in_doubt(evidence, out);
        }
    }

    /// Nobody can tell who has the role: that is the operator's to say.
    fn hold_in_doubt(&mut self, evidence: &str, out: &mut Outbox) {
        self.doubtful = true;
        out.tell(Event::Held { id: None, pool: self.index, to: None, evidence: evidence.to_owned() });
    }

    /// Standbys that are cold now are not probed any more.
    fn put_to_sleep(&mut self, now: Moment, out: &mut Outbox) {
        let target = self.transition.as_ref().map(|change| change.to);
        for b in (0..self.backends.len()).map(BackendIndex) {
            let is_in_use = self.active == Some(b) || target == Some(b);
            let backend = &self.backends[b.0];
            if backend.settings().cold && !is_in_use && !backend.is_asleep() {
                self.let_sleep(b, now, out);
            } else if self.active == Some(b) {
                // Also the service that it has for the first time.
                self.backends[b.0].wake_sleepers(now);
            }
        }
    }
}

/// Whether they are known by the same names, in the same order.
fn has_same_steps(before: &[HookSettings], now: &[HookSettings]) -> bool {
    let steps = |hooks: &[HookSettings]| -> Vec<_> {
        hooks.iter().map(|hook| (hook.when, hook.name.clone())).collect()
    };
    steps(before) == steps(now)
}
