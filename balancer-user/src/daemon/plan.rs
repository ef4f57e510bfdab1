//! One configuration, three readers: what the data plane, the policy and the probers each have to know of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{self, Check, Config, Question};
use crate::dataplane::attach::ModeChoice;
use crate::dataplane::object::Wanted;
use crate::dataplane::rescue::Rule;
use crate::dataplane::slots::{BackendPlan, Forwarding, PoolPlan, Retry, ServicePlan};
use crate::policy::{
    BackendSettings, Failback, Failover, HookSettings, HookWhen, OnBackendDown, OnError, Passive,
    PoolSettings, ProbeSchedule, ServiceSettings, WhenAllDown, Wish,
};
use crate::probe::{HttpSettings, ProbeSetupError, Prober, TlsSettings, Verify};

use super::parts::Parts;

/// What the data plane has to know.
pub(super) fn for_dataplane(config: &Config) -> Vec<PoolPlan> {
    config.pools.iter().map(pool_plan).collect()
}

fn pool_plan(pool: &config::Pool) -> PoolPlan {
    let services = pool.services.iter().map(|service| ServicePlan {
        name: service.name.clone(),
        listen: service.listen,
        backend_port: service.backend_port,
    });
    let backends = pool
        .backends
        .iter()
        .map(|backend| BackendPlan { name: backend.name.clone(), address: backend.address });
    PoolPlan {
        name: pool.name.clone(),
        forwarding: match pool.forwarding {
            config::Forwarding::Snat => Forwarding::Snat,
            config::Forwarding::Dnat => Forwarding::Dnat,
        },
        snat_addresses: pool.snat_addresses.clone(),
        snat_ports: pool.snat_ports.clone(),
        retry: retry(pool),
        connect_timeout: pool.connect_timeout,
        services: services.collect(),
        backends: backends.collect(),
    }
}

/// With `before` hooks nobody else may get an attempt before they have run, whichever way it would go on.
fn retry(pool: &config::Pool) -> Retry {
    let holds = pool.has_steps();
    match pool.connect_retry {
        config::ConnectRetry::Off => Retry::Off,
        config::ConnectRetry::Instant | config::ConnectRetry::Retransmit if holds => Retry::Held,
        config::ConnectRetry::Instant => Retry::Instant,
        config::ConnectRetry::Retransmit => Retry::Repeated,
    }
}

/// What is to be done about clients that nobody answers, by service's slot. Where frames can't be put before the program
/// they are only told of.
pub(super) fn rescue_rules(parts: &Parts) -> BTreeMap<u16, Rule> {
    let pools = parts.config.pools.iter().zip(&parts.plan).zip(&parts.slots);
    let rules = pools.flat_map(|((pool, plan), slots)| {
        let rule = Rule {
            retry: if parts.can_feed { plan.retry } else { Retry::Off },
            connect_timeout: plan.connect_timeout,
            is_told: pool.passive != config::Passive::Off,
        };
        slots.services.iter().map(move |slot| (slot.index, rule))
    });
    rules.collect()
}

/// The program and the sizes of its tables.
pub(crate) fn wanted(config: &Config) -> Wanted {
    let mut listens = config.pools.iter().flat_map(|pool| &pool.services).map(|service| service.listen);
    Wanted {
        max_flows: config.gateway.max_flows,
        max_half_open: config.gateway.max_half_open,
        ipv4: listens.clone().any(|listen| listen.is_ipv4()),
        ipv6: listens.any(|listen| listen.is_ipv6()),
        frags: true,
    }
}

/// What the policy has to know.
pub(super) fn for_policy(config: &Config) -> Vec<PoolSettings> {
    config.pools.iter().map(pool_settings).collect()
}

fn pool_settings(pool: &config::Pool) -> PoolSettings {
    PoolSettings {
        name: pool.name.clone(),
        failover: match pool.failover {
            config::Failover::Auto => Failover::Auto,
            config::Failover::Manual => Failover::Manual,
        },
        failback: match pool.failback {
            config::Failback::Manual => Failback::Manual,
            config::Failback::Auto { delay } => Failback::Auto { delay },
        },
        when_all_down: match pool.when_all_down {
            config::WhenAllDown::Last => WhenAllDown::Last,
            config::WhenAllDown::Reject => WhenAllDown::Reject,
        },
        on_backend_down: match pool.on_backend_down {
            config::OnBackendDown::Reset => OnBackendDown::Reset,
            config::OnBackendDown::Keep => OnBackendDown::Keep,
        },
        passive: match pool.passive {
            config::Passive::Probe => Passive::Probe,
            config::Passive::Count => Passive::Count,
            config::Passive::Off => Passive::Off,
        },
        connect_timeout: pool.connect_timeout,
        start_timeout: pool.start_timeout,
        drain_deadline: pool.drain_deadline,
        hooks: pool.hooks.iter().map(hook_settings).collect(),
        services: pool.services.iter().map(service_settings).collect(),
        backends: pool.backends.iter().map(backend_settings).collect(),
    }
}

