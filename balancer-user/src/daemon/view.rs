//! What the daemon knows, as the documents of the control API tell it.
//!
//! Two steps: what the loop's own values say is copied at once, and the flows are counted beside the loop.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use balancer_common::abi::{Signals, Tally, Traffic};
use balancer_common::verdict::{Fate, Reason};

use crate::config;
use crate::control::protocol::{
    Admin, Attachment, Backend, BackendStats, Daemon as DaemonInfo, FailbackPolicy, Health, LastFailover,
    LastProbe, Pool, PoolReason, PoolState, Service, ServiceStats, Stats, StatsSchema, Status, StatusSchema,
    Transition, XdpMode,
};
use crate::dataplane::DataplaneError;
use crate::dataplane::attach::Mode;
use crate::dataplane::flows::Census;
use crate::dataplane::slots::PoolSlots;
use crate::policy::{self, ActiveReason, BackendIndex, BackendView, PoolIndex, PoolView, TransitionView};

use super::failovers::Failover;
use super::{Daemon, probe_log};

/// A copy of everything that the documents tell, but the number of flows.
#[derive(Clone)]
pub(super) struct Seen {
    status: Status,
    tallies: Vec<(Reason, Tally)>,
    backends: Vec<BackendStats>,
    /// Each backend's slot, by pool and backend.
    slots: Vec<PoolSlots>,
}

/// What the loop knows now.
pub(super) fn seen(daemon: &Daemon) -> Result<Seen, DataplaneError> {
    let parts = &daemon.parts;
    let tallies = parts.tables.tallies()?;
    let status = Status {
        schema: StatusSchema::V1,
        as_of: SystemTime::now().into(),
        daemon: Some(DaemonInfo {
            pid: std::process::id(),
            version: daemon.version.to_owned(),
            uptime_s: daemon.clock.uptime().as_secs(),
            config_generation: daemon.reloads.generation(),
        }),
        attachments: attachments(daemon),
        pools: (0..parts.config.pools.len())
            .map(|index| pool(daemon, PoolIndex(index)))
            .collect::<Result<_, _>>()?,
        drops: drops(&tallies),
        degraded: daemon.degraded(),
        pending: daemon.pending(),
    };
    let backends = parts.config.pools.iter().zip(&parts.slots).flat_map(|(pool, slots)| {
        pool.backends.iter().zip(&slots.backends).map(move |(backend, slot)| {
            let traffic = parts.tables.backend_traffic(slot.index)?;
            let signals = parts.tables.signals(slot.index)?;
            let resets_sent = daemon.resets_sent.get(&slot.index).copied();
            let resets_sent = resets_sent.unwrap_or_default();
            let failures_lost = parts.tables.failures_lost(slot.index);
            let stats = backend_stats((&pool.name, &backend.name), &traffic, &signals);
            Ok(BackendStats { resets_sent, failures_lost, ..stats })
        })
    });
    Ok(Seen { backends: backends.collect::<Result<_, _>>()?, status, tallies, slots: parts.slots.clone() })
}

/// The status document.
pub(super) fn status(seen: Seen, census: &Census) -> Status {
    let mut status = seen.status;
    for (pool, slots) in status.pools.iter_mut().zip(&seen.slots) {
        for (backend, slot) in pool.backends.iter_mut().zip(&slots.backends) {
            backend.flows = flows(census, slot.index);
        }
    }
    status
}

/// The stats document.
pub(super) fn stats(seen: Seen, census: &Census) -> Stats {
    let mut backends = seen.backends;
    let slots = seen.slots.iter().flat_map(|pool| &pool.backends);
    for (backend, slot) in backends.iter_mut().zip(slots) {
        backend.flows = flows(census, slot.index);
    }
    let services = seen.status.pools.iter().flat_map(|pool| {
        pool.services.iter().map(|service| ServiceStats {
            pool: pool.name.clone(),
            service: service.name.clone(),
            new_flows: service.new_flows,
            packets: service.packets,
            bytes: service.bytes,
        })
    });
    Stats {
        schema: StatsSchema::V1,
        as_of: seen.status.as_of,
        services: services.collect(),
        backends,
        drops: seen.status.drops,
        answers: answers(&seen.tallies),
        passed: passed(&seen.tallies),
    }
}

/// Packets dropped by reason.
pub(super) fn drops(tallies: &[(Reason, Tally)]) -> BTreeMap<String, u64> {
    by_reason(tallies, |fate| fate != Fate::Pass, |tally| tally.dropped)
}

/// Packets answered by reason.
pub(super) fn answers(tallies: &[(Reason, Tally)]) -> BTreeMap<String, u64> {
    by_reason(tallies, |fate| fate == Fate::Answer, |tally| tally.answered)
}

