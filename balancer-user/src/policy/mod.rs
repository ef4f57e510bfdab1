//! The failover policy: which backend of each pool gets the new flows, and what to probe when.
//!
//! A value without a world: signals, commands and time go in, decisions, probes and events come out, and the same inputs
//! give the same outputs. So every rule can be tested to the tick, and hours of failures simulated in milliseconds.
//! Deliberately not here: a clock, sockets, threads, logging, and the configuration's syntax. It knows std's collections
//! only; time is an argument.
//!
//! The driver's side of the bargain:
//!
//! - After each input it polls decisions, events and probes until there are none; they are as many as the
//!   settings allow, however long that takes. Decisions come first: a flip must not wait for a log line.
//! - It calls [`Policy::handle_timeout`] at [`Policy::poll_timeout`], and reports each probe once, ended by its timeout.

mod backend;
mod command;
mod decision;
mod event;
mod failover;
mod health;
mod history;
mod live;
mod moment;
mod operator;
mod pacer;
mod pool;
mod queue;
mod schedule;
mod settings;
mod succession;
mod switching;
mod target;
mod timers;
mod transition;
mod trial;
mod view;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::command::{Accepted, Ask, Command, Refusal, Withdrawal};
pub use self::decision::{ActiveReason, Cut, Decision, HookRun, Route, Whose};
pub use self::event::Event;
pub use self::health::{Health, Past};
pub use self::history::{BackendHistory, History, PoolHistory, Reached, TransitionHistory};
pub use self::live::{LiveFailure, LiveKind};
pub use self::moment::Moment;
pub use self::queue::{MAX_IN_FLIGHT, ProbeTicket};
pub use self::settings::{
    BackendIndex, BackendSettings, Failback, Failover, HookSettings, HookWhen, OnBackendDown, OnError,
    Passive, PoolIndex, PoolSettings, ProbeSchedule, ServiceIndex, ServiceSettings, WhenAllDown,
};
pub use self::succession::{Heirloom, Kin};
pub use self::switching::HookEnd;
pub use self::target::Signal;
pub use self::transition::{Next, Stop};
pub use self::view::{Admin, BackendView, PoolState, PoolView, TransitionView, Wish};

use self::backend::Backend;
use self::decision::Outbox;
use self::health::Monitor;
use self::operator::FailoverOrder;
use self::pacer::Pacer;
use self::pool::Pool;
use self::queue::{ProbeQueue, TargetId};
use self::schedule::Schedule;
use self::target::{Due, Target, Turn};
use self::timers::{Timer, Timers};

/// The policy of all pools.
#[derive(Debug)]
pub struct Policy {
    pools: Vec<Pool>,
    timers: Timers,
    queue: ProbeQueue,
    outbox: Outbox,
    /// The last input's moment.
    now: Moment,
    shortest_interval: Option<Duration>,
    /// For the dice of targets to come.
    seed: u64,
}

impl Policy {
    /// Starts with every health unknown and every probe due within the next 100 ms. `seed` spreads the later ones.
    #[must_use]
    pub fn new(pools: Vec<PoolSettings>, seed: u64, history: History, now: Moment) -> Self {
        let shortest_interval = shortest_interval(&pools);
        let pacer = Pacer::new(pools.iter().flat_map(target_intervals));
        let mut policy = Self {
            pools: build(pools, seed, now),
            timers: Timers::default(),
            queue: ProbeQueue::new(pacer),
            outbox: Outbox::after(history.last_transition),
            now,
            shortest_interval,
            seed,
        };
        for (pool, past) in policy.pools.iter_mut().zip(history.pools) {
            pool.restore(past, now, &mut policy.outbox);
        }
        for n in 0..policy.pools.len() {
            let pool = PoolIndex(n);
            policy.pools[n].reconsider(now, &mut policy.outbox);
            policy.set_timers(pool);
        }
        policy.fire(now);
        policy
    }

    /// The outcome of a probe. One that was given up meanwhile changes nothing.
    pub fn handle_signal(&mut self, ticket: ProbeTicket, signal: Signal, now: Moment) {
        let now = self.advance(now);
        let Some(id) = self.queue.target_of(ticket.serial) else {
            // Its target is gone; so is its place.
            self.queue.landed(ticket.serial);
            return;
        };
        self.queue.landed(ticket.serial);
        let landed = self.target(id).is_some_and(|target| target.land(ticket.serial, signal, now));
        if landed {
            self.settle(id, now);
            self.fire(now);
        }
    }

    /// The same probe, by where its target stands now; `None`: it was given up, or its target is gone.
    #[must_use]
    pub fn current(&self, ticket: &ProbeTicket) -> Option<ProbeTicket> {
        Some(ProbeTicket::new(self.queue.target_of(ticket.serial)?, ticket.serial))
    }

