//! `passive`, `connect_retry` and `connect_timeout` of a pool: what a client's connection attempt that a backend did not
//! take says, and what becomes of it; and which of these make no sense beside the rest of the pool.

use std::time::Duration;

use super::limits::SHORTEST_DURATION;
use super::notes::Notes;
use super::problem::Fault;
use super::source::{Located, Span};
use super::table::Table;
use super::{Check, ConnectRetry, Failover, Passive, Probe};
use crate::duration;

/// As the contract says.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// A handshake is forgotten so long after its client's last SYN: nobody would see it last any longer.
const LONGEST: Duration = Duration::from_nanos(balancer_common::limits::HALF_OPEN_IDLE_NS);

/// These keys as written.
pub(super) struct AttemptKeys {
    passive: Option<Located<Passive>>,
    /// The pool's place, if it says nothing about that.
    silent: Option<Span>,
    retry: Option<Located<ConnectRetry>>,
    timeout: Option<Located<Duration>>,
}

impl AttemptKeys {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        const PASSIVE: [(&str, Passive); 3] =
            [("probe", Passive::Probe), ("count", Passive::Count), ("off", Passive::Off)];
        const RETRY: [(&str, ConnectRetry); 3] = [
            ("instant", ConnectRetry::Instant),
            ("retransmit", ConnectRetry::Retransmit),
            ("off", ConnectRetry::Off),
        ];
        let keys = Self {
            passive: table.choice("passive", &PASSIVE),
            silent: (!table.has("passive")).then(|| table.span()),
            retry: table.choice("connect_retry", &RETRY),
            timeout: table.duration("connect_timeout", SHORTEST_DURATION),
        };
        if let Some(Located { value: long, span }) = keys.timeout
            && long > LONGEST
        {
            let fault = Fault::new(
                format!(
                    "\"{}\" is longer than a handshake is kept after its client's last SYN",
                    duration::Shown(long)
                ),
                format!("write at most \"{}\"", duration::Shown(LONGEST)),
            );
            table.error(span, "connect_timeout", fault);
        }
        keys
    }

    /// A client's failure can't ask for a probe where there is none; and a retry goes only to where the pool would go by
    /// itself. `probes` has none where something else is wrong.
    pub(super) fn judge(&self, failover: Failover, probes: &[Option<Probe>], notes: &Notes<'_>) {
        let is_unprobed = |probe: &Option<Probe>| matches!(probe, Some(Probe { check: Check::None, .. }));
        if !probes.is_empty() && probes.iter().all(is_unprobed) {
            let written = self.passive.as_ref().filter(|found| found.value == Passive::Probe);
            if let Some(span) = written.map(|found| found.span).or(self.silent) {
                notes.warning(
                    span,
                    "no service of the pool is probed: there is nothing that a client's failure could ask for, and \
                     nothing tells that a backend fails; write passive = \"count\", or \"off\" to accept that",
                );
            }
        }
        if let Some(Located { value, span }) = self.timeout
            && value != CONNECT_TIMEOUT
            && self.are_off()
        {
            notes.warning(
                span,
                "`connect_timeout` does nothing with passive = \"off\" and connect_retry = \"off\": nobody waits for an \
                 answer",
            );
        }
        if let Some(Located { value: ConnectRetry::Instant | ConnectRetry::Retransmit, span }) = self.retry
            && failover == Failover::Manual
        {
            notes.warning(
                span,
                "`connect_retry` does nothing in a pool with failover = \"manual\": a retry goes only to where the pool \
                 would go by itself",
            );
        }
    }

    pub(super) fn passive(&self) -> Passive {
        self.passive.as_ref().map_or(Passive::Probe, |found| found.value)
    }

    pub(super) fn retry(&self) -> ConnectRetry {
        self.retry.as_ref().map_or(ConnectRetry::Instant, |found| found.value)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout.as_ref().map_or(CONNECT_TIMEOUT, |found| found.value)
    }

    fn are_off(&self) -> bool {
        self.passive() == Passive::Off && self.retry() == ConnectRetry::Off
    }
}
