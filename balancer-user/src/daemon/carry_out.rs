//! The loop's hands: decisions into the kernel, events into the log, probes onto the network, answers to clients.

use std::time::{Duration, Instant, SystemTime};

use balancer_common::abi::ActiveWord;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::control::protocol::{Command as ControlCommand, Outcome as CommandOutcome};
use crate::control::server::Request;
use crate::dataplane::attach;
use crate::policy::{Accepted, Ask, BackendIndex, Command, Event, PoolIndex, ProbeTicket, Signal};
use crate::probe::{LocalFault, Outcome, Role};
use crate::store::Unsaved;

use super::alarm::Alarm;
use super::census::Waiter;
use super::listing::Order;
use super::probe_log::LastProbe;
use super::view::{self, Seen};
use super::ways::Change;
use super::{Daemon, Entry, Probed, memory, plan};

/// How long a client waits for the disk: what it asked for is done anyhow.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

impl Daemon {
    /// Everything that the policy wants: the kernel first, then people, then the network.
    pub(super) fn carry_out(&mut self) {
        let decided = Instant::now();
        let mut is_news = false;
        while let Some(decision) = self.policy.poll_decision() {
            self.flip(decision.pool, decision.transition);
            is_news = true;
        }
        let took = decided.elapsed();
        while let Some(event) = self.policy.poll_event() {
            self.tell(&event, took);
            self.journal.note(Entry::of_event(&event, &self.parts.config), &self.store);
            is_news = true;
        }
        while let Some(ticket) = self.policy.poll_probe() {
            self.probe(ticket);
        }
        if is_news {
            self.remember();
        }
    }

    /// Has what is to be remembered written, if it is something else now.
    fn remember(&mut self) {
        let state = memory::state(self);
        if self.saved.as_ref().is_none_or(|saved| !saved.says_the_same(&state)) {
            self.store.save(state.clone());
            self.saved = Some(state);
        }
    }

    /// One store: the pool's word becomes what the policy says now. `change`: the id of the transition, if it is one.
    fn flip(&self, pool: PoolIndex, change: Option<u64>) {
        let view = self.policy.snapshot(pool, self.clock.now());
        let slots = &self.parts.slots[pool.0];
        let backend = view.active.map_or(0, |backend| slots.backends[backend.0].index);
        let last = self.parts.tables.active(slots.pool.index).change();
        // Ids count up from 1 by hand or by failure; 32 bits of them outlive the machine.
        let change = change.map_or(last, |change| change as u32);
        let word = ActiveWord::new(backend, plan::mark(view.wish), change);
        self.parts.tables.set_active(slots.pool.index, word);
    }

    fn pool_name(&self, pool: PoolIndex) -> &str {
        &self.parts.config.pools[pool.0].name
    }

    fn backend_name(&self, pool: PoolIndex, backend: BackendIndex) -> &str {
        &self.parts.config.pools[pool.0].backends[backend.0].name
    }

    fn tell(&mut self, event: &Event, took: Duration) {
        self.notify(event);
        match event {
            Event::Health { pool, backend, from, to, reason } => info!(
                event = "health",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
                from = from.token(),
                to = to.token(),
                reason = reason.as_deref().unwrap_or("-"),
            ),
            Event::Transition { id, pool, from, to, reason, evidence } => info!(
                event = "transition",
                pool = self.pool_name(*pool),
                from = from.map_or("-", |from| self.backend_name(*pool, from)),
                to = self.backend_name(*pool, *to),
                reason = reason.token(),
                id,
                took_ms = took.as_micros() as f64 / 1000.0,
                evidence,
            ),
            Event::Switching { .. }
            | Event::Hook { .. }
            | Event::Held { .. }
            | Event::Resumed { .. }
            | Event::Abandoned { .. }
            | Event::Waiting { .. }
            | Event::WaitingOver { .. }
            | Event::Admin { .. }
            | Event::Drained { .. } => {}
            Event::AllDown { pool, active, evidence } => error!(
                event = "all_down",
                pool = self.pool_name(*pool),
                active = active.map_or("-", |active| self.backend_name(*pool, active)),
                evidence,
                "no backend is up; new flows still go to the active one, if there is one",
            ),
            Event::AllDownOver { pool } => info!(event = "all_down_over", pool = self.pool_name(*pool)),
            Event::ProbeLost { pool, backend, .. } => warn!(
                event = "probe_lost",
                pool = self.pool_name(*pool),
                backend = self.backend_name(*pool, *backend),
            ),
            Event::Stalled { late, probes } => warn!(
                event = "stalled",
                late_ms = late.as_millis() as u64,
                probes,
                "the daemon itself did not run; probes of that time are repeated",
            ),
        }
    }