/// Packets let pass by reason.
pub(super) fn passed(tallies: &[(Reason, Tally)]) -> BTreeMap<String, u64> {
    by_reason(tallies, |fate| fate == Fate::Pass, |tally| tally.passed)
}

/// Every reason that can end like this, zero included.
fn by_reason(
    tallies: &[(Reason, Tally)],
    can_end_so: fn(Fate) -> bool,
    count: fn(&Tally) -> u64,
) -> BTreeMap<String, u64> {
    let reasons = tallies.iter().filter(|(reason, _)| can_end_so(reason.fate()));
    reasons.map(|(reason, tally)| (reason.name().to_owned(), count(tally))).collect()
}

fn flows(census: &Census, slot: u16) -> u64 {
    census.established.get(&slot).copied().unwrap_or_default()
}

fn attachments(daemon: &Daemon) -> Vec<Attachment> {
    let interfaces = &daemon.parts.config.gateway.interfaces;
    let describe = |interface: &String| {
        let attached = daemon.interfaces.attachment(interface);
        let lack = daemon.interfaces.lack(interface).filter(|_| daemon.is_native());
        let warning = attached.and_then(|attachment| attachment.warning.as_ref());
        let error = daemon.interfaces.problem(interface).map(ToOwned::to_owned);
        let error = error.or_else(|| lack.or(warning).cloned());
        Attachment {
            interface: interface.clone(),
            mode: attached.map(|attachment| match attachment.mode {
                Mode::Native => XdpMode::Native,
                Mode::Generic => XdpMode::Generic,
            }),
            program_id: attached.map(|attachment| attachment.program_id),
            link_id: attached.map(|attachment| attachment.link_id),
            error,
        }
    };
    interfaces.iter().map(describe).collect()
}

fn pool(daemon: &Daemon, index: PoolIndex) -> Result<Pool, DataplaneError> {
    let config = &daemon.parts.config.pools[index.0];
    let slots = &daemon.parts.slots[index.0];
    let view = daemon.policy.snapshot(index, daemon.clock.now());
    let services = config.services.iter().zip(&slots.services).map(|(service, slot)| {
        let traffic = daemon.parts.tables.service_traffic(slot.index)?;
        Ok(Service {
            name: service.name.clone(),
            listen: service.listen,
            backend_port: service.backend_port,
            new_flows: traffic.new_flows,
            packets: traffic.packets,
            bytes: traffic.bytes,
        })
    });
    let backends =
        config.backends.iter().zip(&view.backends).enumerate().map(|(position, (backend, view))| {
            self::backend(daemon, index, BackendIndex(position), backend, view)
        });
    let (state, active) = standing(config, &view);
    Ok(Pool {
        name: config.name.clone(),
        active: active.map(|active| config.backends[active.0].name.clone()),
        state,
        since: daemon.clock.wall(view.since).into(),
        reason: pool_reason(view.reason),
        failback: match config.failback {
            config::Failback::Manual => FailbackPolicy::Manual,
            config::Failback::Auto { .. } => FailbackPolicy::Auto,
        },
        services: services.collect::<Result<_, _>>()?,
        backends: backends.collect(),
        transition: view.transition.as_ref().map(|change| transition(daemon, config, change)),
        last_failover: daemon.failovers.last(index).map(|failover| last_failover(config, failover)),
    })
}

fn backend(
    daemon: &Daemon,
    pool: PoolIndex,
    index: BackendIndex,
    config: &config::Backend,
    view: &BackendView,
) -> Backend {
    let slot = daemon.parts.slots[pool.0].backends[index.0].index;
    let no_way = daemon.no_ways.get(&slot).map(|problem| format!("no way: {problem}"));
    Backend {
        name: config.name.clone(),
        address: config.address.to_string(),
        host: config.host.clone(),
        backup: config.backup,
        health: match view.health {
            policy::Health::Up => Health::Up,
            policy::Health::Down => Health::Down,
            policy::Health::Probation => Health::Probation,
            policy::Health::Unknown => Health::Unknown,
        },
        admin: match view.admin {
            policy::Admin::Ready => Admin::Ready,
            policy::Admin::Drain => Admin::Drain,
            policy::Admin::Maint => Admin::Maint,
            policy::Admin::Disabled => Admin::Disabled,
        },
        fails: u32::try_from(view.fails).unwrap_or(u32::MAX),
        reason: view.reason.clone().or(no_way),
        since: daemon.clock.wall(view.since).into(),
        flows: 0,
        last_probe: last_probe(daemon, pool, index),
    }
}

