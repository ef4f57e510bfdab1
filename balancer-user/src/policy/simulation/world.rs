//! The driver, the prober, the backends and the clock around a policy under test.
//!
//! It does what the daemon does: waits for the next deadline or answer, hands it in, drains everything, and has the laws
//! checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::laws::Laws;
use super::model::Model;
use crate::policy::queue::TargetId;
use crate::policy::*;

/// How long an answer takes: less than any gap between two probes.
const ANSWER: Duration = Duration::from_millis(2);

/// What a probe of a backend meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Condition {
    Fine,
    Refusing,
    /// Ends at the timeout.
    Silent,
    /// The prober never reports.
    Lost,
    /// The prober can't probe.
    Ours,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Entry {
    Probe(TargetId),
    Event(Event),
    Decision(Decision),
    Command(Command, Result<Accepted, Refusal>),
    Cut(Cut),
    Hook(HookRun),
}

pub(in crate::policy) struct World {
    pub(in crate::policy) policy: Policy,
    pub(in crate::policy) now: Moment,
    pub(in crate::policy) log: Vec<(Moment, Entry)>,
    pub(in crate::policy) settings: Vec<PoolSettings>,
    conditions: BTreeMap<(usize, usize), Condition>,
    /// When a backend last answered a client.
    answers: BTreeMap<(usize, usize), Moment>,
    flights: BTreeMap<(Moment, ProbeTicket), Signal>,
    /// Cuts that are under way.
    cuts: BTreeSet<(Moment, Cut)>,
    /// Hooks that run, and how they will end.
    hooks: BTreeMap<(Moment, u64), (HookRun, HookEnd)>,
    cuts_take: Duration,
    hooks_take: Duration,
    hooks_are_good: bool,
    seed: u64,
    laws: Laws,
    /// By pool, in a life beside the model.
    models: Vec<Model>,
    /// Answers come at multiples of this.
    grid: Duration,
}

impl World {
    pub(in crate::policy) fn new(settings: Vec<PoolSettings>, seed: u64) -> Self {
        Self::after(settings, seed, History::default())
    }

    pub(in crate::policy) fn after(settings: Vec<PoolSettings>, seed: u64, history: History) -> Self {
        Self::given(settings, seed, history, &[])
    }

    /// A start with backends of the first pool in these conditions.
    pub(in crate::policy) fn given(
        settings: Vec<PoolSettings>,
        seed: u64,
        history: History,
        conditions: &[(usize, Condition)],
    ) -> Self {
        let conditions = conditions.iter().map(|(backend, condition)| ((0, *backend), *condition)).collect();
        let mut world = Self { conditions, ..Self::idle(settings, seed, history) };
        world.drain(None);
        world
    }

    fn idle(settings: Vec<PoolSettings>, seed: u64, history: History) -> Self {
        Self {
            laws: Laws::new(&settings, &history),
            policy: Policy::new(settings.clone(), seed, history, Moment::ZERO),
            now: Moment::ZERO,
            log: Vec::new(),
            settings,
            conditions: BTreeMap::new(),
            answers: BTreeMap::new(),
            flights: BTreeMap::new(),
            cuts: BTreeSet::new(),
            hooks: BTreeMap::new(),
            cuts_take: ANSWER,
            hooks_take: ANSWER,
            hooks_are_good: true,
            seed,
            models: Vec::new(),
            grid: Duration::from_nanos(1),
        }
    }

    /// A life that the model follows: without hooks, cold standbys, restarts, and conditions that are the prober's
    /// fault.
    pub(in crate::policy) fn beside_the_model(
        settings: Vec<PoolSettings>,
        seed: u64,
        grid: Duration,
    ) -> Self {
        let models = settings.iter().cloned().map(Model::new).collect();
        let mut world = Self { models, grid, ..Self::idle(settings, seed, History::default()) };
        world.drain(None);
        world
    }

    /// From now on probes of this backend meet this.
    pub(in crate::policy) fn set(&mut self, pool: usize, backend: usize, condition: Condition) {
        self.conditions.insert((pool, backend), condition);
    }

    /// From now on hooks take so long, and end like that.
    pub(in crate::policy) fn hooks_take(&mut self, span: Duration, good: bool) {
        (self.hooks_take, self.hooks_are_good) = (span, good);
    }

    /// From now on cuts take so long.
    pub(in crate::policy) fn cuts_take(&mut self, span: Duration) {
        self.cuts_take = span;
    }

