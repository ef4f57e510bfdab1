//! What a configuration comes to, in short sentences for people (`check --explain`).
//!
//! Each sentence is true of every value of the keys that it is about; a test asks for a difference in the text for each key.
//! Deliberately not here: what is the case now. That is `status`.

mod attempts;
mod hooks;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;

use super::keys::{self, Otherwise};
use super::notes::LeftOut;
use super::{
    Backend, Config, Failback, Failover, Forwarding, Gateway, OnBackendDown, Pool, Service, WhenAllDown,
    XdpMode, ranges,
};
use crate::duration::Shown;
use crate::program::CommandLine;

/// Lines, each with its depth.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn line(&mut self, depth: usize, line: impl Display) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(&line.to_string());
        self.0.push('\n');
    }
}

/// Of a configuration that was held against the machine.
#[must_use]
pub fn explain(config: &Config) -> String {
    let mut text = Text::default();
    text.line(0, "gateway");
    gateway(&config.gateway, &mut text);
    if let Some(http) = &config.http {
        text.line(
            1,
            format!("The dashboard is at http://{}/, metrics are at http://{0}/metrics.", http.listen),
        );
        let token = http.token_file.as_ref();
        let may =
            token.map(|file| format!("Who knows the token in {} may act on the dashboard.", file.display()));
        text.line(1, may.as_deref().unwrap_or("The dashboard only shows."));
    }
    for pool in &config.pools {
        text.line(0, "");
        text.line(0, format!("pool {}", pool.name));
        self::pool(pool, &mut text);
    }
    text.0
}

/// What was left out, by table, and what holds instead.
pub(super) fn defaults(left_out: &[LeftOut]) -> String {
    let mut tables: BTreeMap<(usize, &str), Vec<String>> = BTreeMap::new();
    for LeftOut { line, key } in left_out {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let said = match keys::find(key).map(|key| key.default) {
            Some(Otherwise::Value(value)) => format!("{name} = {value}"),
            Some(Otherwise::Words(words)) => format!("{name}: {words}"),
            Some(Otherwise::Required) | None => continue,
        };
        tables.entry((*line, table)).or_default().push(said);
    }
    let mut text = Text::default();
    text.line(0, "not written, and so as it is by default");
    for ((line, table), said) in tables {
        let table = match table {
            "" => "the file".to_owned(),
            "pool.service.probe" => format!("the probe of the service in line {line}"),
            table => format!("{table} in line {line}"),
        };
        text.line(1, format!("{table}: {}", said.join(", ")));
    }
    text.0
}

fn gateway(gateway: &Gateway, text: &mut Text) {
    let mode = match gateway.xdp_mode {
        XdpMode::Auto => "in the driver, or behind it, with a warning, where the driver can't",
        XdpMode::Native => "in the driver; where that can't be, it is not attached",
        XdpMode::Generic => "behind the driver, in the kernel's network stack",
    };
    text.line(1, format!("XDP is attached to {}: {mode}.", all(&gateway.interfaces, "and")));
    text.line(
        1,
        format!(
            "At most {} flows stand at once, and {} handshakes beside them. A flow without a packet for {} is forgotten.",
            gateway.max_flows,
            gateway.max_half_open,
            Shown(gateway.idle_timeout)
        ),
    );
    match &gateway.notify {
        Some(notify) => {
            text.line(1, format!("{} is run for every event that wants a person.", command(notify)))
        }
        None => text.line(1, "Nothing is run for events that want a person."),
    }
}

fn pool(pool: &Pool, text: &mut Text) {
    text.line(1, "Clients reach");
    for Service { name, listen, backend_port, redirect, .. } in &pool.services {
        text.line(
            2,
            format!("{listen} ({name}), which goes to port {backend_port} of the backend that serves."),
        );
        if let Some(redirect) = redirect {
            let hosts = all(&redirect.hosts, "or");
            text.line(2, format!("Plain HTTP at {} is sent on to there, at {hosts}.", redirect.listen));
        }
    }
    text.line(1, whose_address(pool));
    backends(pool, text);
    for service in &pool.services {
        text.line(1, probe::sentences(service, pool));
    }
    change(pool, text);
    attempts::explain(pool, text);
    hooks::explain(pool, text);
}

fn whose_address(pool: &Pool) -> String {
    let ports = ranges::shown(&pool.snat_ports);
    match pool.forwarding {
        Forwarding::Snat if pool.snat_addresses.is_empty() => format!(
            "Backends see this gateway's address, the one that the kernel would use towards them, and ports {ports}."
        ),
        Forwarding::Snat => {
            format!(
                "Backends see this gateway's address {}, and ports {ports}.",
                all(&pool.snat_addresses, "or")
            )
        }
        Forwarding::Dnat => format!(
            "Backends see the clients' addresses, and their way back must lead through this gateway. Where two flows of a \
             client would be the same to a backend, one of them comes from a port of {ports}."
        ),
    }
}