    /// What wants a person is handed to the notify command, too.
    fn notify(&mut self, event: &Event) {
        let Event::AllDown { pool, active, evidence } = event else { return };
        let pool_name = self.pool_name(*pool).to_owned();
        let active = active.map(|active| self.backend_name(*pool, active).to_owned());
        self.alarm(&Alarm {
            event: "all_down",
            pool: Some(&pool_name),
            backend: active.as_deref(),
            evidence: Some(evidence),
            ..Alarm::default()
        });
    }

    fn probe(&self, ticket: ProbeTicket) {
        let pool = &self.parts.config.pools[ticket.pool.0];
        let Some(prober) = self.parts.probers[ticket.pool.0][ticket.service.0].as_ref() else { return };
        let target = plan::probe_target(&pool.services[ticket.service.0], &pool.backends[ticket.backend.0]);
        let prober = prober.for_backend(self.backend_name(ticket.pool, ticket.backend), self.role(&ticket));
        let outcomes = self.outcomes.0.clone();
        tokio::spawn(async move {
            let result = prober.run(target).await;
            // The loop has ended: nobody wants to know.
            let _ = outcomes.send((ticket, SystemTime::now(), result)).await;
        });
    }

    /// What the backend is to its pool now.
    fn role(&self, ticket: &ProbeTicket) -> Role {
        let view = self.policy.snapshot(ticket.pool, self.clock.now());
        if view.active == Some(ticket.backend) { Role::Active } else { Role::Standby }
    }