    pub(in crate::policy) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let landing = self.flights.keys().next().map(|(at, _)| *at);
            let cut = self.cuts.first().map(|(at, _)| *at);
            let hook = self.hooks.keys().next().map(|(at, _)| *at);
            let next = self.policy.poll_timeout().into_iter().chain(landing).chain(cut).chain(hook).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            if landing == Some(next) {
                self.land();
            } else if cut == Some(next) {
                let (_, cut) = self.cuts.pop_first().unwrap();
                self.laws.was_cut(cut);
                self.policy.handle_cut(cut, self.now);
                self.drain(None);
            } else if hook == Some(next) {
                let (_, (run, end)) = self.hooks.pop_first().unwrap();
                self.laws.hook_ended(run, &end, &self.settings);
                self.policy.handle_hook(run, end, self.now);
                self.drain(None);
            } else {
                self.policy.handle_timeout(next);
                self.drain(None);
            }
        }
        self.now = end;
        self.policy.handle_timeout(end);
        self.drain(None);
    }

    /// The controller is killed and started again: what ran is gone, and what it knew is what it had stored.
    pub(in crate::policy) fn restart(&mut self) {
        let history = self.policy.history(self.now);
        self.flights.clear();
        self.cuts.clear();
        self.hooks.clear();
        self.seed += 1;
        self.laws.restarted(&history, self.now);
        self.policy = Policy::new(self.settings.clone(), self.seed, history, self.now);
        self.drain(None);
    }

    /// The controller stands still; the answers that its probes got meanwhile are read too late, as timeouts.
    pub(in crate::policy) fn freeze(&mut self, span: Duration) {
        self.now = self.now + span;
        self.laws.excuse(self.now);
        for ((at, ticket), signal) in &mut self.flights {
            if *at <= self.now {
                self.laws.lost(*ticket);
                *signal = Signal::Bad("timeout".to_owned());
            }
        }
        while self.flights.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            self.land();
        }
        self.policy.handle_timeout(self.now);
        self.drain(None);
    }

    /// A client's connection attempt failed.
    pub(in crate::policy) fn fail(&mut self, failure: LiveFailure) {
        let view = |world: &Self| {
            let is_known = failure.pool.0 < world.settings.len();
            is_known.then(|| world.policy.snapshot(failure.pool, world.now))
        };
        let before = view(self);
        if let Some(model) = self.models.get_mut(failure.pool.0) {
            model.live(&failure, self.now);
        }
        self.policy.handle_live(failure, self.now);
        self.laws.failed(&failure, before.zip(view(self)), self.now);
        self.drain(None);
    }

    /// The same, with what the data plane would know of that backend.
    pub(in crate::policy) fn fail_at(&mut self, pool: usize, backend: usize, service: usize, flow: u64) {
        let answered = self.answers.get(&(pool, backend)).copied();
        let (pool, backend, service) = (PoolIndex(pool), BackendIndex(backend), ServiceIndex(service));
        self.fail(LiveFailure { pool, service, backend, what: LiveKind::Unanswered, flow, answered });
    }

    /// That backend answers a client.
    pub(in crate::policy) fn answer(&mut self, pool: usize, backend: usize) {
        self.answers.insert((pool, backend), self.now);
    }

    /// The data plane has seen that a backend answered a client of this service.
    pub(in crate::policy) fn prove(&mut self, pool: usize, backend: usize, service: usize) {
        self.answer(pool, backend);
        if let Some(model) = self.models.get_mut(pool) {
            model.answered(backend, service, self.now);
        }
        let (pool, backend, service) = (PoolIndex(pool), BackendIndex(backend), ServiceIndex(service));
        self.policy.handle_answer(pool, service, backend, self.now);
        self.drain(None);
    }

    pub(in crate::policy) fn command(&mut self, command: &Command) -> Result<Accepted, Refusal> {
        let answer = self.policy.handle_command(command, self.now);
        for (model, pool) in self.models.iter_mut().zip(&self.settings) {
            if pool.name == command.pool {
                assert_eq!(answer.is_ok(), model.command(&command.ask, self.now), "{command:?}: {answer:?}");
            }
        }
        self.log.push((self.now, Entry::Command(command.clone(), answer.clone())));
        self.drain(Some(command));
        answer
    }

    /// Of the first pool.
    pub(in crate::policy) fn ask(&mut self, ask: Ask) -> Result<Accepted, Refusal> {
        let pool = self.settings[0].name.clone();
        self.command(&Command { pool, ask })
    }

    pub(in crate::policy) fn fail_over(
        &mut self,
        to: Option<&str>,
        force: bool,
    ) -> Result<Accepted, Refusal> {
        self.ask(Ask::Failover { to: to.map(str::to_owned), force, reset: false })
    }

    pub(in crate::policy) fn fail_back(&mut self) -> Result<Accepted, Refusal> {
        self.ask(Ask::Failback)
    }

    pub(in crate::policy) fn view(&self) -> PoolView {
        self.policy.snapshot(PoolIndex(0), self.now)
    }

    /// The first pool's active backend.
    pub(in crate::policy) fn active(&self) -> Option<usize> {
        self.view().active.map(|active| active.0)
    }

    pub(in crate::policy) fn events(&self) -> impl Iterator<Item = (Moment, &Event)> {
        self.log.iter().filter_map(|(at, entry)| match entry {
            Entry::Event(event) => Some((*at, event)),
            Entry::Probe(_) | Entry::Decision(_) | Entry::Command(..) | Entry::Cut(_) | Entry::Hook(_) => {
                None
            }
        })
    }

    /// `(from, to, reason)` of each transition.
    pub(in crate::policy) fn transitions(&self) -> Vec<(Option<usize>, usize, ActiveReason)> {
        let transition = |(_, event): (Moment, &Event)| match event {
            Event::Transition { from, to, reason, .. } => Some((from.map(|from| from.0), to.0, *reason)),
            _ => None,
        };
        self.events().filter_map(transition).collect()
    }

    /// When a backend of the first pool was probed.
    pub(in crate::policy) fn probes_of(&self, backend: usize) -> Vec<Moment> {
        let of = |(at, entry): &(Moment, Entry)| match entry {
            Entry::Probe(id) if id.pool.0 == 0 && id.backend.0 == backend => Some(*at),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    fn land(&mut self) {
        let Some(((_, ticket), signal)) = self.flights.pop_first() else { return };
        self.laws.landed(ticket, &signal, self.now);
        if let Some(model) = self.models.get_mut(ticket.pool.0) {
            model.signal(ticket, signal == Signal::Good, self.now);
        }
        self.policy.handle_signal(ticket, signal, self.now);
        self.drain(None);
    }

    fn drain(&mut self, command: Option<&Command>) {
        while let Some(decision) = self.policy.poll_decision() {
            self.laws.decided(decision);
            self.log.push((self.now, Entry::Decision(decision)));
        }
        while let Some(cut) = self.policy.poll_cut() {
            self.laws.cutting(cut);
            self.log.push((self.now, Entry::Cut(cut)));
            self.cuts.insert((self.now + self.cuts_take, cut));
        }
        while let Some(event) = self.policy.poll_event() {
            self.laws.told(&event, command, self.now);
            self.log.push((self.now, Entry::Event(event)));
        }
        while let Some(ticket) = self.policy.poll_probe() {
            self.laws.launched(ticket);
            if let Some(model) = self.models.get_mut(ticket.pool.0) {
                model.launched(ticket);
            }
            self.log.push((self.now, Entry::Probe(ticket.target())));
            self.launch(ticket);
        }
        while let Some(run) = self.policy.poll_hook() {
            self.laws.hook_started(run, &self.settings);
            self.log.push((self.now, Entry::Hook(run)));
            let end =
                if self.hooks_are_good { HookEnd::Good } else { HookEnd::Bad("exit code 1".to_owned()) };
            self.hooks.insert((self.now + self.hooks_take, run.transition), (run, end));
        }
        for n in 0..self.settings.len() {
            let view = self.policy.snapshot(PoolIndex(n), self.now);
            let successors = self.policy.successors(PoolIndex(n));
            self.laws.check(n, &view, &successors, self.now);
            if let Some(model) = self.models.get_mut(n) {
                model.agree(&view, &successors, self.now);
            }
        }
    }

    fn launch(&mut self, ticket: ProbeTicket) {
        let service = &self.settings[ticket.pool.0].services[ticket.service.0];
        let timeout = service.probe.map_or(Duration::ZERO, |probe| probe.timeout);
        let condition = self.conditions.get(&(ticket.pool.0, ticket.backend.0));
        let (took, signal) = match condition.copied().unwrap_or(Condition::Fine) {
            Condition::Fine => (ANSWER, Signal::Good),
            Condition::Refusing => (ANSWER / 2, Signal::Bad("refused".to_owned())),
            Condition::Silent => (timeout, Signal::Bad("timeout".to_owned())),
            Condition::Ours => (ANSWER / 2, Signal::Inconclusive),
            Condition::Lost => {
                self.laws.lost(ticket);
                return;
            }
        };
        let at = (self.now + took - Moment::ZERO).as_nanos();
        let at = u64::try_from(at.next_multiple_of(self.grid.as_nanos())).unwrap();
        self.flights.insert((Moment::ZERO + Duration::from_nanos(at), ticket), signal);
    }
}
