//! What clients' own connection attempts say about backends, and to whom an attempt may go on that one of them did not
//! take.
//!
//! Whoever can send packets can make attempts fail, or seem to fail. So what one of them can do is bounded: nothing is
//! remembered of a backend but one flow, a probe of it is asked for once per `fast_interval`, and a failure counts once per
//! `connect_timeout`, only while the backend answers nobody. Deliberately not here: seeing such attempts and sending them
//! on (the data plane's part), and what a failure makes of a backend (`health`).

use std::time::Duration;

use super::decision::Route;
use super::failover::Choice;
use super::pool::Pool;
use super::queue::TargetId;
use super::settings::{BackendIndex, Failover, HookWhen, Passive, PoolIndex, ServiceIndex};
use super::{Moment, Policy};

/// A backend that answered a SYN within this is not blamed for others: some of them may be forged, or lost on the way.
const QUIET: Duration = Duration::from_millis(100);

/// A client's connection attempt that its backend did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFailure {
    /// The pool.
    pub pool: PoolIndex,
    /// The service that the client wanted.
    pub service: ServiceIndex,
    /// The backend that got its SYN.
    pub backend: BackendIndex,
    /// What came of it.
    pub what: LiveKind,
    /// Tells clients' flows apart.
    pub flow: u64,
    /// When that backend last answered any SYN.
    pub answered: Option<Moment>,
}

/// How a connection attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveKind {
    /// By a RST.
    Refused,
    /// By an ICMP error.
    Unreachable,
    /// Nothing came back for `connect_timeout`, or until the client repeated it.
    Unanswered,
    /// The same of an attempt that another backend has not taken before. Nobody may be able to answer that client.
    UnansweredAgain,
}

impl LiveKind {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::Unanswered | Self::UnansweredAgain => "no answer",
        }
    }
}

/// What is remembered of the attempts that failed at one backend, until they count.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    first: Option<First>,
    /// When one counted the last time.
    counted: Option<Moment>,
}

/// The first flow that failed since the backend answered, or since failures counted. It may be long ago: a backend that
/// one client a day wants, and that answers none of them, fails.
#[derive(Debug)]
struct First {
    flow: u64,
    at: Moment,
    /// Another flow failed, too.
    joined: bool,
}

impl Suspicion {
    /// One more failed; says whether they count now, as one failure.
    pub(super) fn add(&mut self, failure: &LiveFailure, spacing: Duration, now: Moment) -> bool {
        let LiveFailure { flow, answered, .. } = *failure;
        // An answer at the same moment may have come behind it.
        let first = self.first.take().filter(|first| answered.is_none_or(|answered| answered < first.at));
        let first = match first {
            Some(first) => First { joined: first.joined || first.flow != flow, ..first },
            None => First { flow, at: now, joined: false },
        };
        let over = |since: Option<Moment>, span| since.is_none_or(|since| now - since >= span);
        if first.joined && over(answered, QUIET) && over(self.counted, spacing) {
            self.counted = Some(now);
            return true;
        }
        self.first = Some(first);
        false
    }

    /// What failed before says nothing any more.
    pub(super) fn forget(&mut self) {
        self.first = None;
    }
}

impl Policy {
    /// A client's connection attempt failed. One at a backend that is down, or out of use, changes nothing.
    pub fn handle_live(&mut self, failure: LiveFailure, now: Moment) {
        let now = self.advance(now);
        let LiveFailure { pool, service, backend, .. } = failure;
        let id = TargetId { pool, backend, service };
        let Some(of) = self.pools.get_mut(pool.0) else { return };
        let (passive, spacing) = (of.settings.passive, of.settings.connect_timeout);
        let Some(at) = of.backend(backend) else { return };
        match passive {
            Passive::Off => {}
            Passive::Probe => {
                if at.want(service, now) {
                    self.queue.overtake(id);
                }
                self.set_target_timer(id);
            }
            Passive::Count if failure.what == LiveKind::UnansweredAgain => {}
            Passive::Count => {
                if at.blame(&failure, spacing, now) {
                    self.settle(id, now);
                }
            }
        }
        self.fire(now);
    }

    /// The backends to which a pool would go over now by itself, one after the other, if the active one could not take a
    /// connection attempt, nor the next one, and so on. Empty when it would stay: the operator decides, a change is under
    /// way, or nobody is eligible.
    ///
    /// # Panics
    /// When the settings have no such pool.
    #[must_use]
    pub fn successors(&self, pool: PoolIndex) -> Vec<BackendIndex> {
        self.pools[pool.0].successors()
    }
}

impl Pool {
    fn successors(&self) -> Vec<BackendIndex> {
        let Some(Route::To(active)) = self.route() else { return Vec::new() };
        if self.settings.failover == Failover::Manual || self.is_forced(active) {
            return Vec::new();
        }
        let mut lost = vec![active];
        // One that has to be started first takes nothing, and nobody behind it is meant to; hooks hold an attempt anyway.
        let holds = self.settings.hooks.iter().any(|hook| hook.when == HookWhen::Before);
        while let Choice::Take(next) = self.choose_without(&lost)
            && (holds || !self.backends[next.0].settings().cold)
        {
            lost.push(next);
        }
        lost.split_off(1)
    }
}