fn hook_settings(hook: &config::Hook) -> HookSettings {
    HookSettings {
        name: hook.name.clone(),
        when: match hook.when {
            config::HookWhen::Before => HookWhen::Before,
            config::HookWhen::After => HookWhen::After,
        },
        on_error: match hook.on_error {
            config::OnError::Hold => OnError::Hold,
            config::OnError::Continue => OnError::Continue,
        },
    }
}

fn service_settings(service: &config::Service) -> ServiceSettings {
    let probe = &service.probe;
    let schedule = ProbeSchedule {
        interval: probe.interval,
        fast_interval: probe.fast_interval,
        timeout: probe.timeout,
        rise: probe.rise,
    };
    let probe = match probe.check {
        Check::None => None,
        Check::Tcp | Check::Tls { .. } | Check::Https { .. } | Check::Http { .. } | Check::Exec { .. } => {
            Some(schedule)
        }
    };
    ServiceSettings { name: service.name.clone(), probe }
}

fn backend_settings(backend: &config::Backend) -> BackendSettings {
    BackendSettings {
        name: backend.name.clone(),
        max_fails: backend.max_fails,
        fail_timeout: backend.fail_timeout,
        fail_timeout_max: backend.fail_timeout_max,
        backup: backend.backup,
        cold: backend.cold,
        disabled: backend.disabled,
    }
}

/// The probers of a pool's services, in their order; `None` for those that aren't probed.
pub(super) fn probers(pool: &config::Pool) -> Result<Vec<Option<Prober>>, ProbeSetupError> {
    let prober = |service: &config::Service| {
        let timeout = service.probe.timeout;
        match &service.probe.check {
            Check::None => Ok(None),
            Check::Tcp => Ok(Some(Prober::tcp(timeout))),
            Check::Http { server_name, question } => {
                Ok(Some(Prober::http(http_settings(server_name, question), timeout)))
            }
            Check::Exec { run } => Ok(Some(Prober::exec(&pool.name, run.clone(), timeout))),
            Check::Tls { server_name, verify } => {
                Prober::tls(tls_settings(server_name, verify, timeout)).map(Some)
            }
            Check::Https { server_name, verify, question } => {
                let tls = tls_settings(server_name, verify, timeout);
                Prober::https(tls, http_settings(server_name, question)).map(Some)
            }
        }
    };
    pool.services.iter().map(prober).collect()
}

fn tls_settings(server_name: &Option<String>, verify: &config::Verify, timeout: Duration) -> TlsSettings {
    let verify = match verify {
        config::Verify::Off => Verify::Off,
        config::Verify::SystemRoots => Verify::SystemRoots,
        config::Verify::CaFile(path) => Verify::CaFile(path.clone()),
    };
    TlsSettings { server_name: server_name.clone(), verify, timeout }
}

fn http_settings(server_name: &Option<String>, question: &Question) -> HttpSettings {
    let Question { path, expect_status, expect_body } = question.clone();
    HttpSettings { host: server_name.clone(), path, expect_status, expect_body }
}

/// Where a service's probe of a backend goes.
pub(super) fn probe_target(service: &config::Service, backend: &config::Backend) -> SocketAddr {
    SocketAddr::new(backend.address, service.backend_port)
}

/// Which XDP modes may be used.
pub(super) fn mode_choice(config: &Config) -> ModeChoice {
    match config.gateway.xdp_mode {
        config::XdpMode::Auto => ModeChoice::Auto,
        config::XdpMode::Native => ModeChoice::Native,
        config::XdpMode::Generic => ModeChoice::Generic,
    }
}

/// The operator's wish as the mark that is kept with the active backend, so that a restart doesn't forget it.
pub(super) const fn mark(wish: Wish) -> u16 {
    match wish {
        Wish::Automatic => 0,
        Wish::Stay => 1,
        Wish::Forced => 2,
    }
}

/// The wish that a mark stands for.
pub(super) const fn wish(mark: u16) -> Wish {
    match mark {
        1 => Wish::Stay,
        2 => Wish::Forced,
        _ => Wish::Automatic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_its_mark() {
        for asked in [Wish::Automatic, Wish::Stay, Wish::Forced] {
            assert_eq!(wish(mark(asked)), asked);
        }
    }
}
