//! Which backend of one pool is active.
//!
//! Looked at anew after each change of health, each command and each deadline; the answer depends on nothing else.
//! Deliberately not here: the steps of a change (`transition`), what the operator may ask for (`operator`), probes and
//! their timing, and anything that carries a decision out.

use crate::duration::Shown;

use super::Moment;
use super::backend::Backend;
use super::decision::{ActiveReason, Cut, Outbox, Whose};
use super::event::Event;
use super::health::Health;
use super::pool::{Condition, Pool};
use super::settings::{BackendIndex, Failback, Failover, HookWhen, OnBackendDown};
use super::switching::Move;
use super::transition::{Phase, Transition};
use super::view::{Admin, Wish};

/// Where new flows should go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Take(BackendIndex),
    /// A first probe in flight will tell soon.
    Wait,
    Nobody,
}

impl Pool {
    /// One of a backend's services, or time, said something.
    pub(super) fn refresh(&mut self, b: BackendIndex, now: Moment, out: &mut Outbox) {
        let fell = self.tell_health(b, now, out) == Some(Health::Down);
        self.reconsider(now, out);
        // What it still has from before the pool moved away.
        let left = self.decided && !self.is_holding() && self.active != Some(b);
        if fell && left && self.settings.on_backend_down == OnBackendDown::Reset {
            self.cut(b, out);
        }
    }

    /// Makes the decision that the present asks for, if it is another one.
    pub(super) fn reconsider(&mut self, now: Moment, out: &mut Outbox) {
        if !self.decided {
            self.decide_first(now, out);
        } else if self.is_holding() {
            self.go_on(now, out);
        } else {
            match self.active {
                Some(active) if self.may_stay(active) => self.keep(active, now, out),
                Some(active) if self.is_forced(active) => {
                    if self.choose() == Choice::Nobody {
                        self.alarm(now, out)
                    } else {
                        self.serve(out)
                    }
                }
                Some(active) => self.replace(active, now, out),
                None => self.appoint(now, out),
            }
        }
        self.end_drains(now, out);
        self.publish(None, out);
    }