    /// A probe has reported.
    pub(super) fn probed(&mut self, (ticket, at, result): Probed) {
        let signal = match &result {
            Ok(Outcome { result: Ok(()), .. }) => Signal::Good,
            Ok(Outcome { result: Err(failure), .. }) => Signal::Bad(failure.evidence()),
            Err(fault) => {
                self.probe_fault(&ticket, fault);
                Signal::Inconclusive
            }
        };
        if let Ok(outcome) = result {
            self.probes.record(&ticket, LastProbe { at, outcome });
        }
        self.policy.handle_signal(ticket, signal, self.clock.now());
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
                self.missing.ways.remove(&backend);
                self.parts.tables.set_way(backend, Some((source, hop)))
            }
            Change::Way(backend, Err(problem)) => {
                warn!(
                    event = "no_way",
                    backend = %self.name_of_slot(backend),
                    problem = %problem,
                    "the backend can't be reached from here",
                );
                self.missing.ways.insert(backend, problem);
                self.parts.tables.set_way(backend, None)
            }
            Change::Interface(slot, facts) => self.parts.tables.set_interface(slot, facts),
            Change::InterfaceLost(interface, problem) => {
                error!(event = "interface", interface = %interface, problem, "no traffic passes this interface");
                self.missing.interfaces.insert(interface, problem);
                Ok(())
            }
            Change::Transmit(interface, lack) => {
                self.transmit(interface, lack);
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

    /// What an interface lacks for packets to be sent there has changed; told once, if it matters.
    pub(super) fn transmit(&mut self, interface: String, lack: Option<String>) {
        let known = self.missing.transmit.get(&interface);
        if self.is_native() && known != lack.as_ref() {
            match &lack {
                Some(lack) => warn!(event = "transmit", interface = %interface, "{lack}"),
                None => info!(event = "transmit", interface = %interface, "packets are sent there again"),
            }
        }
        match lack {
            Some(lack) => self.missing.transmit.insert(interface, lack),
            None => self.missing.transmit.remove(&interface),
        };
    }

    /// Whether a program runs natively: then it sends packets through drivers.
    pub(super) fn is_native(&self) -> bool {
        !attach::native(&self.attachments).is_empty()
    }

    /// A client of the control socket wants something.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => self.with_flows(|seen| Waiter::Status(seen, reply)),
            Request::Stats(reply) => self.with_flows(|seen| Waiter::Stats(seen, reply)),
            Request::Flows(query, reply) => {
                if let Some(order) = Order::new(&self.parts, query, reply) {
                    self.counter.list(order);
                }
            }
            Request::Events(query, reply) => self.tell_events(query, reply),
            Request::Why(query, reply) => self.tell_why(query, reply),
            Request::Command(command, uid, reply) => {
                let outcome = self.command(&command);
                let said = outcome.as_ref().map(|outcome| outcome.message.as_str()).map_err(String::as_str);
                // A cause comes before what it leads to.
                self.journal.note(Entry::of_command(&command, uid, said), &self.store);
                // In the kernel, and on the disk, before the client hears of it.
                self.carry_out();
                self.remember();
                tokio::spawn(answer_when_saved(outcome, self.store.saved(DISK_PATIENCE), reply));
            }
        }
    }

    fn command(&mut self, command: &ControlCommand) -> Result<CommandOutcome, String> {
        let (pool, command) = match command {
            ControlCommand::Failover(asked) => {
                let ask = Ask::Failover { to: asked.to.clone(), force: asked.force, reset: false };
                (&asked.pool, Command { pool: asked.pool.clone(), ask })
            }
            ControlCommand::Failback(asked) => {
                (&asked.pool, Command { pool: asked.pool.clone(), ask: Ask::Failback })
            }
        };
        let accepted =
            self.policy.handle_command(&command, self.clock.now()).map_err(|refusal| refusal.to_string())?;
        // What the operator wants is kept even if nothing moved.
        let index = self.parts.config.pools.iter().position(|known| known.name == *pool).map(PoolIndex);
        if let Some(index) = index {
            self.flip(index, None);
        }
        let name = |backend| index.map(|index| self.backend_name(index, backend).to_owned());
        Ok(match accepted {
            Accepted::AlreadyActive { active } => CommandOutcome {
                changed: false,
                active: name(active),
                message: format!(
                    "{} is the active backend of {pool} already",
                    name(active).unwrap_or_default()
                ),
            },
            Accepted::Begun { to, transition } | Accepted::Resumed { to, transition } => CommandOutcome {
                changed: true,
                active: None,
                message: format!(
                    "{pool} is switching to {} (transition {transition})",
                    name(to).unwrap_or_default()
                ),
            },
            Accepted::Set { backend, to, .. } => CommandOutcome {
                changed: true,
                active: None,
                message: format!("{} of {pool} is {} now", name(backend).unwrap_or_default(), to.token()),
            },
            Accepted::Moved { active, transition } => CommandOutcome {
                changed: true,
                active: name(active),
                message: format!(
                    "{} is the active backend of {pool} now (transition {transition})",
                    name(active).unwrap_or_default()
                ),
            },
        })
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

/// A command that was carried out and could not be written down is no failure, but whoever gave it has to know.
async fn answer_when_saved(
    outcome: Result<CommandOutcome, String>,
    saved: impl Future<Output = Result<(), Unsaved>>,
    reply: oneshot::Sender<Result<CommandOutcome, String>>,
) {
    let outcome = match outcome {
        Ok(mut outcome) => {
            if let Err(problem) = saved.await {
                outcome.message.push_str(&format!("; a reboot may forget it: {problem}"));
            }
            Ok(outcome)
        }
        refused => refused,
    };
    // Who asked may be gone.
    let _ = reply.send(outcome);
}
