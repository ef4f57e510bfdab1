//! Which backend of one pool is active.
//!
//! Looked at anew after each change of health, each command and each deadline; the answer depends on nothing else.
//! Deliberately not here: probes and their timing, names, and anything that carries a decision out.

use super::Moment;
use super::backend::Backend;
use super::command::{Accepted, Refusal};
use super::event::{ActiveReason, Decision, Event, Outbox, PoolState, PoolView, Wish};
use super::health::Health;
use super::settings::{BackendIndex, Failback, PoolIndex};

/// Where new flows should go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Take(BackendIndex),
    /// A first probe in flight will tell soon.
    Wait,
    Nobody,
}

/// One pool.
///
/// ```text
///                first decision
///   Starting ----------------------> Serving    active lost: to the first eligible
///       |                             ^   |     auto: back to the first one up
///       |    active is up: it stays   |   |
///       |    another is eligible:     |   |  active lost, nobody eligible:
///       |    to that one              |   v  it stays, alarm
///       '--------------------------> AllDown
///         nobody eligible:
///         the first in order, alarm
/// ```
///
/// *Lost* means down or in probation. An active backend that is unknown is not lost: a restored one is kept until a
/// signal says otherwise, and one with a few failures has not reached its `max_fails`.
#[derive(Debug)]
pub(super) struct Pool {
    index: PoolIndex,
    name: String,
    failback: Failback,
    backends: Vec<Backend>,
    /// Role order: without `backup` first, each group in list order. The disabled are left out.
    order: Vec<BackendIndex>,
    state: PoolState,
    active: Option<BackendIndex>,
    since: Moment,
    reason: ActiveReason,
    wish: Wish,
}

impl Pool {
    pub(super) fn new(
        index: PoolIndex,
        name: String,
        failback: Failback,
        backends: Vec<Backend>,
        now: Moment,
    ) -> Self {
        let mut order: Vec<_> =
            (0..backends.len()).map(BackendIndex).filter(|b| backends[b.0].is_ready()).collect();
        order.sort_by_key(|b| backends[b.0].settings().backup);
        Self {
            index,
            name,
            failback,
            backends,
            order,
            state: PoolState::Starting,
            active: None,
            since: now,
            reason: ActiveReason::Initial,
            wish: Wish::Automatic,
        }
    }