fn transition(daemon: &Daemon, config: &config::Pool, change: &TransitionView) -> Transition {
    let name = |backend: BackendIndex| config.backends[backend.0].name.clone();
    Transition {
        id: change.id,
        from: change.from.map(name),
        to: name(change.to),
        reason: pool_reason(change.reason),
        step: change.step.map(|step| step as u32),
        hook: change.step.and_then(|step| config.hooks.get(step)).map(|hook| hook.name.clone()),
        started: daemon.clock.wall(change.started).into(),
    }
}

fn last_failover(config: &config::Pool, failover: &Failover) -> LastFailover {
    let name = |backend: BackendIndex| config.backends[backend.0].name.clone();
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    LastFailover {
        id: failover.id,
        at: failover.at.into(),
        from: name(failover.from),
        to: name(failover.to),
        detection_ms: failover.detection.map(ms),
        recovery_ms: failover.recovery.map(ms),
    }
}

/// The latest outcome over the backend's services.
fn last_probe(daemon: &Daemon, pool: PoolIndex, backend: BackendIndex) -> Option<LastProbe> {
    let services = &daemon.parts.config.pools[pool.0].services;
    let probes: &[Option<probe_log::LastProbe>] = daemon.probes.of(pool, backend);
    let (service, probe) = services
        .iter()
        .zip(probes)
        .filter_map(|(service, probe)| Some((service, probe.as_ref()?)))
        .max_by_key(|(_, probe)| probe.at)?;
    let outcome = &probe.outcome;
    Some(LastProbe {
        service: service.name.clone(),
        ok: outcome.result.is_ok(),
        reason: outcome.result.as_ref().err().map(|failure| failure.token().to_owned()),
        at: probe.at.into(),
        took_ms: outcome.took.as_secs_f64() * 1000.0,
        certificate_expires: outcome.certificate_expires.map(Into::into),
    })
}

/// What a pool is doing, and whom its new flows go to. One that a reload brought waits for its first probes, for as long as
/// those take: its backends are unknown, so nobody is down, and who comes first in order is the active one until another is up.
fn standing(config: &config::Pool, view: &PoolView) -> (PoolState, Option<BackendIndex>) {
    let state = match view.state {
        policy::PoolState::Starting => {
            let ready = view.backends.iter().map(|backend| backend.admin == policy::Admin::Ready);
            let ready = config.backends.iter().zip(ready).enumerate().filter(|(_, (_, is_ready))| *is_ready);
            let first = ready.min_by_key(|(index, (backend, _))| (backend.backup, *index));
            return (PoolState::Serving, first.map(|(index, _)| BackendIndex(index)));
        }
        policy::PoolState::Serving => PoolState::Serving,
        policy::PoolState::Switching => PoolState::Switching,
        policy::PoolState::Held => PoolState::Held,
        policy::PoolState::Waiting => PoolState::Waiting,
        policy::PoolState::AllDown => PoolState::AllDown,
    };
    (state, view.active)
}

pub(super) fn pool_reason(reason: ActiveReason) -> PoolReason {
    match reason {
        ActiveReason::Initial => PoolReason::Initial,
        ActiveReason::BackendDown => PoolReason::BackendDown,
        ActiveReason::Operator => PoolReason::Operator,
        ActiveReason::Failback => PoolReason::Failback,
        ActiveReason::Drain => PoolReason::Drain,
        ActiveReason::Maint => PoolReason::Maint,
        ActiveReason::Config => PoolReason::Config,
        ActiveReason::Restored => PoolReason::Restored,
    }
}

/// Of a backend, after its pool, as far as the maps tell it.
pub(super) fn backend_stats(
    (pool, backend): (&str, &str),
    traffic: &Traffic,
    signals: &Signals,
) -> BackendStats {
    BackendStats {
        pool: pool.to_owned(),
        backend: backend.to_owned(),
        new_flows: traffic.new_flows,
        flows: 0,
        packets: traffic.packets,
        bytes: traffic.bytes,
        retried_refused: signals.retried_refused,
        retried_unanswered: signals.retried_unanswered,
        rescued: signals.rescued,
        resets_sent: 0,
        failures_lost: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::example::replaced;
    use crate::daemon::{Clock, plan};
    use crate::policy::{History, Policy};

    #[test]
    fn a_pool_that_waits_for_its_first_probes_serves_who_is_first_in_order_and_ready() {
        const SERVER1: &str = "name = \"server1\"";
        for (flag, first) in [("backup = false", 0), ("backup = true", 1), ("disabled = true", 1)] {
            let config = replaced(&[(SERVER1, &format!("{SERVER1}\n{flag}"))]);
            let policy = Policy::new(plan::for_policy(&config), 1, History::default(), Clock::START);
            let view = policy.snapshot(PoolIndex(0), Clock::START);
            let standing = standing(&config.pools[0], &view);
            assert_eq!(standing, (PoolState::Serving, Some(BackendIndex(first))), "{flag}");
        }
    }
}
