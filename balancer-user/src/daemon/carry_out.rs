//! The loop's hands: decisions into the kernel, probes onto the network, answers to clients.
//!
//! What else has to be done has rooms of its own: `telling` (events), `steps` (cuts, held flows, hooks), `orders` (commands).

use std::time::{Instant, SystemTime};

use balancer_common::abi::{self, ActiveWord};
use tracing::{error, warn};

use crate::control::server::Request;
use crate::dataplane::slots::Retry;
use crate::observe::tallies::Target;
use crate::policy::{Decision, HookRun, PoolIndex, ProbeTicket, Route, Signal, TransitionView};
use crate::probe::{Failure as ProbeFailure, LocalFault, Outcome, Role};

use super::census::Waiter;
use super::listing::Order;
use super::probe_log::LastProbe;
use super::reload::Cause;
use super::view::{self, Seen};
use super::ways::Change;
use super::{Daemon, Probed, memory, plan};

impl Daemon {
    /// Everything that the policy wants: the kernel first, then people, then programs and the network.
    pub(super) fn carry_out(&mut self) {
        let decided = Instant::now();
        let mut is_news = self.decide();
        let took = decided.elapsed();
        while let Some(cut) = self.policy.poll_cut() {
            self.cut(cut);
        }
        while let Some(event) = self.policy.poll_event() {
            self.tell(&event, took);
            is_news = true;
        }
        let hooks: Vec<HookRun> = std::iter::from_fn(|| self.policy.poll_hook()).collect();
        if is_news || !hooks.is_empty() {
            self.remember();
        }
        hooks.into_iter().for_each(|hook| self.run_hook(hook));
        while let Some(ticket) = self.policy.poll_probe() {
            self.probe(ticket);
        }
        self.answer_waiting();
    }

    /// The policy's decisions into the kernel; says whether there were any.
    pub(super) fn decide(&mut self) -> bool {
        let mut is_news = false;
        while let Some(decision) = self.policy.poll_decision() {
            self.flip(&decision);
            is_news = true;
        }
        self.write_successors();
        self.set_trials();
        is_news
    }

    /// Has what is to be remembered written, if it is something else now: beside the words in the kernel, and to the disk.
    pub(super) fn remember(&mut self) {
        (0..self.parts.slots.len()).for_each(|pool| self.mark(PoolIndex(pool)));
        let state = memory::state(self);
        if self.saved.as_ref().is_none_or(|saved| !saved.says_the_same(&state)) {
            self.store.save(state.clone());
            self.saved = Some(state);
        }
    }

    /// One store: the pool's word becomes what the policy says now.
    fn flip(&self, decision: &Decision) {
        let slots = &self.parts.slots[decision.pool.0];
        let wish = self.policy.snapshot(decision.pool, self.clock.now()).wish;
        let before = self.parts.tables.active(slots.pool.index);
        // Ids count up from 1 by hand or by failure; 32 bits of them outlive the machine.
        let change = decision.transition.map_or(before.change(), |change| change as u32);
        let mark = plan::mark(wish);
        let word = match decision.route {
            Route::To(backend) => ActiveWord::new(slots.backends[backend.0].index, mark, change),
            Route::Hold => ActiveWord::hold(mark, change),
            Route::Reject => ActiveWord::reject(mark, change),
            Route::Nobody => ActiveWord::new(0, mark, change),
        };
        self.parts.tables.set_active(slots.pool.index, word);
        let not_at = self.not_at(decision.pool, word);
        let has_moved = before.backend().is_some() && before.backend() != word.backend() && not_at.is_some();
        if has_moved || (before.route() == abi::Route::Hold && decision.route != Route::Hold) {
            self.replay(decision.pool, not_at);
        }
    }

    /// At whom else clients of the pool need not wait.
    fn not_at(&self, pool: PoolIndex, word: ActiveWord) -> Option<u16> {
        word.backend().filter(|_| self.parts.plan[pool.0].retry != Retry::Off)
    }

    /// Whoever waits since before the daemon was there, if the pool's word says where they shall go.
    pub(super) fn replay_all(&self, pool: PoolIndex) {
        let word = self.parts.tables.active(self.parts.slots[pool.0].pool.index);
        if word.route() != abi::Route::Hold {
            self.replay(pool, self.not_at(pool, word));
        }
    }

    /// What the operator asked for is kept with the word, also if nothing moved.
    fn mark(&self, pool: PoolIndex) {
        let slot = self.parts.slots[pool.0].pool.index;
        let wish = self.policy.snapshot(pool, self.clock.now()).wish;
        let word = self.parts.tables.active(slot);
        if word.mark() != plan::mark(wish) {
            self.parts.tables.set_active(slot, word.marked(plan::mark(wish)));
        }
    }

    fn probe(&self, ticket: ProbeTicket) {
        let pool = &self.parts.config.pools[ticket.pool.0];
        let Some(prober) = self.parts.probers[ticket.pool.0][ticket.service.0].as_ref() else { return };
        let backend = &pool.backends[ticket.backend.0];
        let target = plan::probe_target(&pool.services[ticket.service.0], backend);
        let mut prober =
            prober.for_backend(&backend.name, self.role(&ticket)).leaving_from(self.ports.of_probes());
        if let Some(host) = &backend.host {
            prober = prober.for_host(host);
        }
        let outcomes = self.outcomes.0.clone();
        tokio::spawn(async move {
            let result = prober.run(target).await;
            // The loop has ended: nobody wants to know.
            let _ = outcomes.send((ticket, SystemTime::now(), result)).await;
        });
    }