/// Those without `backup` first, each group as it is written.
fn backends(pool: &Pool, text: &mut Text) {
    text.line(1, "The backends, in their order:");
    let mut ordered: Vec<&Backend> = pool.backends.iter().filter(|backend| !backend.disabled).collect();
    ordered.sort_by_key(|backend| backend.backup);
    for (place, backend) in ordered.into_iter().enumerate() {
        let (name, whereabouts) = (&backend.name, whereabouts(backend));
        let backup = if backend.backup { " (backup)" } else { "" };
        text.line(2, format!("{}. {name}{backup} at {whereabouts}: {}", place + 1, falls(backend)));
        if backend.cold {
            text.line(
                3,
                format!(
                    "It is cold: not probed while it stands by, and taken to be ready. {} it has {} to come up.",
                    if pool.has_steps() {
                        "Once the `before` hooks have run"
                    } else {
                        "When new flows are to go there"
                    },
                    Shown(pool.start_timeout)
                ),
            );
        }
    }
    for backend in pool.backends.iter().filter(|backend| backend.disabled) {
        let (name, whereabouts) = (&backend.name, whereabouts(backend));
        text.line(2, format!("-  {name} at {whereabouts} is disabled: it never serves."));
    }
}

/// Its address, or its name as long as nobody knows where that leads.
fn whereabouts(backend: &Backend) -> String {
    let host = backend.host.as_ref().filter(|_| !backend.is_settled());
    host.map_or_else(|| backend.address.to_string(), Clone::clone)
}

/// When it counts as down, and for how long.
fn falls(backend: &Backend) -> String {
    let window = Shown(backend.fail_timeout);
    let mut text = match backend.max_fails {
        0 => return "no number of failures makes it down.".to_owned(),
        1 => format!("one failure, and it is down for {window}."),
        fails => format!("{fails} failures within {window}, and it is down for {window}."),
    };
    if backend.fail_timeout_max > backend.fail_timeout {
        text.push_str(&format!(
            " Down again soon after it came up: twice as long each time, up to {}.",
            Shown(backend.fail_timeout_max)
        ));
    }
    text
}

/// Where the pool goes, and what becomes of flows.
fn change(pool: &Pool, text: &mut Text) {
    let name = &pool.name;
    text.line(
        1,
        match pool.failover {
            Failover::Auto => {
                "When the backend that serves is down, new flows go to the first in that order that is up.".to_owned()
            }
            Failover::Manual => format!(
                "When the backend that serves is down, the pool stays there and asks the operator: `balancer failover {name}`."
            ),
        },
    );
    text.line(
        1,
        match pool.failback {
            Failback::Manual => format!("It goes back to an earlier one only by `balancer failback {name}`."),
            Failback::Auto { delay } if delay.is_zero() => {
                "It goes back by itself to the first in order, as soon as that is up.".to_owned()
            }
            Failback::Auto { delay } => format!(
                "It goes back by itself to the first in order, once that was up for {} without interruption.",
                Shown(delay)
            ),
        },
    );
    text.line(
        1,
        match pool.on_backend_down {
            OnBackendDown::Reset => {
                "Flows of the backend that failed are reset once the pool has moved away, and their clients connect anew."
            }
            OnBackendDown::Keep => "Flows of the backend that failed are left alone.",
        },
    );
    text.line(
        1,
        match pool.when_all_down {
            WhenAllDown::Last => "When nobody is up, new flows still go to the last that served.",
            WhenAllDown::Reject => "When nobody is up, new flows are refused with RST.",
        },
    );
    text.line(
        1,
        format!(
            "`balancer drain` leaves flows {} to end, unless it says otherwise.",
            Shown(pool.drain_deadline)
        ),
    );
}

fn command(command: &CommandLine) -> String {
    let words = command.arguments.iter().map(|argument| argument.escape_debug().to_string());
    let words = std::iter::once(command.program.display().to_string()).chain(words);
    format!("`{}`", words.collect::<Vec<_>>().join(" "))
}

/// `a`, `a and b`, `a, b and c`.
fn all<T: Display>(things: &[T], last: &str) -> String {
    let things: Vec<String> = things.iter().map(ToString::to_string).collect();
    match things.split_last() {
        Some((end, others)) if !others.is_empty() => format!("{} {last} {end}", others.join(", ")),
        _ => things.concat(),
    }
}
