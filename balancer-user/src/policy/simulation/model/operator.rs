//! What the operator may ask of the model, in the contract's words.

use super::*;

impl Model {
    /// Says whether it is accepted.
    pub(in crate::policy::simulation) fn command(&mut self, ask: &Ask, now: Moment) -> bool {
        self.advance(now);
        let accepted = match ask {
            Ask::Failover { to: Some(to), force, .. } => self.fail_over_to(self.named(to), *force),
            Ask::Failover { to: None, force, .. } => {
                self.next_after_active(*force).is_some_and(|to| self.fail_over_to(to, *force))
            }
            Ask::Failback => self.fail_back(),
            Ask::Withdraw { backend, how: Withdrawal::Drain { .. }, force } => {
                self.withdraw(self.named(backend), Admin::Drain, *force)
            }
            Ask::Withdraw { backend, how: Withdrawal::Maint, force } => {
                self.withdraw(self.named(backend), Admin::Maint, *force)
            }
            Ask::PutBack { backend } => {
                let b = self.named(backend);
                let may = self.admin[b] != Admin::Disabled;
                if may {
                    self.admin[b] = Admin::Ready;
                }
                may
            }
            // Without hooks nothing is ever held.
            Ask::Resume { .. } => false,
        };
        if accepted {
            self.decide();
        }
        accepted
    }

    fn named(&self, name: &str) -> usize {
        self.pool.backends.iter().position(|backend| backend.name == name).unwrap()
    }

    /// The next after the active one, wrapping; by force whatever its health.
    fn next_after_active(&self, force: bool) -> Option<usize> {
        let order = self.order();
        let start = order.iter().position(|b| Some(*b) == self.active).map_or(0, |at| at + 1);
        let others =
            || (0..order.len()).map(|n| order[(start + n) % order.len()]).filter(|b| Some(*b) != self.active);
        let next = others().find(|b| self.eligible().contains(b));
        next.or_else(|| others().find(|b| force && self.admin[*b] == Admin::Ready))
    }

    fn fail_over_to(&mut self, b: usize, force: bool) -> bool {
        let fails = self.is_failing(b);
        if self.admin[b] != Admin::Ready || (fails && !force && self.active != Some(b)) {
            return false;
        }
        if !fails || force {
            self.wish = if fails { Wish::Forced } else { Wish::Stay };
        }
        self.begin(b);
        true
    }

    fn fail_back(&mut self) -> bool {
        let first = self.eligible().first().copied();
        first.into_iter().for_each(|first| {
            self.wish = Wish::Automatic;
            self.begin(first);
        });
        first.is_some()
    }

    /// Where the pool would return to by itself; else the next.
    fn heir(&self, left: usize, force: bool) -> Option<usize> {
        let first = self.eligible().into_iter().find(|b| *b != left);
        first.filter(|_| self.pool.failback != Failback::Manual).or_else(|| self.next_after_active(force))
    }

    /// On the active backend a failover comes first.
    fn withdraw(&mut self, b: usize, admin: Admin, force: bool) -> bool {
        let next = if self.active == Some(b) { self.heir(b, force) } else { None };
        let refused = self.active == Some(b) && next.is_none() && !force;
        if refused || self.admin[b] == Admin::Disabled {
            return false;
        }
        self.admin[b] = admin;
        if let Some(next) = next {
            self.wish = if self.is_failing(next) { Wish::Forced } else { Wish::Automatic };
            self.begin(next);
        }
        true
    }

    /// The operator's word needs no first signal.
    fn begin(&mut self, b: usize) {
        self.move_to(b);
        self.state = if self.state == PoolState::Starting { PoolState::Serving } else { self.state };
    }
}