    /// What the backend is to its pool now. As long as nobody is known to have its role, each is asked as if it were: so a program
    /// that asks a database for its role finds the primary at the first start, and never takes a standby that comes first.
    fn role(&self, ticket: &ProbeTicket) -> Role {
        let view = self.policy.snapshot(ticket.pool, self.clock.now());
        let is_to_be = |change: &TransitionView| change.to == ticket.backend;
        if view.holder.is_none_or(|holder| holder == ticket.backend) {
            Role::Active
        } else if view.transition.as_ref().is_some_and(is_to_be) {
            Role::Candidate
        } else {
            Role::Standby
        }
    }

    /// A probe has reported.
    pub(super) fn probed(&mut self, (ticket, at, result): Probed) {
        let Some(ticket) = self.policy.current(&ticket) else {
            // It was given up, or who was asked has left the configuration; only its place is free now.
            self.policy.handle_signal(ticket, Signal::Inconclusive, self.clock.now());
            return;
        };
        let signal = match &result {
            Ok(Outcome { result: Ok(()), .. }) => Signal::Good,
            Ok(Outcome { result: Err(failure), .. }) => Signal::Bad(failure.evidence()),
            Err(fault) => {
                self.probe_fault(&ticket, fault);
                self.probes.failed(&ticket, fault.to_string());
                Signal::Inconclusive
            }
        };
        if let Ok(outcome) = result {
            if let Some(expires) = outcome.certificate_expires {
                self.certificate_shown((&ticket).into(), expires, at);
            }
            self.tally_probe(&ticket, &outcome);
            self.probes.record(&ticket, LastProbe { at, outcome }, self.clock.now());
        }
        self.policy.handle_signal(ticket, signal, self.clock.now());
    }

    fn tally_probe(&self, ticket: &ProbeTicket, outcome: &Outcome) {
        let Some(tallies) = self.dashboard.tallies() else { return };
        let pool = &self.parts.config.pools[ticket.pool.0];
        let target = Target {
            pool: pool.name.clone(),
            backend: pool.backends[ticket.backend.0].name.clone(),
            service: pool.services[ticket.service.0].name.clone(),
        };
        let failure = outcome.result.as_ref().err().map(ProbeFailure::token);
        tallies.probed(target, outcome.took, failure, outcome.certificate_expires);
    }

    fn probe_fault(&self, ticket: &ProbeTicket, fault: &LocalFault) {
        warn!(
            event = "probe_fault",
            pool = self.pool_name(ticket.pool),
            backend = self.backend_name(ticket.pool, ticket.backend),
            error = %fault,
            "the gateway could not probe; this does not count against the backend",
        );
    }

    /// The kernel's ways or interfaces have changed.
    pub(super) fn changed(&mut self, change: Change) {
        let written = match change {
            Change::Way(backend, Ok((source, hop))) => {
                self.no_ways.remove(&backend);
                self.parts.tables.set_way(backend, Some((source, hop)))
            }
            Change::Way(backend, Err(problem)) => {
                warn!(
                    event = "no_way",
                    backend = %self.name_of_slot(backend),
                    problem = %problem,
                    "the backend can't be reached from here",
                );
                self.no_ways.insert(backend, problem);
                self.parts.tables.set_way(backend, None)
            }
            Change::Interface(name, device) => {
                self.interface_changed(&name, device);
                Ok(())
            }
            Change::FirstRound => {
                self.ways_known = true;
                Ok(())
            }
        };
        if let Err(error) = written {
            error!(event = "dataplane", error = %error, "the kernel's tables may be behind");
        }
    }

    /// A client wants something.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => self.with_flows(|seen| Waiter::Status(seen, reply)),
            Request::Stats(reply) => self.with_flows(|seen| Waiter::Stats(seen, reply)),
            Request::Picture(reply) => self.with_flows(|seen| Waiter::Picture(seen, reply)),
            Request::Flows(query, reply) => {
                if let Some(order) = Order::new(&self.parts, &self.leaving, query, reply) {
                    self.counter.list(order);
                }
            }
            Request::Events(query, reply) => self.tell_events(query, reply),
            Request::Why(query, reply) => self.tell_why(query, reply),
            Request::Trace(query, reply) => self.begin_trace(&query, reply),
            Request::Command(command, asker, reply) => self.obey(&command, asker, reply),
            Request::Reload(asked, uid, reply) => self.reload(Cause::Verb(asked, uid, reply)),
        }
    }

    /// Answers with what is known now, and the flows as they are then.
    fn with_flows(&mut self, waiter: impl FnOnce(Seen) -> Waiter) {
        match view::seen(self) {
            Ok(seen) => self.counter.ask(waiter(seen)),
            Err(error) => error!(event = "dataplane", error = %error, "counters can't be read"),
        }
    }

    /// `POOL/BACKEND`, for people.
    fn name_of_slot(&self, slot: u16) -> String {
        let holders = self.parts.plan.iter().zip(&self.parts.slots).flat_map(|(pool, slots)| {
            pool.backends.iter().zip(&slots.backends).map(move |(backend, slot)| (pool, backend, slot.index))
        });
        let mut of_slot = holders.filter(|(.., index)| *index == slot);
        of_slot.next().map(|(pool, backend, _)| format!("{}/{}", pool.name, backend.name)).unwrap_or_default()
    }
}