    /// Time went on.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.advance(now);
    }

    /// The operator asks for something.
    ///
    /// # Errors
    /// A [`Refusal`] that says why; then nothing has changed.
    pub fn handle_command(&mut self, command: &Command, now: Moment) -> Result<Accepted, Refusal> {
        let now = self.advance(now);
        let found = self.pools.iter().position(|pool| pool.name() == command.pool);
        let index = found.ok_or_else(|| Refusal::UnknownPool { pool: command.pool.clone() })?;
        let (pool, out) = (&mut self.pools[index], &mut self.outbox);
        let accepted = match &command.ask {
            Ask::Failover { to, force, reset } => {
                let to = to.as_deref().map(|to| pool.backend_named(to)).transpose()?;
                pool.fail_over(FailoverOrder { to, force: *force, reset: *reset }, now, out)?
            }
            Ask::Failback => pool.fail_back(now, out)?,
            Ask::Withdraw { backend, how, force } => {
                let backend = pool.backend_named(backend)?;
                pool.withdraw(backend, *how, *force, now, out)?
            }
            Ask::PutBack { backend } => {
                let backend = pool.backend_named(backend)?;
                pool.put_back(backend, now, out)?
            }
            Ask::Resume { skip } => pool.resume(*skip, now, out)?,
        };
        self.set_timers(PoolIndex(index));
        self.fire(now);
        Ok(accepted)
    }

    /// A hook that was polled has ended.
    pub fn handle_hook(&mut self, run: HookRun, end: HookEnd, now: Moment) {
        let now = self.advance(now);
        // Wherever its pool stands now.
        let Some(index) = self.pools.iter().position(|pool| pool.runs(&run)) else { return };
        self.pools[index].hook_ended(run, end, now, &mut self.outbox);
        self.set_timers(PoolIndex(index));
        self.fire(now);
    }

    /// A cut that was polled is done: no packet of a flow of those backends is forwarded any more.
    pub fn handle_cut(&mut self, cut: Cut, now: Moment) {
        let now = self.advance(now);
        let Some(pool) = self.pools.get_mut(cut.pool.0) else { return };
        pool.was_cut(cut, now, &mut self.outbox);
        self.set_timers(cut.pool);
        self.fire(now);
    }

    /// Why a cut that was polled could not be finished. Whether it is to be tried again, and soon if a change waits for it.
    #[must_use]
    pub fn handle_cut_trouble(&mut self, cut: Cut, problem: &str) -> bool {
        self.pools.get_mut(cut.pool.0).is_some_and(|pool| pool.cut_trouble(cut, problem))
    }

    /// When [`Self::handle_timeout`] is wanted; `None`: never. No later than the shortest interval from the last input
    /// while probes are in flight, or a controller that stood still could not tell it from a slow backend.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        let pulse = if self.queue.in_flight() > 0 { self.shortest_interval } else { None };
        let pulse = pulse.map(|interval| self.now + interval);
        // What may start at once is polled now, not waited for.
        let start = self.queue.next_start().map(|start| start.max(self.now));
        self.timers.first().into_iter().chain(start).chain(pulse).chain(self.queue.overdue()).min()
    }

    /// The next pool whose desired state changed.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.outbox.pop_decision()
    }

    /// The next flows to be ended. To be done only once the decisions are in the kernel, and reported to
    /// [`Self::handle_cut`].
    pub fn poll_cut(&mut self) -> Option<Cut> {
        self.outbox.pop_cut()
    }

    /// The next hook to run now. It counts as started from now on: [`Self::history`] is to be stored before it is, or
    /// else it is reported as [`HookEnd::NotStarted`].
    pub fn poll_hook(&mut self) -> Option<HookRun> {
        let (now, out) = (self.now, &mut self.outbox);
        self.pools.iter_mut().find_map(|pool| pool.next_hook(now, out))
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outbox.pop_event()
    }

    /// The next probe to start now.
    pub fn poll_probe(&mut self) -> Option<ProbeTicket> {
        let now = self.now;
        while let Some(id) = self.queue.next(now) {
            let serial = self.queue.next_serial();
            let backend = self.pools.get_mut(id.pool.0).and_then(|pool| pool.backend(id.backend));
            let launched = backend.and_then(|backend| backend.launch(id.service, serial, now));
            self.set_target_timer(id);
            if launched == Some(true) {
                // Those of its other services that are wanted, too, have to wait now.
                let of = self.targets(id.pool).into_iter();
                of.filter(|target| target.backend == id.backend)
                    .for_each(|target| self.set_target_timer(target));
            }
            if launched.is_some() {
                return Some(self.queue.took_off(id));
            }
        }
        None
    }

    /// Whether every pool has had its first decision: with those in the kernel, the controller is ready.
    #[must_use]
    pub fn first_round_done(&self) -> bool {
        self.pools.iter().all(Pool::is_decided)
    }

    /// What a later life of the controller has to know.
    #[must_use]
    pub fn history(&self, now: Moment) -> History {
        let now = now.max(self.now);
        History {
            pools: self.pools.iter().map(|pool| pool.history(now)).collect(),
            last_transition: self.outbox.last_transition(),
        }
    }

    /// A pool as it is now.
    ///
    /// # Panics
    /// When the settings have no such pool.
    #[must_use]
    pub fn snapshot(&self, pool: PoolIndex, now: Moment) -> PoolView {
        self.pools[pool.0].view(now.max(self.now))
    }

    /// Brings everything up to `now`. Time never goes back: an earlier moment counts as the last one.
    fn advance(&mut self, now: Moment) -> Moment {
        let now = now.max(self.now);
        self.forgive_stall(now);
        self.now = now;
        self.queue.give_up(now);
        self.fire(now);
        now
    }

    /// When the controller itself stood still (starved, frozen), its probes ran into their timeouts by its own fault;
    /// all backends would go down at once (failure class 35).
    fn forgive_stall(&mut self, now: Moment) {
        let late = self.poll_timeout().map_or(Duration::ZERO, |due| now - due);
        let Some(interval) = self.shortest_interval else { return };
        if late <= interval.saturating_mul(2) {
            return;
        }
        let mut probes = 0;
        for pool in 0..self.pools.len() {
            for id in self.targets(PoolIndex(pool)) {
                probes += usize::from(self.target(id).is_some_and(|target| target.stalled(late)));
            }
        }
        if probes > 0 {
            self.outbox.tell(Event::Stalled { late, probes });
        }
    }

    fn fire(&mut self, now: Moment) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Pool(pool) => {
                    self.pools[pool.0].reconsider(now, &mut self.outbox);
                    self.set_timers(pool);
                }
                Timer::Target(id) => match self.target(id).map(|target| target.due(now)) {
                    Some(Due::Probe { turn: Turn::Urgent }) => self.queue.push_urgent(id),
                    Some(Due::Probe { turn }) => self.queue.push(id, turn == Turn::First),
                    Some(Due::Replanned { lost }) => {
                        if lost {
                            self.queue.lost(id);
                            self.outbox.tell(Event::ProbeLost {
                                pool: id.pool,
                                backend: id.backend,
                                service: id.service,
                            });
                        }
                        self.settle(id, now);
                    }
                    None => {}
                },
            }
        }
    }

    /// Something happened to a target: its pool may decide anew, and both may wait for other moments.
    fn settle(&mut self, id: TargetId, now: Moment) {
        let pool = &mut self.pools[id.pool.0];
        pool.refresh(id.backend, now, &mut self.outbox);
        if pool.take_stirred() {
            self.set_timers(id.pool);
        } else {
            self.set_target_timer(id);
            self.set_pool_timer(id.pool);
        }
    }

    /// Anything of the pool may wait for other moments now.
    fn set_timers(&mut self, pool: PoolIndex) {
        for target in self.targets(pool) {
            self.set_target_timer(target);
        }
        self.set_pool_timer(pool);
    }

    fn set_target_timer(&mut self, id: TargetId) {
        let deadline = self.target(id).and_then(|target| target.deadline());
        self.timers.set(Timer::Target(id), deadline);
    }

    fn set_pool_timer(&mut self, pool: PoolIndex) {
        let deadline = self.pools[pool.0].deadline();
        self.timers.set(Timer::Pool(pool), deadline);
    }

    fn target(&mut self, id: TargetId) -> Option<&mut Target> {
        self.pools.get_mut(id.pool.0)?.backend(id.backend)?.target(id.service)
    }

    fn targets(&self, pool: PoolIndex) -> Vec<TargetId> {
        let of = |(backend, b): (BackendIndex, &Backend)| {
            b.targets().map(|(service, _)| TargetId { pool, backend, service }).collect::<Vec<_>>()
        };
        self.pools[pool.0].backends().flat_map(of).collect()
    }
}

