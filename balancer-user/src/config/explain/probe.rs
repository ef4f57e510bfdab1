//! How one service is probed, and how a backend comes back by that.

use super::super::{Check, Failback, Passive, Pool, Probe, Question, Service, Verify, ranges};
use super::command;
use crate::duration::Shown;

pub(super) fn sentences(service: &Service, pool: &Pool) -> String {
    let Service { name, probe, .. } = service;
    let Probe { check, interval, fast_interval, timeout, rise } = probe;
    let Some(how) = how(check) else { return format!("{name} is not probed. {}", unprobed(pool)) };
    let back = match rise {
        1 => "One good probe then, and it is up again".to_owned(),
        rise => format!("{rise} good probes then, and it is up again"),
    };
    format!(
        "{name} is probed every {} {how}; more than {} is a failure. After a failure, and once a time down is over, it is \
         probed every {}. {back}; one that fails then, and it is down once more.",
        Shown(*interval),
        Shown(*timeout),
        Shown(*fast_interval)
    )
}

/// `None`: not at all.
fn how(check: &Check) -> Option<String> {
    Some(match check {
        Check::Tls { server_name, verify } => {
            format!("by a TLS handshake{}", tls(server_name.as_deref(), verify))
        }
        Check::Https { server_name, verify, question } => {
            format!("over TLS{} by {}", tls(server_name.as_deref(), verify), asked(question))
        }
        Check::Http { server_name, question } => {
            format!("without TLS{} by {}", named(server_name.as_deref()), asked(question))
        }
        Check::Tcp => "by a TCP connection".to_owned(),
        Check::Exec { run } => format!("by {}, which must exit with 0", command(run)),
        Check::None => return None,
    })
}

fn tls(server_name: Option<&str>, verify: &Verify) -> String {
    let name = named(server_name);
    match verify {
        Verify::Off => format!("{name}, with any certificate"),
        Verify::SystemRoots => format!("{name}, with a certificate that the system's roots vouch for"),
        Verify::CaFile(file) => format!("{name}, with a certificate that {} vouches for", file.display()),
    }
}

fn named(server_name: Option<&str>) -> String {
    server_name.map(|name| format!(" for {name}")).unwrap_or_default()
}

fn asked(Question { path, expect_status, expect_body }: &Question) -> String {
    let body = if expect_body.is_empty() {
        String::new()
    } else {
        format!(" and a body with \"{}\"", expect_body.escape_debug())
    };
    format!("GET {path}, which must be answered with {}{body}", ranges::shown(expect_status))
}

/// What tells of failures instead, and what becomes of a backend whose time down is over.
fn unprobed(pool: &Pool) -> String {
    if pool.passive != Passive::Count {
        return "Nothing tells that a backend fails there.".to_owned();
    }
    let back = match pool.failback {
        Failback::Auto { .. } if !pool.has_steps() => {
            "a backend is then on trial, with one connection at a time"
        }
        Failback::Auto { .. } | Failback::Manual => {
            "nothing is known of a backend then, and the pool does not go back to it by itself"
        }
    };
    format!(
        "Only clients' own connections tell that a backend fails there. Once its time down is over, {back}."
    )
}
