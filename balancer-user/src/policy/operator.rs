//! What the operator asks of one pool, as far as that makes sense; what doesn't is refused and changes nothing.
//!
//! Deliberately not here: what becomes of the pool afterwards (`failover`, `switching`).

use super::Moment;
use super::command::{Accepted, Refusal, Withdrawal};
use super::decision::{ActiveReason, Cut, Outbox, Whose};
use super::event::Event;
use super::pool::Pool;
use super::settings::{BackendIndex, Failback};
use super::switching::{Move, Moved};
use super::transition::{Input, Phase, Stop};
use super::view::{Admin, Wish};

/// The operator's `failover`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailoverOrder {
    pub(super) to: Option<BackendIndex>,
    pub(super) force: bool,
    pub(super) reset: bool,
}

impl Pool {
    pub(super) fn backend_named(&self, name: &str) -> Result<BackendIndex, Refusal> {
        let found = self.backends().find(|(_, backend)| backend.settings().name == name);
        found.map(|(b, _)| b).ok_or_else(|| Refusal::UnknownBackend {
            pool: self.name().to_owned(),
            backend: name.to_owned(),
            known: self.backends.iter().map(|backend| backend.settings().name.clone()).collect(),
        })
    }

    /// `force` takes a backend whatever its health, and keeps it there; it also gives up a change that is held.
    pub(super) fn fail_over(
        &mut self,
        order: FailoverOrder,
        now: Moment,
        out: &mut Outbox,
    ) -> Result<Accepted, Refusal> {
        let FailoverOrder { to, force, reset } = order;
        let gives_up = force && to.is_some();
        if !gives_up || !self.stands_still() {
            self.refuse_while_holding()?;
        }
        let to = match to {
            Some(to) => self.admit(to, force, now)?,
            None => self.successor(force).ok_or_else(|| Refusal::NoOther { pool: self.name().to_owned() })?,
        };
        let lost = !self.may_stay(to);
        if !lost || force {
            self.wish = if lost { Wish::Forced } else { Wish::Stay };
        }
        if std::mem::replace(&mut self.doubtful, false) && self.active == Some(to) {
            // There may have been a later one that nobody remembers.
            out.cut(Cut { pool: self.index, whose: Whose::AllBut(to), transition: None });
        }
        if self.is_holding() && self.active == Some(to) {
            // Back to where it came from: the role was never given away.
            self.abandon(now, out);
        }
        let evidence =
            if lost { "asked for by the operator, with force" } else { "asked for by the operator" };
        let moved = self.move_to(
            Move { to, reason: ActiveReason::Operator, evidence: evidence.to_owned(), forced: force, reset },
            now,
            out,
        );
        self.decided = true;
        self.reconsider(now, out);
        Ok(Accepted::of(moved, to))
    }

    /// Return to the first eligible backend in order, and let the policy decide again.
    pub(super) fn fail_back(&mut self, now: Moment, out: &mut Outbox) -> Result<Accepted, Refusal> {
        self.refuse_while_holding()?;
        let first = self.order.iter().copied().find(|b| self.is_eligible(*b));
        let to = first.ok_or_else(|| Refusal::NoneEligible { pool: self.name().to_owned() })?;
        self.wish = Wish::Automatic;
        let evidence = "asked for by the operator".to_owned();
        let reason = ActiveReason::Failback;
        let moved = self.move_to(Move { to, reason, evidence, forced: false, reset: false }, now, out);
        self.decided = true;
        self.reconsider(now, out);
        Ok(Accepted::of(moved, to))
    }

    /// Takes a backend out of use. If it is the active one another becomes that first.
    pub(super) fn withdraw(
        &mut self,
        b: BackendIndex,
        how: Withdrawal,
        force: bool,
        now: Moment,
        out: &mut Outbox,
    ) -> Result<Accepted, Refusal> {
        self.refuse_while_holding()?;
        self.refuse_disabled(b)?;
        let (admin, reason) = match how {
            Withdrawal::Drain { .. } => (Admin::Drain, ActiveReason::Drain),
            Withdrawal::Maint => (Admin::Maint, ActiveReason::Maint),
        };
        let is_active = self.active == Some(b);
        let next = if is_active { self.heir(force) } else { None };
        if is_active && next.is_none() && !force {
            let backend = self.backends[b.0].settings().name.clone();
            return Err(Refusal::NoSuccessor { pool: self.name().to_owned(), backend });
        }
        let until = match how {
            Withdrawal::Drain { deadline } => Some(now + deadline.unwrap_or(self.settings.drain_deadline)),
            Withdrawal::Maint => None,
        };
        let from = self.set_admin(b, admin, until, out);
        let moved = next.map_or(Moved::Not, |to| {
            let (_, evidence) = self.why_lost(b, now);
            self.wish = if self.may_stay(to) { Wish::Automatic } else { Wish::Forced };
            self.move_to(Move { to, reason, evidence, forced: force, reset: false }, now, out)
        });
        self.decided |= next.is_some();
        // A change that takes steps cuts before the first of them.
        if admin == Admin::Maint && !self.is_holding() {
            self.cut(b, out);
        }
        self.reconsider(now, out);
        Ok(Accepted::Set { backend: b, from, to: admin, transition: moved.id() })
    }

