//! `check`: validates the configuration as a start would, and changes nothing.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{self, Forwarding, Parsed, Pool};
use crate::exit::{Exit, Failure, print, say};
use crate::resolver::Resolver;

use super::accepted::{Asking, checked};
use super::{memory, names};

/// How a configuration is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checking {
    /// Leave interfaces alone: this is not the gateway.
    pub no_resolve: bool,
    /// Tell in words what it comes to.
    pub explain: bool,
}

/// Prints what the configuration comes to, and its warnings; or fails with every error.
pub fn check(file: &Path, pin_dir: &Path, state_dir: &Path, how: Checking) -> Result<Exit, Failure> {
    let parsed = config::load(file);
    let defaults = parsed.as_ref().map(Parsed::defaults).unwrap_or_default();
    let known = names::remembered(parsed.as_ref().ok(), memory::earlier(state_dir).as_ref(), pin_dir);
    let resolver = Resolver::system();
    let names = (!how.no_resolve).then(|| Asking::at_a_start(&resolver, &known, pin_dir));
    let (config, _) = checked(parsed, pin_dir, names.as_ref())?;
    for warning in &config.warnings {
        say(&format!("{}:{}: warning: {}", file.display(), warning.line, warning.message));
    }
    let mut text = format!("{}: the configuration is valid\n", file.display());
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
    if how.explain {
        let _ = write!(text, "\n{}\n{defaults}", config::explain(&config));
    }
    print(&text)?;
    Ok(Exit::Ok)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How many flows the source ports allow: two flows to the same port of a backend differ in where they come from.
fn room(pool: &Pool) -> String {
    let ports: usize = pool.snat_ports.iter().map(ExactSizeIterator::len).sum();
    match pool.forwarding {
        Forwarding::Snat => {
            // None are written: the kernel's choice is one address.
            let addresses = pool.snat_addresses.len().max(1);
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