/// The interval of each target of a pool: each probed service of each backend that isn't disabled.
fn target_intervals(pool: &PoolSettings) -> impl Iterator<Item = Duration> {
    let backends = pool.backends.iter().filter(|backend| !backend.disabled);
    backends.flat_map(|_| pool.services.iter().filter_map(|service| Some(service.probe?.interval)))
}

fn shortest_interval(pools: &[PoolSettings]) -> Option<Duration> {
    let probes = pools.iter().flat_map(|pool| &pool.services).filter_map(|service| service.probe);
    probes.map(|probe| probe.interval).min()
}

/// The pools with their targets.
fn build(pools: Vec<PoolSettings>, seed: u64, now: Moment) -> Vec<Pool> {
    let count = u32::try_from(pools.iter().flat_map(target_intervals).count()).unwrap_or(u32::MAX);
    let mut nth = 0;
    let mut built = Vec::with_capacity(pools.len());
    for (n, pool) in pools.into_iter().enumerate() {
        let mut backends = Vec::with_capacity(pool.backends.len());
        for backend in pool.backends.clone() {
            let services = pool.services.iter().filter(|_| !backend.disabled);
            let targets = services.map(|service| {
                let schedule = service.probe.map(|probe| {
                    nth += 1;
                    Schedule::new(probe, seed, nth - 1, count, now)
                });
                let monitor = Monitor::new(&backend, service.probe.map_or(1, |probe| probe.rise));
                Target::new(service.name.clone(), monitor, schedule, backend.cold, pool.tries_live())
            });
            let targets = targets.collect();
            backends.push(Backend::new(backend, targets, now));
        }
        built.push(Pool::new(PoolIndex(n), pool, backends, now));
    }
    built
}