    /// Puts a backend back into use. Also while a change stands still, or it could not be given up for that backend.
    pub(super) fn put_back(
        &mut self,
        b: BackendIndex,
        now: Moment,
        out: &mut Outbox,
    ) -> Result<Accepted, Refusal> {
        if !self.stands_still() {
            self.refuse_while_holding()?;
        }
        self.refuse_disabled(b)?;
        let from = self.set_admin(b, Admin::Ready, None, out);
        self.reconsider(now, out);
        Ok(Accepted::Set { backend: b, from, to: Admin::Ready, transition: None })
    }

    /// Lets a change that stands still go on.
    pub(super) fn resume(&mut self, skip: bool, now: Moment, out: &mut Outbox) -> Result<Accepted, Refusal> {
        let name = || self.name().to_owned();
        let Some(transition) = &self.transition else {
            return Err(if self.doubtful {
                Refusal::Doubtful { pool: name() }
            } else {
                Refusal::NotHeld { pool: name() }
            });
        };
        let Phase::Held(stop) = transition.phase else { return Err(Refusal::NotHeld { pool: name() }) };
        let (id, to) = (transition.id, transition.to);
        if stop == Stop::Uncut && skip {
            return Err(Refusal::Uncut { pool: name(), why: transition.why.clone().unwrap_or_default() });
        }
        if matches!(stop, Stop::Lost(_)) && !skip && !self.may_stay(to) {
            let to = &self.backends[to.0];
            return Err(Refusal::TargetLost {
                pool: name(),
                backend: to.settings().name.clone(),
                health: to.health(),
                evidence: to.evidence(now),
            });
        }
        out.tell(Event::Resumed { id, pool: self.index, skip });
        self.tell_transition(if skip { Input::Skip } else { Input::Retry }, now, out);
        self.reconsider(now, out);
        Ok(Accepted::Resumed { to, transition: id })
    }

    fn set_admin(&mut self, b: BackendIndex, to: Admin, until: Option<Moment>, out: &mut Outbox) -> Admin {
        let from = self.backends[b.0].admin();
        self.backends[b.0].set_admin(to, until);
        if from != to {
            out.tell(Event::Admin { pool: self.index, backend: b, from, to });
        }
        from
    }

    /// Who takes over from an active backend that is withdrawn. A pool that returns by itself goes straight to where it would
    /// be in the end: elsewhere it would not stay, and its hooks would run twice.
    fn heir(&self, force: bool) -> Option<BackendIndex> {
        let suits = |b: &&BackendIndex| Some(**b) != self.active && self.is_eligible(**b);
        let first = self.order.iter().find(suits).filter(|_| self.settings.failback != Failback::Manual);
        first.copied().or_else(|| self.successor(force))
    }

    /// Who takes over from the active backend: the next eligible one; with force, if there is none, whoever is in use.
    fn successor(&self, force: bool) -> Option<BackendIndex> {
        let next = self.next_after_active(|pool, b| pool.is_eligible(b));
        next.or_else(|| self.next_after_active(|pool, b| force && pool.backends[b.0].is_ready()))
    }

    /// A change is held, or nobody knows who was active.
    fn stands_still(&self) -> bool {
        self.doubtful || self.transition.as_ref().is_some_and(|transition| transition.is_held())
    }

    fn refuse_while_holding(&self) -> Result<(), Refusal> {
        let pool = || self.name().to_owned();
        match &self.transition {
            _ if self.doubtful => Err(Refusal::Doubtful { pool: pool() }),
            Some(transition) if transition.is_holding() && transition.is_held() => Err(Refusal::Held {
                pool: pool(),
                transition: transition.id,
                why: transition.why.clone().unwrap_or_default(),
            }),
            Some(transition) if transition.is_holding() => Err(Refusal::Switching {
                pool: pool(),
                transition: transition.id,
                to: self.backends[transition.to.0].settings().name.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn refuse_disabled(&self, b: BackendIndex) -> Result<(), Refusal> {
        let backend = &self.backends[b.0];
        if backend.admin() != Admin::Disabled {
            return Ok(());
        }
        let (pool, backend) = (self.name().to_owned(), backend.settings().name.clone());
        Err(Refusal::Disabled { pool, backend })
    }

    fn admit(&self, to: BackendIndex, force: bool, now: Moment) -> Result<BackendIndex, Refusal> {
        self.refuse_disabled(to)?;
        let backend = &self.backends[to.0];
        if !backend.is_ready() {
            let (pool, name) = (self.name().to_owned(), backend.settings().name.clone());
            return Err(Refusal::NotReady { pool, backend: name, admin: backend.admin() });
        }
        if !backend.health().may_stay() && !force && self.active != Some(to) {
            return Err(self.not_eligible(to, now));
        }
        Ok(to)
    }

    fn not_eligible(&self, b: BackendIndex, now: Moment) -> Refusal {
        let backend = &self.backends[b.0];
        Refusal::NotEligible {
            pool: self.name().to_owned(),
            backend: backend.settings().name.clone(),
            health: backend.health(),
            evidence: backend.evidence(now),
        }
    }

    /// The next one in role order, wrapping, that `suits`; never the active one itself.
    fn next_after_active(&self, suits: impl Fn(&Self, BackendIndex) -> bool) -> Option<BackendIndex> {
        let after = self.order.iter().position(|b| Some(*b) == self.active).map_or(0, |at| at + 1);
        let (before, behind) = self.order.split_at(after);
        behind.iter().chain(before).copied().find(|b| Some(*b) != self.active && suits(self, *b))
    }
}