    /// Takes over what the kernel does already, if the configuration still allows it.
    pub(super) fn restore(&mut self, active: BackendIndex, wish: Wish, out: &mut Outbox) {
        if !self.order.contains(&active) {
            return;
        }
        self.active = Some(active);
        self.wish = wish;
        self.reason = ActiveReason::Restored;
        self.state = PoolState::Serving;
        out.decide(Decision { pool: self.index, active: self.active, transition: None });
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = (BackendIndex, &Backend)> {
        self.backends.iter().enumerate().map(|(n, backend)| (BackendIndex(n), backend))
    }

    pub(super) fn backend(&mut self, backend: BackendIndex) -> Option<&mut Backend> {
        self.backends.get_mut(backend.0)
    }

    pub(super) fn backend_named(&self, name: &str) -> Result<BackendIndex, Refusal> {
        let found = self.backends().find(|(_, backend)| backend.settings().name == name);
        found.map(|(b, _)| b).ok_or_else(|| Refusal::UnknownBackend {
            pool: self.name.clone(),
            backend: name.to_owned(),
            known: self.backends.iter().map(|backend| backend.settings().name.clone()).collect(),
        })
    }

    pub(super) fn is_decided(&self) -> bool {
        self.state != PoolState::Starting
    }

    /// One of a backend's services, or time, said something.
    pub(super) fn refresh(&mut self, b: BackendIndex, now: Moment, out: &mut Outbox) {
        let backend = &mut self.backends[b.0];
        if let Some(from) = backend.refresh(now) {
            out.tell(Event::Health {
                pool: self.index,
                backend: b,
                from,
                to: backend.health(),
                reason: backend.evidence(now),
            });
        }
        self.reconsider(now, out);
    }

    /// Makes the decision that the present asks for, if it is another one.
    pub(super) fn reconsider(&mut self, now: Moment, out: &mut Outbox) {
        match self.state {
            PoolState::Starting => self.decide_first(now, out),
            PoolState::Serving | PoolState::AllDown => match self.active {
                Some(active) if self.backends[active.0].health().may_stay() => self.keep(active, now, out),
                Some(active) if self.wish != Wish::Forced => self.replace(active, now, out),
                Some(_) if self.choose() == Choice::Nobody => self.alarm(now, out),
                Some(_) => self.serve(out),
                None => {}
            },
        }
    }

    /// When the pool returns by itself, and where to.
    ///
    /// Only ever to the first backend in order that is up, and not before it has been up for the delay. A flapping backend
    /// can't take the pool with it more than once per its `fail_timeout` (failure class 37): to be returned to it must
    /// have been left, and what is left is down for that long, or the operator's doing and not returned to.
    pub(super) fn failback_due(&self) -> Option<(BackendIndex, Moment)> {
        let Failback::Auto { delay } = self.failback else { return None };
        if self.state != PoolState::Serving || self.wish != Wish::Automatic {
            return None;
        }
        let first = self.order.iter().take_while(|b| Some(**b) != self.active).find(|b| self.up(**b))?;
        Some((*first, self.backends[first.0].since() + delay))
    }

    /// The operator's `failover`. `force` takes a backend whatever its health, and keeps it there.
    pub(super) fn fail_over(
        &mut self,
        to: Option<BackendIndex>,
        force: bool,
        now: Moment,
        out: &mut Outbox,
    ) -> Result<Accepted, Refusal> {
        let to = match to {
            Some(to) => self.admit(to, force, now)?,
            None => {
                let next = self.next_after_active(|pool, b| pool.is_eligible(b));
                let any = || if force { self.next_after_active(|_, _| true) } else { None };
                next.or_else(any).ok_or_else(|| Refusal::NoOther { pool: self.name.clone() })?
            }
        };
        let lost = !self.backends[to.0].health().may_stay();
        if !lost || force {
            self.wish = if lost { Wish::Forced } else { Wish::Stay };
        }
        let evidence =
            if lost { "asked for by the operator, with force" } else { "asked for by the operator" };
        let accepted = self.move_to(to, ActiveReason::Operator, evidence.to_owned(), now, out);
        self.reconsider(now, out);
        Ok(accepted)
    }

    /// The operator's `failback`.
    pub(super) fn fail_back(&mut self, now: Moment, out: &mut Outbox) -> Result<Accepted, Refusal> {
        let first = self.order.iter().copied().find(|b| self.is_eligible(*b));
        let first = first.ok_or_else(|| Refusal::NoneEligible { pool: self.name.clone() })?;
        self.wish = Wish::Automatic;
        let evidence = "asked for by the operator".to_owned();
        let accepted = self.move_to(first, ActiveReason::Failback, evidence, now, out);
        self.reconsider(now, out);
        Ok(accepted)
    }

    pub(super) fn view(&self, now: Moment) -> PoolView {
        PoolView {
            state: self.state,
            active: self.active,
            since: self.since,
            reason: self.reason,
            wish: self.wish,
            backends: self.backends.iter().map(|backend| backend.view(now)).collect(),
        }
    }

    fn up(&self, b: BackendIndex) -> bool {
        self.backends[b.0].is_up()
    }

    /// Up; when none is up, unknown.
    fn is_eligible(&self, b: BackendIndex) -> bool {
        let backend = &self.backends[b.0];
        let none_up = || !self.order.iter().any(|b| self.up(*b));
        backend.is_up() || (backend.is_ready() && backend.health() == Health::Unknown && none_up())
    }

    /// The first eligible backend in order. The unknown are taken only when no first probe can still find one up.
    fn choose(&self) -> Choice {
        if let Some(up) = self.order.iter().find(|b| self.up(**b)) {
            return Choice::Take(*up);
        }
        if self.order.iter().any(|b| self.backends[b.0].is_awaited()) {
            return Choice::Wait;
        }
        self.order.iter().find(|b| self.is_eligible(**b)).map_or(Choice::Nobody, |b| Choice::Take(*b))
    }

    /// The first decision waits for the backends that come before the first one up, so that a start doesn't flip through
    /// the backup because it answered faster.
    fn decide_first(&mut self, now: Moment, out: &mut Outbox) {
        let settled = |b: &&BackendIndex| self.backends[b.0].is_awaited() || self.up(**b);
        if self.order.iter().find(settled).is_some_and(|b| !self.up(*b)) {
            return;
        }
        match self.choose() {
            Choice::Wait => {}
            Choice::Take(first) => {
                let evidence = format!("first in order that is {}", self.backends[first.0].health().token());
                self.move_to(first, ActiveReason::Initial, evidence, now, out);
            }
            Choice::Nobody => {
                if let Some(first) = self.order.first().copied() {
                    let evidence = "no backend is up; first in order".to_owned();
                    self.move_to(first, ActiveReason::Initial, evidence, now, out);
                } else {
                    out.decide(Decision { pool: self.index, active: None, transition: None });
                }
                self.alarm(now, out);
            }
        }
    }

    /// The active backend isn't lost.
    fn keep(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        if self.wish == Wish::Forced && self.up(active) {
            self.wish = Wish::Stay;
        }
        self.serve(out);
        if let Some((first, due)) = self.failback_due()
            && due <= now
        {
            let up_for = now - self.backends[first.0].since();
            let evidence = format!("first in order, up for {up_for:?}");
            self.move_to(first, ActiveReason::Failback, evidence, now, out);
        }
    }

    /// The active backend is lost.
    fn replace(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        self.wish = Wish::Automatic;
        match self.choose() {
            Choice::Wait => {}
            Choice::Take(next) => {
                let evidence = self.backends[active.0].evidence(now).unwrap_or_default();
                self.move_to(next, ActiveReason::BackendDown, evidence, now, out);
                self.serve(out);
            }
            Choice::Nobody => self.alarm(now, out),
        }
    }

    fn admit(&self, to: BackendIndex, force: bool, now: Moment) -> Result<BackendIndex, Refusal> {
        let backend = &self.backends[to.0];
        let name = || (self.name.clone(), backend.settings().name.clone());
        if !backend.is_ready() {
            let (pool, backend) = name();
            return Err(Refusal::Disabled { pool, backend });
        }
        if !backend.health().may_stay() && !force && self.active != Some(to) {
            let (health, evidence) = (backend.health(), backend.evidence(now));
            let (pool, backend) = name();
            return Err(Refusal::NotEligible { pool, backend, health, evidence });
        }
        Ok(to)
    }

    /// The next one in role order, wrapping, that `suits`; never the active one itself.
    fn next_after_active(&self, suits: impl Fn(&Self, BackendIndex) -> bool) -> Option<BackendIndex> {
        let after = self.order.iter().position(|b| Some(*b) == self.active).map_or(0, |at| at + 1);
        let (before, behind) = self.order.split_at(after);
        behind.iter().chain(before).copied().find(|b| Some(*b) != self.active && suits(self, *b))
    }

    fn move_to(
        &mut self,
        to: BackendIndex,
        reason: ActiveReason,
        evidence: String,
        now: Moment,
        out: &mut Outbox,
    ) -> Accepted {
        if self.active == Some(to) {
            return Accepted::AlreadyActive { active: to };
        }
        let id = out.next_transition();
        out.tell(Event::Transition { id, pool: self.index, from: self.active, to, reason, evidence });
        out.decide(Decision { pool: self.index, active: Some(to), transition: Some(id) });
        self.active = Some(to);
        self.since = now;
        self.reason = reason;
        if self.state == PoolState::Starting {
            self.state = PoolState::Serving;
        }
        Accepted::Moved { active: to, transition: id }
    }

    fn serve(&mut self, out: &mut Outbox) {
        if self.state == PoolState::AllDown {
            out.tell(Event::AllDownOver { pool: self.index });
        }
        self.state = PoolState::Serving;
    }

    fn alarm(&mut self, now: Moment, out: &mut Outbox) {
        if self.state != PoolState::AllDown {
            let evidence = self.active.and_then(|active| self.backends[active.0].evidence(now));
            out.tell(Event::AllDown {
                pool: self.index,
                active: self.active,
                evidence: evidence.unwrap_or_default(),
            });
        }
        self.state = PoolState::AllDown;
    }
}
