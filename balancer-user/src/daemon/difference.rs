//! What is another way in a new configuration, in an operator's words: one line for each difference.
//!
//! Pure. Each table of the configuration is a list of keys and what they say; what differs is told by the key. A key that
//! is new there has to be added here: the destructuring patterns don't compile without.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{
    Backend, Check, Config, Failback, Gateway, Hook, Http, Pool, Probe, Question, Redirect, Service, Verify,
    shown_ranges,
};
use crate::program::CommandLine;

use super::kin::is_same_backend;

/// Keys and what they say.
type Keys = Vec<(&'static str, String)>;

/// Every difference; empty when there is none.
pub(super) fn difference(before: &Config, now: &Config) -> Vec<String> {
    let mut lines = changed("gateway", "", &gateway(&before.gateway), &gateway(&now.gateway));
    lines.extend(changed("http", "", &http(before.http.as_ref()), &http(now.http.as_ref())));
    if let (Some(before), Some(now)) = (&before.http, &now.http)
        && (before.token_file == now.token_file && before.token != now.token)
    {
        lines.push("http: the token in token_file is another one".to_owned());
    }
    for pool in &before.pools {
        if now.pools.iter().all(|known| known.name != pool.name) {
            lines.push(format!("pool {} removed", pool.name));
        }
    }
    for new in &now.pools {
        match before.pools.iter().find(|known| known.name == new.name) {
            Some(old) => of_pool(old, new, &mut lines),
            None => lines.push(format!(
                "pool {} added ({} services, {} backends)",
                new.name,
                new.services.len(),
                new.backends.len()
            )),
        }
    }
    if lines.is_empty() && order(&before.pools, |pool| &pool.name) != order(&now.pools, |pool| &pool.name) {
        lines.push("pools are listed in another order".to_owned());
    }
    lines
}

fn of_pool(old: &Pool, new: &Pool, lines: &mut Vec<String>) {
    let place = format!("pool {}", new.name);
    lines.extend(changed(&place, "", &pool(old), &pool(new)));
    members(
        &place,
        "service",
        (&old.services, &new.services),
        |service| &service.name,
        service_shown,
        service,
        lines,
    );
    members(
        &place,
        "backend",
        (&old.backends, &new.backends),
        |backend| &backend.name,
        backend_shown,
        backend,
        lines,
    );
    for moved in &new.backends {
        let earlier = old.backends.iter().find(|known| known.name == moved.name);
        let Some(earlier) = earlier.filter(|earlier| !is_same_backend(earlier, moved)) else { continue };
        if !earlier.is_settled() {
            lines.push(format!("{place}: address of {} is known now: {}", moved.name, moved.address));
        } else {
            lines.push(format!(
                "{place}: address of {} {} -> {}: a new backend, and the old one drains",
                moved.name, earlier.address, moved.address
            ));
        }
    }
    members(&place, "hook", (&old.hooks, &new.hooks), |hook| &hook.name, |_| String::new(), hook, lines);
}

/// What was added, removed, changed and moved among the members of a pool.
fn members<T>(
    place: &str,
    what: &str,
    (old, new): (&[T], &[T]),
    name: fn(&T) -> &str,
    shown: fn(&T) -> String,
    keys: fn(&T) -> Keys,
    lines: &mut Vec<String>,
) {
    let find = |all: &'_ [T], wanted: &str| all.iter().position(|one| name(one) == wanted);
    for gone in old.iter().filter(|one| find(new, name(one)).is_none()) {
        lines.push(format!("{place}: {what} {} removed{}", name(gone), shown(gone)));
    }
    for one in new {
        match find(old, name(one)) {
            Some(at) => {
                let of =
                    if what == "backend" { name(one).to_owned() } else { format!("{what} {}", name(one)) };
                lines.extend(changed(place, &format!(" of {of}"), &keys(&old[at]), &keys(one)));
            }
            None => lines.push(format!("{place}: {what} {} added{}", name(one), shown(one))),
        }
    }
    let kept = |all: &[T], other: &[T]| -> Vec<String> {
        all.iter().map(|one| name(one).to_owned()).filter(|one| find(other, one).is_some()).collect()
    };
    let (before, now) = (kept(old, new), kept(new, old));
    if before != now {
        lines.push(format!("{place}: {what}s in another order: {}", now.join(", ")));
    }
}

fn changed(place: &str, of: &str, before: &Keys, now: &Keys) -> Vec<String> {
    let pairs = now.iter().map(|(key, now)| {
        let before = before.iter().find(|(known, _)| known == key).map_or("-", |(_, before)| before.as_str());
        (*key, before, now.as_str())
    });
    let gone = before.iter().filter(|(key, _)| now.iter().all(|(known, _)| known != key));
    let gone = gone.map(|(key, before)| (*key, before.as_str(), "-"));
    let differ = pairs.chain(gone).filter(|(_, before, now)| before != now);
    differ.map(|(key, before, now)| format!("{place}: {key}{of} {before} -> {now}")).collect()
}

fn order<T>(all: &[T], name: fn(&T) -> &String) -> Vec<&String> {
    all.iter().map(name).collect()
}

fn gateway(gateway: &Gateway) -> Keys {
    let Gateway { interfaces, xdp_mode, max_flows, max_half_open, idle_timeout, notify } = gateway;
    vec![
        ("interfaces", listed(interfaces)),
        ("xdp_mode", word(xdp_mode)),
        ("max_flows", max_flows.to_string()),
        ("max_half_open", max_half_open.to_string()),
        ("idle_timeout", span(*idle_timeout)),
        ("notify", notify.as_ref().map_or("none".to_owned(), command)),
    ]
}

/// That a token is another one is told without it (`kin`).
fn http(http: Option<&Http>) -> Keys {
    let Some(Http { listen, token_file, token: _ }) = http else { return Keys::new() };
    let token_file = token_file.as_ref().map_or("none".to_owned(), |path| path.display().to_string());
    vec![("listen", listen.to_string()), ("token_file", token_file)]
}

fn pool(pool: &Pool) -> Keys {
    let Pool {
        name: _,
        forwarding,
        failover,
        failback,
        when_all_down,
        on_backend_down,
        passive,
        connect_retry,
        connect_timeout,
        drain_deadline,
        start_timeout,
        snat_addresses,
        snat_ports,
        services: _,
        backends: _,
        hooks: _,
    } = pool;
    let (failback, delay) = match failback {
        Failback::Manual => ("manual", Duration::ZERO),
        Failback::Auto { delay } => ("auto", *delay),
    };
    vec![
        ("forwarding", word(forwarding)),
        ("failover", word(failover)),
        ("failback", failback.to_owned()),
        ("failback_delay", span(delay)),
        ("when_all_down", word(when_all_down)),
        ("on_backend_down", word(on_backend_down)),
        ("passive", word(passive)),
        ("connect_retry", word(connect_retry)),
        ("connect_timeout", span(*connect_timeout)),
        ("drain_deadline", span(*drain_deadline)),
        ("start_timeout", span(*start_timeout)),
        ("snat_addresses", addresses(snat_addresses)),
        ("usable snat_ports", shown_ranges(snat_ports)),
    ]
}

fn service(service: &Service) -> Keys {
    let Service { name: _, listen, backend_port, redirect, probe } = service;
    let mut keys = vec![("listen", listen.to_string()), ("backend_port", backend_port.to_string())];
    if let Some(Redirect { listen, hosts }) = redirect {
        keys.extend([("redirect_http", listen.to_string()), ("redirect_hosts", hosts.join(", "))]);
    }
    keys.extend(self::probe(probe));
    keys
}

fn service_shown(service: &Service) -> String {
    format!(" ({} to port {})", service.listen, service.backend_port)
}

fn probe(probe: &Probe) -> Keys {
    let Probe { check, interval, fast_interval, timeout, rise } = probe;
    let mut keys = vec![
        ("probe interval", span(*interval)),
        ("probe fast_interval", span(*fast_interval)),
        ("probe timeout", span(*timeout)),
        ("probe rise", rise.to_string()),
    ];
    let kind = match check {
        Check::Tls { server_name, verify } => {
            keys.extend(tls(server_name.as_deref(), verify));
            "tls"
        }
        Check::Https { server_name, verify, question } => {
            keys.extend(tls(server_name.as_deref(), verify));
            keys.extend(self::question(question));
            "https"
        }
        Check::Http { server_name, question } => {
            keys.push(named(server_name.as_deref()));
            keys.extend(self::question(question));
            "http"
        }
        Check::Exec { run } => {
            keys.push(("probe run", command(run)));
            "exec"
        }
        Check::Tcp => "tcp",
        Check::None => "none",
    };
    keys.push(("probe kind", kind.to_owned()));
    keys
}

fn tls(server_name: Option<&str>, verify: &Verify) -> Keys {
    let verify = match verify {
        Verify::Off => "off".to_owned(),
        Verify::SystemRoots => "the system's roots".to_owned(),
        Verify::CaFile(path) => path.display().to_string(),
    };
    vec![named(server_name), ("probe trust", verify)]
}

fn named(server_name: Option<&str>) -> (&'static str, String) {
    ("probe server_name", server_name.unwrap_or("none").to_owned())
}

fn question(question: &Question) -> Keys {
    let Question { path, expect_status, expect_body } = question;
    vec![
        ("probe path", path.to_string()),
        ("probe expect_status", shown_ranges(expect_status)),
        ("probe expect_body", format!("{expect_body:?}")),
    ]
}

fn backend(backend: &Backend) -> Keys {
    // Another address is another backend: told apart.
    let Backend {
        name: _,
        address: _,
        host,
        max_fails,
        fail_timeout,
        fail_timeout_max,
        backup,
        cold,
        disabled,
    } = backend;
    vec![
        ("host name", host.clone().unwrap_or_else(|| "none".to_owned())),
        ("max_fails", max_fails.to_string()),
        ("fail_timeout", span(*fail_timeout)),
        ("fail_timeout_max", span(*fail_timeout_max)),
        ("backup", backup.to_string()),
        ("cold", cold.to_string()),
        ("disabled", disabled.to_string()),
    ]
}

fn backend_shown(backend: &Backend) -> String {
    format!(" ({})", backend.address)
}

fn hook(hook: &Hook) -> Keys {
    let Hook { name: _, when, run, timeout, on_error } = hook;
    vec![
        ("when", when.token().to_owned()),
        ("run", command(run)),
        ("timeout", span(*timeout)),
        ("on_error", word(on_error)),
    ]
}

/// The words of the configuration are its enums' variants in small letters.
fn word(value: &impl Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn span(span: Duration) -> String {
    format!("{span:?}")
}

fn listed(names: &[String]) -> String {
    names.join(", ")
}

fn addresses(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "the kernel's choice".to_owned();
    }
    listed(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn command(command: &CommandLine) -> String {
    let program = command.program.display().to_string();
    let words = std::iter::once(&program).chain(&command.arguments);
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConnectRetry, OnError, Token, WhenAllDown};
    use crate::daemon::example::{BASE, config, replaced};

    /// What differs after these replacements.
    fn after(changes: &[(&str, &str)]) -> Vec<String> {
        difference(&config(BASE), &replaced(changes))
    }

    /// What is replaced, and what is told of it.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

    #[test]
    fn each_difference_is_a_line_in_an_operators_words() {
        const SERVER2: &str = "[[pool.backend]]\nname = \"server2\"\naddress = \"10.0.2.12\"\n";
        let server3 = format!("{SERVER2}[[pool.backend]]\nname = \"server3\"\naddress = \"10.0.2.13\"\n");
        let cases: [Case<'_>; 10] = [
            (&[], &[]),
            (
                &[("interfaces = [\"wan0\"", "interfaces = [\"wan1\"")],
                &["gateway: interfaces wan0, lan0 -> wan1, lan0"],
            ),
            (&[(SERVER2, &server3)], &["pool passwords: backend server3 added (10.0.2.13)"]),
            (&[(SERVER2, "")], &["pool passwords: backend server2 removed (10.0.2.12)"]),
            (
                &[("address = \"10.0.2.11\"", "address = \"10.0.2.11\"\nmax_fails = 5\nbackup = true")],
                &[
                    "pool passwords: max_fails of server1 1 -> 5",
                    "pool passwords: backup of server1 false -> true",
                ],
            ),
            (
                &[("10.0.2.12", "10.0.2.99")],
                &[
                    "pool passwords: address of server2 10.0.2.12 -> 10.0.2.99: a new backend, and the old one drains",
                ],
            ),
            (
                &[("10001", "10002"), ("kind = \"tcp\"", "kind = \"http\"\npath = \"/x\"")],
                &[
                    "pool passwords: backend_port of service web 10001 -> 10002",
                    "pool passwords: probe server_name of service web - -> none",
                    "pool passwords: probe path of service web - -> /x",
                    "pool passwords: probe expect_status of service web - -> 200-399",
                    "pool passwords: probe expect_body of service web - -> \"\"",
                    "pool passwords: probe kind of service web tcp -> http",
                ],
            ),
            (
                &[
                    ("\"server1\"", "\"x\""),
                    ("\"server2\"", "\"server1\""),
                    ("\"x\"", "\"server2\""),
                    ("10.0.2.11", "10.0.2.13"),
                    ("10.0.2.12", "10.0.2.11"),
                    ("10.0.2.13", "10.0.2.12"),
                ],
                &["pool passwords: backends in another order: server2, server1"],
            ),
            (
                &[("name = \"passwords\"", "name = \"mails\"")],
                &["pool passwords removed", "pool mails added (1 services, 2 backends)"],
            ),
            (
                &[(
                    "name = \"passwords\"",
                    "name = \"passwords\"\nforwarding = \"dnat\"\ndrain_deadline = \"1m\"",
                )],
                &["pool passwords: forwarding snat -> dnat", "pool passwords: drain_deadline 600s -> 60s"],
            ),
        ];
        for (replaced, lines) in cases {
            assert_eq!(after(replaced), lines, "{replaced:?}");
        }
    }

    #[test]
    fn that_a_token_is_another_one_is_told_without_it() {
        let with = |token: &[u8]| {
            let (listen, token_file) = (([127, 0, 0, 1], 9464).into(), Some("/token".into()));
            let http = Some(Http { listen, token_file, token: Some(Token::of(token)) });
            Config { http, ..config(BASE) }
        };
        assert_eq!(
            difference(&with(b"one"), &with(b"two")),
            ["http: the token in token_file is another one"]
        );
    }

    #[test]
    fn a_key_of_several_words_is_told_as_it_is_written() {
        assert_eq!(word(&OnError::Continue), "continue");
        assert_eq!(word(&ConnectRetry::Retransmit), "retransmit");
        assert_eq!(word(&WhenAllDown::Reject), "reject");
    }
}
