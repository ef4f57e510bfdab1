//! A policy over reloads, and a driver that lands its probes.

use std::collections::BTreeMap;

use super::*;

/// A policy whose settings change, and a driver that knows backends by their names.
pub(super) struct Life {
    pub(super) policy: Policy,
    pub(super) settings: Vec<PoolSettings>,
    pub(super) now: Moment,
    /// How long an answer takes.
    pub(super) answer: Duration,
    pub(super) failing: Vec<&'static str>,
    pub(super) flights: BTreeMap<(Moment, u64), (ProbeTicket, bool)>,
    pub(super) probes: Vec<(Moment, String)>,
    pub(super) events: Vec<Event>,
    pub(super) routes: Vec<Route>,
    pub(super) hooks: Vec<HookRun>,
}

impl Life {
    pub(super) fn new(settings: Vec<PoolSettings>) -> Self {
        let policy = Policy::new(settings.clone(), 1, History::default(), Moment::ZERO);
        let mut life = Self {
            policy,
            settings,
            now: Moment::ZERO,
            answer: millis(2),
            failing: Vec::new(),
            flights: BTreeMap::new(),
            probes: Vec::new(),
            events: Vec::new(),
            routes: Vec::new(),
            hooks: Vec::new(),
        };
        life.drain();
        life
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let landing = self.flights.keys().next().map(|(at, _)| *at);
            let next = self.policy.poll_timeout().into_iter().chain(landing).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            if landing == Some(next) {
                let (_, (ticket, good)) = self.flights.pop_first().unwrap();
                let signal = if good { Signal::Good } else { Signal::Bad("refused".to_owned()) };
                self.policy.handle_signal(ticket, signal, self.now);
            } else {
                self.policy.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
        self.policy.handle_timeout(end);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(decision) = self.policy.poll_decision() {
            self.routes.push(decision.route);
        }
        while let Some(cut) = self.policy.poll_cut() {
            self.policy.handle_cut(cut, self.now);
        }
        self.events.extend(std::iter::from_fn(|| self.policy.poll_event()));
        self.hooks.extend(std::iter::from_fn(|| self.policy.poll_hook()));
        while let Some(ticket) = self.policy.poll_probe() {
            let name = self.settings[ticket.pool.0].backends[ticket.backend.0].name.clone();
            let good = !self.failing.contains(&name.as_str());
            self.probes.push((self.now, name));
            self.flights.insert((self.now + self.answer, ticket.serial), (ticket, good));
        }
    }

    /// Everybody of the same name is the same.
    pub(super) fn reload(&mut self, settings: Vec<PoolSettings>) {
        let kin: Vec<Kin> = settings.iter().map(|pool| kin(&self.settings, pool)).collect();
        self.policy.succeed(settings.clone(), &kin, self.now);
        self.settings = settings;
        self.drain();
    }

    pub(super) fn view(&self) -> PoolView {
        self.policy.snapshot(PoolIndex(0), self.now)
    }

    pub(super) fn active(&self) -> String {
        self.settings[0].backends[self.view().active.unwrap().0].name.clone()
    }

    pub(super) fn of(&self, name: &str) -> BackendView {
        let at = self.settings[0].backends.iter().position(|backend| backend.name == name).unwrap();
        self.view().backends[at].clone()
    }
}

/// Who a pool and everybody in it was before, by their names.
pub(super) fn kin(before: &[PoolSettings], pool: &PoolSettings) -> Kin {
    let Some(at) = before.iter().position(|known| known.name == pool.name) else {
        return Kin {
            pool: None,
            backends: vec![None; pool.backends.len()],
            services: vec![None; pool.services.len()],
            past: None,
            regains: None,
        };
    };
    let backend = |backend: &BackendSettings| {
        before[at].backends.iter().position(|known| known.name == backend.name).map(BackendIndex)
    };
    let service = |service: &ServiceSettings| {
        let at = before[at].services.iter().position(|known| known.name == service.name)?;
        Some(Heirloom { service: ServiceIndex(at), asks_anew: false })
    };
    Kin {
        pool: Some(PoolIndex(at)),
        backends: pool.backends.iter().map(backend).collect(),
        services: pool.services.iter().map(service).collect(),
        past: None,
        regains: None,
    }
}
