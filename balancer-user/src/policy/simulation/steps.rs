//! What must be true of the steps around changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::*;

/// What the laws remember of the steps around changes.
#[derive(Default)]
pub(super) struct Steps {
    /// Cuts that were done, and of which nothing else was asked since.
    pub(super) cut: BTreeSet<Cut>,
    started: BTreeSet<(u64, usize)>,
    /// Before hooks that count as done.
    done: BTreeSet<(u64, usize)>,
    running: BTreeSet<PoolIndex>,
    /// The last step of each change that was started.
    last: BTreeMap<u64, usize>,
    skipped: BTreeSet<u64>,
    switched: BTreeSet<u64>,
    /// Changes that stand still, and for which the operator has said nothing since.
    held: BTreeSet<u64>,
}

impl Steps {
    /// A change that was behind its cut needs no other.
    pub(super) fn after(history: &History) -> Self {
        let mut steps = Self::default();
        for (n, past) in history.pools.iter().enumerate() {
            let uncut =
                |reached: &Reached| matches!(reached, Reached::Cutting | Reached::Held(Stop::Uncut, _));
            let change = past.transition.as_ref().filter(|change| !uncut(&change.reached));
            if let Some(change) = change {
                steps.switched.extend(Some(change.id).filter(|_| change.switched));
                let (pool, whose) = (PoolIndex(n), Whose::AllBut(change.to));
                steps.cut.insert(Cut { pool, whose, transition: Some(change.id) });
            }
        }
        steps
    }

    pub(super) fn restarted(&mut self) {
        self.running.clear();
    }

    /// In order, at most once, one at a time; those before the switch while nothing new reaches anybody and nothing old
    /// reaches anybody but the target.
    pub(super) fn started(&mut self, run: HookRun, settings: &[PoolSettings], routed: Option<Route>) {
        let key = (run.transition, run.step);
        assert!(!self.held.contains(&run.transition), "{run:?} runs though the change is held");
        assert!(self.started.insert(key), "{run:?} runs twice");
        assert!(self.running.insert(run.pool), "{run:?} runs beside another hook of its pool");
        let last = self.last.insert(run.transition, run.step);
        let when = |step: usize| settings[run.pool.0].hooks[step].when;
        let in_order = last.is_none_or(|last| last <= run.step || when(last) != when(run.step));
        assert!(in_order, "{run:?} runs after {last:?}");
        match when(run.step) {
            HookWhen::Before => {
                assert_eq!(routed, Some(Route::Hold), "{run:?}");
                let whose = Whose::AllBut(run.to);
                let cut = Cut { pool: run.pool, whose, transition: Some(run.transition) };
                assert!(self.cut.contains(&cut), "{run:?} runs while flows of others may be left");
            }
            HookWhen::After => assert!(self.switched.contains(&run.transition), "{run:?}"),
        }
    }

    pub(super) fn ended(&mut self, run: HookRun, end: &HookEnd, settings: &[PoolSettings]) {
        self.running.remove(&run.pool);
        if *end == HookEnd::Good || settings[run.pool.0].hooks[run.step].on_error == OnError::Continue {
            self.done.insert((run.transition, run.step));
        }
    }

    pub(super) fn held(&mut self, id: u64) {
        self.held.insert(id);
    }

    /// The operator takes it upon himself.
    pub(super) fn resumed(&mut self, id: u64, skip: bool) {
        self.held.remove(&id);
        if skip {
            self.skipped.insert(id);
        } else {
            let last = self.last.get(&id).copied();
            last.into_iter().for_each(|step| {
                self.started.remove(&(id, step));
            });
        }
    }

    /// Only with everything done that comes before.
    pub(super) fn switched(&mut self, id: u64, reason: ActiveReason, pool: &PoolSettings) {
        self.switched.insert(id);
        assert!(!self.held.contains(&id), "{id} switched though it is held");
        let before = pool.hooks.iter().enumerate().filter(|(_, hook)| hook.when == HookWhen::Before);
        for (step, _) in before.filter(|_| reason != ActiveReason::Initial && !self.skipped.contains(&id)) {
            assert!(self.done.contains(&(id, step)), "{id} switched without its step {step}");
        }
    }
}
