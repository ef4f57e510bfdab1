//! `check`: validates the configuration as a start would, and changes nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use crate::config::{self, Config, ConfigErrors, Forwarding, Parsed, Pool};
use crate::control::protocol::{Checked, CheckedPool, CheckedSchema, Remark, Severity};
use crate::exit::Failure;
use crate::resolver::Resolver;

use super::accepted::{Asking, Unfit, checked};
use super::{names, plan};

/// How a configuration is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checking {
    /// Leave interfaces alone: this is not the gateway.
    pub no_resolve: bool,
    /// Tell in words what it comes to.
    pub explain: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// For programs.
    pub found: Checked,
    /// For people: what a valid configuration comes to, or every error of another one.
    pub words: String,
}

/// Looks at the configuration.
///
/// # Errors
/// When the machine can't be looked at.
pub fn check(file: &Path, pin_dir: &Path, state_dir: &Path, how: Checking) -> Result<Checkup, Failure> {
    let parsed = config::load(file);
    let defaults = parsed.as_ref().map(Parsed::defaults).unwrap_or_default();
    let known = names::last_good(parsed.as_ref().ok(), state_dir, pin_dir);
    let resolver = Resolver::system();
    let names = (!how.no_resolve).then(|| Asking::at_a_start(&resolver, &known, pin_dir));
    let found = |findings, more, pools: Option<_>| Checked {
        schema: CheckedSchema::V1,
        as_of: SystemTime::now().into(),
        valid: pools.is_some(),
        findings,
        more,
        pools: pools.unwrap_or_default(),
    };
    let file = file.display().to_string();
    match checked(parsed, pin_dir, names.as_ref()) {
        Ok((config, _))
            if !how.no_resolve
                && let Some(problem) = no_probers(&config) =>
        {
            let remark = Remark {
                file: file.clone(),
                line: None,
                column: None,
                severity: Severity::Error,
                key: Some("pool.probe".to_owned()),
                message: problem.clone(),
                help: None,
            };
            Ok(Checkup {
                found: found(vec![remark], 0, None),
                words: format!("{file}: pool.probe: {problem}\n"),
            })
        }
        Ok((config, _)) => {
            let mut words = words(&file, &config);
            if how.explain {
                let _ = write!(words, "\n{}\n{defaults}", config::explain(&config));
            }
            let pools = config.pools.iter().map(counts).collect();
            Ok(Checkup { found: found(warnings(&file, &config), 0, Some(pools)), words })
        }
        Err(Unfit::Invalid(errors)) => {
            let remarks = remarks(&file, &errors);
            let more = number(errors.count() - remarks.len());
            Ok(Checkup { found: found(remarks, more, None), words: errors.render(false) })
        }
        Err(Unfit::Unseen(failure)) => Err(failure),
    }
}

/// Why its probes can't be made on this machine.
fn no_probers(config: &Config) -> Option<String> {
    config.pools.iter().find_map(|pool| plan::probers(pool).err()).map(|problem| problem.to_string())
}

fn warnings(file: &str, config: &Config) -> Vec<Remark> {
    let warning = |warning: &config::Warning| Remark {
        file: file.to_owned(),
        line: Some(number(warning.line)),
        column: Some(number(warning.column)),
        severity: Severity::Warning,
        key: None,
        message: warning.message.clone(),
        help: None,
    };
    config.warnings.iter().map(warning).collect()
}

fn remarks(file: &str, errors: &ConfigErrors) -> Vec<Remark> {
    let remark = |error: &config::ConfigError| Remark {
        file: file.to_owned(),
        line: error.position().map(|(line, _)| number(line)),
        column: error.position().map(|(_, column)| number(column)),
        severity: Severity::Error,
        key: Some(error.key().to_owned()).filter(|key| !key.is_empty()),
        message: error.message().to_owned(),
        help: Some(error.instead().to_owned()),
    };
    errors.errors().iter().map(remark).collect()
}

fn counts(pool: &Pool) -> CheckedPool {
    CheckedPool {
        name: pool.name.clone(),
        services: number(pool.services.len()),
        backends: number(pool.backends.len()),
        ports: number(ports(pool)),
        source_addresses: match pool.forwarding {
            Forwarding::Snat => Some(number(source_addresses(pool))),
            Forwarding::Dnat => None,
        },
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn words(file: &str, config: &Config) -> String {
    let mut text = format!("{file}: the configuration is valid\n");
    for pool in &config.pools {
        let _ = writeln!(
            text,
            "pool {}: {}, {}; {}",
            pool.name,
            counted(pool.services.len(), "service"),
            counted(pool.backends.len(), "backend"),
            room(pool),
        );
    }
    text
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn ports(pool: &Pool) -> usize {
    pool.snat_ports.iter().map(ExactSizeIterator::len).sum()
}

/// None are written: the kernel's choice is one address.
fn source_addresses(pool: &Pool) -> usize {
    pool.snat_addresses.len().max(1)
}

/// How many flows the source ports allow: two flows to the same port of a backend differ in where they come from.
fn room(pool: &Pool) -> String {
    let ports = ports(pool);
    match pool.forwarding {
        Forwarding::Snat => {
            let addresses = source_addresses(pool);
            format!(
                "{ports} SNAT ports on {addresses} source address{}, so at most {} flows at once to each port of a \
                 backend",
                if addresses == 1 { "" } else { "es" },
                ports * addresses,
            )
        }
        Forwarding::Dnat => format!(
            "backends see the clients' addresses and ports; {ports} other ports for a client's flows that would be the \
             same to a backend, so at most {ports} of those at once from each client to each port of a backend"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::{ConnectRetry, Failback, Failover, OnBackendDown, Passive, WhenAllDown};

    fn pool(forwarding: Forwarding, snat_addresses: &[IpAddr]) -> Pool {
        Pool {
            name: "p".into(),
            forwarding,
            failover: Failover::Auto,
            failback: Failback::Manual,
            when_all_down: WhenAllDown::Last,
            on_backend_down: OnBackendDown::Reset,
            passive: Passive::Probe,
            connect_retry: ConnectRetry::Instant,
            connect_timeout: Duration::from_millis(300),
            drain_deadline: Duration::from_secs(600),
            start_timeout: Duration::from_secs(60),
            snat_addresses: snat_addresses.to_vec(),
            snat_ports: vec![1024..=1033, 61000..=61000],
            services: vec![],
            backends: vec![],
            hooks: vec![],
        }
    }

    #[test]
    fn each_source_address_has_all_ports() {
        let addresses = [[10, 0, 2, 1], [10, 0, 2, 2]].map(IpAddr::from);
        for (addresses, words) in [
            (&addresses[..0], "11 SNAT ports on 1 source address, so at most 11 flows at once"),
            (&addresses[..1], "11 SNAT ports on 1 source address, so at most 11 flows at once"),
            (&addresses[..], "11 SNAT ports on 2 source addresses, so at most 22 flows at once"),
        ] {
            let said = room(&pool(Forwarding::Snat, addresses));
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn in_dnat_ports_bound_only_what_would_be_the_same() {
        let said = room(&pool(Forwarding::Dnat, &[]));
        assert!(said.contains("11 of those at once from each client"), "{said}");
    }
}
