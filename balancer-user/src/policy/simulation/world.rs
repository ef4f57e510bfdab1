//! The driver, the prober, the backends and the clock around a policy under test.
//!
//! It does what the daemon does: waits for the next deadline or answer, hands it in, drains everything, and has the laws
//! checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::laws::Laws;
use crate::policy::schedule::TargetId;
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
}

pub(in crate::policy) struct World {
    pub(in crate::policy) policy: Policy,
    pub(in crate::policy) now: Moment,
    pub(in crate::policy) log: Vec<(Moment, Entry)>,
    pub(in crate::policy) settings: Vec<PoolSettings>,
    conditions: BTreeMap<(usize, usize), Condition>,
    flights: BTreeMap<(Moment, ProbeTicket), Signal>,
    laws: Laws,
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
        let mut world = Self {
            laws: Laws::new(&settings, &history),
            policy: Policy::new(settings.clone(), seed, history, Moment::ZERO),
            now: Moment::ZERO,
            log: Vec::new(),
            settings,
            conditions: conditions.iter().map(|(backend, condition)| ((0, *backend), *condition)).collect(),
            flights: BTreeMap::new(),
        };
        world.drain(None);
        world
    }

    /// From now on probes of this backend meet this.
    pub(in crate::policy) fn set(&mut self, pool: usize, backend: usize, condition: Condition) {
        self.conditions.insert((pool, backend), condition);
    }

    pub(in crate::policy) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let landing = self.flights.keys().next().map(|(at, _)| *at);
            let next = self.policy.poll_timeout().into_iter().chain(landing).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next;
            if landing == Some(next) {
                self.land();
            } else {
                self.policy.handle_timeout(next);
                self.drain(None);
            }
        }
        self.now = end;
        self.policy.handle_timeout(end);
        self.drain(None);
    }

    /// The controller stands still; the answers that its probes got meanwhile are read too late, as timeouts.
    pub(in crate::policy) fn freeze(&mut self, span: Duration) {
        self.now = self.now + span;
        self.laws.excuse(self.now);
        for ((at, ticket), signal) in &mut self.flights {
            if *at <= self.now {
                self.laws.landed(*ticket);
                *signal = Signal::Bad("timeout".to_owned());
            }
        }
        while self.flights.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            self.land();
        }
        self.policy.handle_timeout(self.now);
        self.drain(None);
    }

    pub(in crate::policy) fn command(&mut self, command: &Command) -> Result<Accepted, Refusal> {
        let answer = self.policy.handle_command(command, self.now);
        self.log.push((self.now, Entry::Command(command.clone(), answer.clone())));
        self.drain(Some(command));
        answer
    }

    pub(in crate::policy) fn fail_over(
        &mut self,
        to: Option<&str>,
        force: bool,
    ) -> Result<Accepted, Refusal> {
        let pool = self.settings[0].name.clone();
        self.command(&Command::Failover { pool, to: to.map(str::to_owned), force })
    }

    pub(in crate::policy) fn fail_back(&mut self) -> Result<Accepted, Refusal> {
        let pool = self.settings[0].name.clone();
        self.command(&Command::Failback { pool })
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
            Entry::Probe(_) | Entry::Decision(_) | Entry::Command(..) => None,
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
        self.laws.landed(ticket);
        self.policy.handle_signal(ticket, signal, self.now);
        self.drain(None);
    }

    fn drain(&mut self, command: Option<&Command>) {
        while let Some(decision) = self.policy.poll_decision() {
            self.laws.decided(decision);
            self.log.push((self.now, Entry::Decision(decision)));
        }
        while let Some(event) = self.policy.poll_event() {
            self.laws.told(&event, command, self.now);
            self.log.push((self.now, Entry::Event(event)));
        }
        while let Some(ticket) = self.policy.poll_probe() {
            self.laws.launched(ticket);
            self.log.push((self.now, Entry::Probe(ticket.target())));
            self.launch(ticket);
        }
        self.laws.check(&self.policy, self.now);
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
                self.laws.landed(ticket);
                return;
            }
        };
        self.flights.insert((self.now + took, ticket), signal);
    }
}