    /// When [`Self::reconsider`] is wanted though nothing happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let failback = self.failback_due().map(|(_, due)| due);
        let step = self.transition.as_ref().and_then(Transition::deadline);
        let drains = self.backends.iter().filter_map(Backend::drained_at);
        failback.into_iter().chain(step).chain(drains).min()
    }

    /// When the pool returns by itself, and where to.
    ///
    /// Only ever to the first backend in order that is up, and not before it has been up for the delay. A flapping backend
    /// can't take the pool with it more than once per its `fail_timeout` (failure class 37): to be returned to it must
    /// have been left, and what is left is down for that long, or the operator's doing and not returned to. Never to a
    /// cold standby: nobody knows whether it would come up.
    fn failback_due(&self) -> Option<(BackendIndex, Moment)> {
        let Failback::Auto { delay } = self.settings.failback else { return None };
        let settled = self.decided && self.condition == Condition::Fine && self.transition.is_none();
        if !settled || self.doubtful || self.wish != Wish::Automatic {
            return None;
        }
        let is_up = |b: &&BackendIndex| self.backends[b.0].is_up();
        let first = self.order.iter().take_while(|b| Some(**b) != self.active).find(is_up)?;
        Some((*first, self.backends[first.0].since() + delay))
    }

    pub(super) fn may_stay(&self, b: BackendIndex) -> bool {
        self.backends[b.0].is_ready() && self.backends[b.0].health().may_stay()
    }

    /// The operator wants it to be the active one, however it is.
    pub(super) fn is_forced(&self, active: BackendIndex) -> bool {
        self.wish == Wish::Forced && self.backends[active.0].is_ready()
    }

    fn counts_as_up(&self, b: BackendIndex) -> bool {
        self.backends[b.0].counts_as_up()
    }

    /// Up; when none is up, unknown.
    pub(super) fn is_eligible(&self, b: BackendIndex) -> bool {
        let backend = &self.backends[b.0];
        let none_up = || !self.order.iter().any(|b| self.counts_as_up(*b));
        backend.counts_as_up() || (backend.is_ready() && backend.health() == Health::Unknown && none_up())
    }

    /// The first eligible backend in order. The unknown are taken only when no first probe can still find one up.
    pub(super) fn choose(&self) -> Choice {
        self.choose_without(&[])
    }

    /// The same, if these were lost.
    pub(super) fn choose_without(&self, lost: &[BackendIndex]) -> Choice {
        let others = || self.order.iter().copied().filter(|b| !lost.contains(b));
        if let Some(up) = others().find(|b| self.counts_as_up(*b)) {
            return Choice::Take(up);
        }
        if others().any(|b| self.backends[b.0].is_awaited()) {
            return Choice::Wait;
        }
        let unknown = others().find(|b| self.may_stay(*b));
        unknown.map_or(Choice::Nobody, Choice::Take)
    }

    /// The first decision waits for the backends that come before the first one up, so that a start doesn't flip through
    /// the backup because it answered faster.
    fn decide_first(&mut self, now: Moment, out: &mut Outbox) {
        let settled = |b: &&BackendIndex| self.backends[b.0].is_awaited() || self.counts_as_up(**b);
        if self.order.iter().find(settled).is_some_and(|b| !self.counts_as_up(*b)) {
            return;
        }
        self.appoint(now, out);
    }

    /// Nobody is active. With nobody eligible it is the first that may be used at all, and all is down.
    fn appoint(&mut self, now: Moment, out: &mut Outbox) {
        match self.choose() {
            Choice::Wait => {}
            Choice::Take(first) => {
                self.serve(out);
                let evidence = format!("first in order that is {}", self.backends[first.0].health().token());
                self.take_first(first, evidence, now, out);
            }
            Choice::Nobody => {
                let ready = self.order.iter().copied().find(|b| self.backends[b.0].is_ready());
                match ready {
                    Some(first) => {
                        let evidence = "no backend is up; first in order".to_owned();
                        self.take_first(first, evidence, now, out);
                    }
                    None => self.decided = true,
                }
                self.alarm(now, out);
            }
        }
    }

    /// Without hooks: there is nobody to take the role from.
    fn take_first(&mut self, first: BackendIndex, evidence: String, now: Moment, out: &mut Outbox) {
        self.decided = true;
        let id = out.next_transition();
        let transition = Transition {
            id,
            from: None,
            to: first,
            reason: ActiveReason::Initial,
            evidence,
            started: now,
            forced: false,
            reset: false,
            cold: false,
            switched: true,
            phase: Phase::Over,
            why: None,
        };
        self.switch(&transition, now, out);
    }

    /// The active backend isn't lost.
    fn keep(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        if self.wish == Wish::Forced && self.backends[active.0].is_up() {
            self.wish = Wish::Stay;
        }
        self.serve(out);
        if let Some((to, due)) = self.failback_due()
            && due <= now
        {
            let up_for = Shown(now - self.backends[to.0].since());
            let evidence = format!("first in order, up for {up_for}");
            let reason = ActiveReason::Failback;
            self.move_to(Move { to, reason, evidence, forced: false, reset: false }, now, out);
        }
    }

    /// The active backend is lost.
    fn replace(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        self.wish = Wish::Automatic;
        match self.choose() {
            Choice::Wait => {}
            Choice::Nobody => {
                self.leave_for_the_first(active, now, out);
                self.alarm(now, out);
            }
            Choice::Take(to) => {
                let (reason, evidence) = self.why_lost(active, now);
                if self.settings.failover == Failover::Manual && reason == ActiveReason::BackendDown {
                    self.ask(active, to, evidence, out);
                    return;
                }
                self.serve(out);
                self.move_to(Move { to, reason, evidence, forced: false, reset: false }, now, out);
            }
        }
    }

    pub(super) fn why_lost(&self, b: BackendIndex, now: Moment) -> (ActiveReason, String) {
        match self.backends[b.0].admin() {
            Admin::Drain => (ActiveReason::Drain, "drained by the operator".to_owned()),
            Admin::Maint => (ActiveReason::Maint, "taken into maintenance by the operator".to_owned()),
            Admin::Disabled => (ActiveReason::Config, "left out by the configuration".to_owned()),
            Admin::Ready => (ActiveReason::BackendDown, self.backends[b.0].evidence(now).unwrap_or_default()),
        }
    }

    /// The configuration leaves the active backend out, and nobody is eligible: as at a start, new flows go on to the first
    /// one in order. Not over the heads of hooks, and not to a backend that doesn't run.
    fn leave_for_the_first(&mut self, active: BackendIndex, now: Moment, out: &mut Outbox) {
        let (reason, evidence) = self.why_lost(active, now);
        let may_lead = |b: &BackendIndex| {
            let backend = &self.backends[b.0];
            backend.is_ready() && !backend.settings().cold
        };
        let first = self.order.iter().copied().find(may_lead);
        if reason != ActiveReason::Config || self.has_hooks(HookWhen::Before) {
            return;
        }
        let Some(to) = first else { return };
        self.move_to(Move { to, reason, evidence, forced: true, reset: false }, now, out);
        self.wish = Wish::Automatic;
    }

    fn end_drains(&mut self, now: Moment, out: &mut Outbox) {
        for (b, backend) in self.backends.iter_mut().enumerate() {
            if backend.drained_at().is_some_and(|at| at <= now) {
                backend.set_admin(Admin::Drain, None);
                let (pool, backend) = (self.index, BackendIndex(b));
                out.tell(Event::Drained { pool, backend });
                out.cut(Cut { pool, whose: Whose::Of(backend), transition: None });
            }
        }
    }

    fn serve(&mut self, out: &mut Outbox) {
        self.is_now(Condition::Fine, out);
    }

    /// Tells the end of what was before; whether it is something else now.
    fn is_now(&mut self, condition: Condition, out: &mut Outbox) -> bool {
        if self.condition == condition {
            return false;
        }
        match std::mem::replace(&mut self.condition, condition) {
            Condition::Fine => {}
            Condition::Asking => out.tell(Event::WaitingOver { pool: self.index }),
            Condition::AllDown => out.tell(Event::AllDownOver { pool: self.index }),
        }
        true
    }

    fn ask(&mut self, active: BackendIndex, to: BackendIndex, evidence: String, out: &mut Outbox) {
        if self.is_now(Condition::Asking, out) {
            out.tell(Event::Waiting { pool: self.index, active, to, evidence });
        }
    }

    fn alarm(&mut self, now: Moment, out: &mut Outbox) {
        if self.is_now(Condition::AllDown, out) {
            let evidence = self.active.and_then(|active| self.backends[active.0].evidence(now));
            out.tell(Event::AllDown {
                pool: self.index,
                active: self.active,
                evidence: evidence.unwrap_or_default(),
            });
        }
    }
}
