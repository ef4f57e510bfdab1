//! One configuration, three readers: what the data plane, the policy and the probers each have to know of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{self, Check, Config};
use crate::dataplane::DataplaneError;
use crate::dataplane::attach::ModeChoice;
use crate::dataplane::slots::{BackendPlan, PoolPlan, ServicePlan};
use crate::policy::{BackendSettings, Failback, PoolSettings, ProbeSchedule, ServiceSettings, Wish};
use crate::probe::{ProbeSetupError, Prober, TlsSettings, Verify};

/// What the data plane has to know.
pub(super) fn for_dataplane(config: &Config) -> Result<Vec<PoolPlan>, DataplaneError> {
    config.pools.iter().map(pool_plan).collect()
}

fn pool_plan(pool: &config::Pool) -> Result<PoolPlan, DataplaneError> {
    if pool.forwarding == config::Forwarding::Dnat {
        return Err(DataplaneError::NotCarriedOut("forwarding = \"dnat\""));
    }
    if !pool.snat_addresses.is_empty() {
        return Err(DataplaneError::NotCarriedOut("snat_addresses"));
    }
    let services = pool.services.iter().map(|service| {
        let SocketAddr::V4(listen) = service.listen else { return Err(no_ipv6()) };
        Ok(ServicePlan { name: service.name.clone(), listen, backend_port: service.backend_port })
    });
    let backends = pool
        .backends
        .iter()
        .map(|backend| Ok(BackendPlan { name: backend.name.clone(), address: ipv4(backend.address)? }));
    Ok(PoolPlan {
        name: pool.name.clone(),
        snat_ports: pool.snat_ports.clone(),
        services: services.collect::<Result<_, _>>()?,
        backends: backends.collect::<Result<_, _>>()?,
    })
}

/// What the tables take so far.
pub(super) fn ipv4(address: IpAddr) -> Result<Ipv4Addr, DataplaneError> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(no_ipv6()),
    }
}

fn no_ipv6() -> DataplaneError {
    DataplaneError::NotCarriedOut("IPv6")
}

/// What the policy has to know.
pub(super) fn for_policy(config: &Config) -> Vec<PoolSettings> {
    config
        .pools
        .iter()
        .map(|pool| PoolSettings {
            name: pool.name.clone(),
            failback: match pool.failback {
                config::Failback::Manual => Failback::Manual,
                config::Failback::Auto { delay } => Failback::Auto { delay },
            },
            services: pool.services.iter().map(service_settings).collect(),
            backends: pool.backends.iter().map(backend_settings).collect(),
        })
        .collect()
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
        Check::Tcp | Check::Tls { .. } => Some(schedule),
    };
    ServiceSettings { name: service.name.clone(), probe }
}

fn backend_settings(backend: &config::Backend) -> BackendSettings {
    BackendSettings {
        name: backend.name.clone(),
        max_fails: backend.max_fails,
        fail_timeout: backend.fail_timeout,
        backup: backend.backup,
        disabled: backend.disabled,
    }
}

/// The probers of a pool's services, in their order; `None` for those that aren't probed.
pub(super) fn probers(pool: &config::Pool) -> Result<Vec<Option<Prober>>, ProbeSetupError> {
    let prober = |service: &config::Service| match &service.probe.check {
        Check::None => Ok(None),
        Check::Tcp => Ok(Some(Prober::tcp(service.probe.timeout))),
        Check::Tls { server_name, verify } => Prober::tls(TlsSettings {
            server_name: server_name.clone(),
            verify: match verify {
                config::Verify::Off => Verify::Off,
                config::Verify::SystemRoots => Verify::SystemRoots,
                config::Verify::CaFile(path) => Verify::CaFile(path.clone()),
            },
            timeout: service.probe.timeout,
        })
        .map(Some),
    };
    pool.services.iter().map(prober).collect()
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
