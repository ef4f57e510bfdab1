//! What comes out of configurations without errors.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;

use super::super::{
    Backend, Check, Config, ConnectRetry, Failback, Failover, Forwarding, Gateway, Hook, HookWhen,
    OnBackendDown, OnError, Passive, Pool, Probe, Question, Redirect, Service, Verify, WhenAllDown, XdpMode,
};
use super::*;
use crate::program::CommandLine;

/// The contract's example, less what isn't supported yet.
const EXAMPLE: &str = r#"
[gateway]
interfaces = ["wan0", "lan0"]
xdp_mode = "auto"
max_flows = 262144
max_half_open = 65536
idle_timeout = "2h5m"

[[pool]]
name = "passwords"
forwarding = "snat"
failover = "auto"
failback = "manual"
failback_delay = "0s"
on_backend_down = "keep"
when_all_down = "last"
passive = "off"
connect_retry = "off"
snat_addresses = []
snat_ports = "1024-32767,61000-65535"

[[pool.service]]
name = "web"
listen = "203.0.113.10:443"
backend_port = 10001
redirect_http = "203.0.113.10:80"
redirect_hosts = []

[pool.service.probe]
kind = "tls"
interval = "2s"
fast_interval = "500ms"
timeout = "1s"
rise = 1
server_name = "pw.example.org"
ca_file = "/etc/balancer/ca.pem"
verify = true

[[pool.backend]]
name = "server1"
address = "10.0.2.11"
max_fails = 1
fail_timeout = "10s"
fail_timeout_max = "10s"
backup = false
cold = false
disabled = false
"#;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config(text: &str) -> Config {
    accepted(text).config
}

fn probe_of(text: &str) -> Probe {
    config(text).pools.swap_remove(0).services.swap_remove(0).probe
}

#[test]
fn the_example_of_the_contract_comes_through() {
    let probe = Probe {
        check: Check::Tls {
            server_name: Some("pw.example.org".into()),
            verify: Verify::CaFile(PathBuf::from("/etc/balancer/ca.pem")),
        },
        interval: secs(2),
        fast_interval: Duration::from_millis(500),
        timeout: secs(1),
        rise: 1,
    };
    let redirect = Redirect {
        listen: SocketAddr::from(([203, 0, 113, 10], 80)),
        hosts: vec!["pw.example.org".into(), "203.0.113.10".into()],
    };
    let service = Service {
        name: "web".into(),
        listen: SocketAddr::from(([203, 0, 113, 10], 443)),
        backend_port: 10001,
        redirect: Some(redirect),
        probe,
    };
    let backend = Backend {
        name: "server1".into(),
        address: IpAddr::from([10, 0, 2, 11]),
        host: None,
        max_fails: 1,
        fail_timeout: secs(10),
        fail_timeout_max: secs(10),
        backup: false,
        cold: false,
        disabled: false,
    };
    let pool = Pool {
        name: "passwords".into(),
        forwarding: Forwarding::Snat,
        failover: Failover::Auto,
        failback: Failback::Manual,
        when_all_down: WhenAllDown::Last,
        on_backend_down: OnBackendDown::Keep,
        passive: Passive::Off,
        connect_retry: ConnectRetry::Off,
        connect_timeout: Duration::from_millis(300),
        drain_deadline: secs(600),
        start_timeout: secs(60),
        snat_addresses: vec![],
        snat_ports: vec![1024..=32767, 61000..=65535],
        services: vec![service],
        backends: vec![backend],
        hooks: vec![],
    };
    let gateway = Gateway {
        interfaces: vec!["wan0".into(), "lan0".into()],
        xdp_mode: XdpMode::Auto,
        max_flows: 262_144,
        max_half_open: 65_536,
        idle_timeout: secs(7500),
        notify: None,
    };
    assert_eq!(config(EXAMPLE), Config { gateway, http: None, pools: vec![pool], warnings: vec![] });
}

#[test]
fn what_is_not_written_has_the_contracts_default() {
    let mut written = config(EXAMPLE);
    let service = &mut written.pools[0].services[0];
    (service.backend_port, service.redirect) = (443, None);
    service.probe.check =
        Check::Tls { server_name: Some("pw.example.org".into()), verify: Verify::SystemRoots };
    assert_eq!(config(BASE), written);
}

#[test]
fn a_services_probe_overrides_the_pools_key_by_key() {
    let pool = replaced(PROBE, &format!("{PROBE}\ninterval = \"4s\"\nrise = 3"));
    assert_eq!(probe_of(&pool).fast_interval, secs(1), "a quarter of the interval");

    let own = "[pool.service.probe]\ninterval = \"8s\"\nverify = false";
    let probe = probe_of(&pool.replace(LISTEN, &format!("{LISTEN}\n{own}")));
    assert_eq!((probe.interval, probe.rise), (secs(8), 3));
    assert_eq!(probe.check, Check::Tls { server_name: Some("pw.example.org".into()), verify: Verify::Off });
}

fn question(path: &'static str, expect_status: &[RangeInclusive<u16>], expect_body: &str) -> Question {
    let path = PathAndQuery::from_static(path);
    Question { path, expect_status: expect_status.to_vec(), expect_body: expect_body.into() }
}

#[test]
fn a_request_is_for_the_root_and_wants_no_error_unless_told_otherwise() {
    let plain = question("/", &[200..=399], "");
    let https = |question| Check::Https {
        server_name: Some("pw.example.org".into()),
        verify: Verify::SystemRoots,
        question,
    };
    let http = |server_name: Option<&str>, question| Check::Http {
        server_name: server_name.map(str::to_owned),
        question,
    };
    assert_eq!(probe_of(&replaced(PROBE, "kind = \"http\"")).check, http(None, plain.clone()));
    let named = probe_of(&behind(PROBE, "kind = \"http\"")).check;
    assert_eq!(named, http(Some("pw.example.org"), plain.clone()));
    assert_eq!(probe_of(&behind(PROBE, "kind = \"https\"")).check, https(plain));

    let keys = "path = \"/health?deep=1\"\nexpect_status = \"401, 200-204\"\nexpect_body = \"all is well\"";
    let asked = question("/health?deep=1", &[200..=204, 401..=401], "all is well");
    assert_eq!(probe_of(&behind(PROBE, &format!("kind = \"https\"\n{keys}"))).check, https(asked));
}

#[test]
fn a_services_question_overrides_the_pools_key_by_key() {
    let pool = replaced(PROBE, "kind = \"http\"\npath = \"/pool\"\nexpect_body = \"pool\"");
    let own = "[pool.service.probe]\npath = \"/own\"\nexpect_status = \"204\"";
    let probe = probe_of(&pool.replace(LISTEN, &format!("{LISTEN}\n{own}")));
    assert_eq!(
        probe.check,
        Check::Http { server_name: None, question: question("/own", &[204..=204], "pool") }
    );
}

#[test]
fn a_key_of_the_pools_probe_may_mean_nothing_to_some_services() {
    let second = "[[pool.service]]\nname = \"raw\"\nlisten = \"203.0.113.10:80\"\nprobe.kind = \"tcp\"";
    let services = config(&behind(ADDRESS, second)).pools.swap_remove(0).services;
    assert!(matches!(services[0].probe.check, Check::Tls { .. }));
    assert_eq!(services[1].probe.check, Check::Tcp);
}

#[test]
fn other_values_come_through() {
    assert_eq!(probe_of(&replaced(PROBE, "kind = \"none\"")).check, Check::None);
    assert_eq!(
        probe_of(&replaced(PROBE, "verify = false")).check,
        Check::Tls { server_name: None, verify: Verify::Off }
    );
    let probe = probe_of(&behind(PROBE, "interval = \"10ms\"\ntimeout = \"5s\""));
    assert_eq!((probe.fast_interval, probe.timeout), (Duration::from_millis(10), secs(5)));

    let auto = config(&behind(POOL, "failback = \"auto\"\nfailback_delay = \"1m30s\""));
    assert_eq!(auto.pools[0].failback, Failback::Auto { delay: secs(90) });

    let backend = &config(&behind(BACKEND, "max_fails = 0\nbackup = true")).pools[0].backends[0];
    assert_eq!((backend.max_fails, backend.backup), (0, true));
}

fn command_line(words: &[&str]) -> CommandLine {
    let arguments = words[1..].iter().map(|word| (*word).to_owned()).collect();
    CommandLine { program: words[0].into(), arguments }
}

#[test]
fn command_lines_come_through() {
    let probe = replaced(PROBE, "kind = \"exec\"\nrun = [\"/check\", \"-v\", \"\"]");
    assert_eq!(probe_of(&probe).check, Check::Exec { run: command_line(&["/check", "-v", ""]) });
    let own = format!("{LISTEN}\n[pool.service.probe]\nrun = [\"/other\"]");
    assert_eq!(probe_of(&probe.replace(LISTEN, &own)).check, Check::Exec { run: command_line(&["/other"]) });
    let notify = config(&behind(INTERFACES, "notify = [\"/notify\", \"ops\"]")).gateway.notify;
    assert_eq!(notify, Some(command_line(&["/notify", "ops"])));
}

#[test]
fn hooks_come_through_in_their_order() {
    let before =
        "[[pool.hook]]\nname = \"promote the standby\"\nwhen = \"before\"\nrun = [\"/promote\", \"db2\"]";
    let after = "[[pool.hook]]\nname = \"tell\"\nwhen = \"after\"\nrun = [\"/tell\"]\ntimeout = \"1m\"\n\
                 on_error = \"continue\"";
    let promote = Hook {
        name: "promote the standby".into(),
        when: HookWhen::Before,
        run: command_line(&["/promote", "db2"]),
        timeout: secs(30),
        on_error: OnError::Hold,
    };
    let tell = Hook {
        name: "tell".into(),
        when: HookWhen::After,
        run: command_line(&["/tell"]),
        timeout: secs(60),
        on_error: OnError::Continue,
    };
    // Hooks before the switch don't go with flows that are kept.
    let hooks = |hooks: &str| {
        config(&format!("{BASE}{hooks}\n").replace("on_backend_down = \"keep\"\n", "")).pools[0].hooks.clone()
    };
    assert_eq!(hooks(&format!("{before}\n{after}")), [promote.clone(), tell.clone()]);
    assert_eq!(hooks(&format!("{after}\n{before}")), [tell, promote]);
}

#[test]
fn both_ways_of_forwarding_come_through() {
    let dnat = &config(&behind(POOL, "forwarding = \"dnat\"\nsnat_addresses = []")).pools[0];
    assert_eq!((dnat.forwarding, &dnat.snat_addresses), (Forwarding::Dnat, &vec![]));
    // A listening address, too: its ports are kept apart.
    let several = "snat_addresses = [\"203.0.113.10\", \"10.0.2.1\"]";
    let snat = &config(&behind(POOL, several)).pools[0];
    assert_eq!(snat.forwarding, Forwarding::Snat);
    assert_eq!(snat.snat_addresses, [[203, 0, 113, 10], [10, 0, 2, 1]].map(IpAddr::from));
}

#[test]
fn a_pool_may_be_ipv6_beside_one_that_is_not() {
    let second = SECOND_POOL
        .replace("203.0.113.11:25", "[2001:db8::10]:25")
        .replace("10.0.2.11", "2001:db8:2::11")
        .replace("[pool.probe]", "snat_addresses = [\"2001:db8:2::1\"]\n[pool.probe]");
    let pool = config(&format!("{BASE}{second}")).pools.swap_remove(1);
    assert_eq!(pool.services[0].listen.to_string(), "[2001:db8::10]:25");
    assert_eq!(pool.backends[0].address.to_string(), "2001:db8:2::11");
    assert_eq!(pool.snat_addresses[0].to_string(), "2001:db8:2::1");
}

#[test]
fn what_clients_attempts_say_comes_through() {
    let of = |lines: &str| {
        let pool = &config(&replaced(PASSIVE, lines)).pools[0];
        (pool.passive, pool.connect_retry, pool.connect_timeout)
    };
    let millis = Duration::from_millis;
    assert_eq!(of(""), (Passive::Probe, ConnectRetry::Off, millis(300)));
    assert_eq!(
        of("passive = \"count\"\nconnect_timeout = \"10s\""),
        (Passive::Count, ConnectRetry::Off, secs(10))
    );
    assert_eq!(
        of("passive = \"off\"\nconnect_timeout = \"300ms\"").2,
        millis(300),
        "the default may be written"
    );
    let retry = |line: &str| config(&replaced(RETRY, line)).pools[0].connect_retry;
    assert_eq!(retry(""), ConnectRetry::Instant);
    assert_eq!(retry("connect_retry = \"instant\"\nconnect_timeout = \"1ms\""), ConnectRetry::Instant);
    assert_eq!(retry("connect_retry = \"retransmit\""), ConnectRetry::Retransmit);
    assert_eq!(config(BASE).warnings, []);
}

#[test]
fn attempts_that_can_do_nothing_are_warned_of() {
    let unprobed = replaced(PROBE, "kind = \"none\"");
    let silent = unprobed.replace(PASSIVE, "");
    let manual = replaced(RETRY, "connect_retry = \"retransmit\"\nfailover = \"manual\"");
    let written = unprobed.replace(PASSIVE, "passive = \"probe\"");
    let idle = replaced(PASSIVE, "passive = \"off\"\nconnect_timeout = \"1s\"");
    let line_of = |text: &str, key: &str| text.lines().position(|line| line.contains(key)).unwrap() + 1;
    for (text, line, words) in [
        (&silent, 4, "passive = \"count\""),
        (&written, line_of(&written, "passive"), "no service of the pool is probed"),
        (&idle, line_of(&idle, "connect_timeout"), "nobody waits for an answer"),
        (&manual, 8, "`connect_retry` does nothing"),
    ] {
        let warnings = config(text).warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!((warnings[0].line, warnings[0].message.contains(words)), (line, true), "{warnings:?}");
    }
    // Nobody wrote that, or it says what happens.
    assert_eq!(config(&unprobed).warnings, []);
    assert_eq!(config(&unprobed.replace(PASSIVE, "passive = \"count\"")).warnings, []);
    assert_eq!(config(&replaced(RETRY, "failover = \"manual\"")).warnings, []);
}

#[test]
fn a_cold_standby_that_nothing_starts_is_warned_of() {
    const HOOK: &str = "[[pool.hook]]\nname = \"start\"\nwhen = \"before\"\nrun = [\"/start\"]\n";
    let cold = behind(BACKEND, "cold = true").replace("on_backend_down = \"keep\"", "");
    let warnings = config(&cold).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.contains("no `before` hook starts"), "{warnings:?}");
    assert_eq!(config(&format!("{cold}\n{HOOK}")).warnings, []);
}

#[test]
fn a_ca_file_that_is_not_used_is_warned_of() {
    let warnings = config(&behind(PROBE, "verify = false\nca_file = \"/ca.pem\"")).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].line, 13);
}

#[test]
fn inline_tables_and_dotted_keys_mean_the_same() {
    let inline = r#"
gateway.interfaces = ["wan0", "lan0"]
pool = [{ name = "passwords", on_backend_down = "keep", passive = "off", connect_retry = "off",
  probe.server_name = "pw.example.org",
  service = [{ name = "web", listen = "203.0.113.10:443" }],
  backend = [{ name = "server1", address = "10.0.2.11" }] }]
"#;
    assert_eq!(config(inline), config(BASE));
}

#[test]
fn a_redirect_leads_to_the_hosts_that_are_written_or_known() {
    let hosts = |text: &str| {
        let config = accepted(text).config;
        config.pools[0].services[0].redirect.clone().map(|redirect| redirect.hosts)
    };
    assert_eq!(hosts(BASE), None);
    let redirect = "redirect_http = \"203.0.113.10:80\"";
    let known = behind(SERVICE, redirect);
    assert_eq!(hosts(&known), Some(vec!["pw.example.org".to_owned(), "203.0.113.10".to_owned()]));
    assert_eq!(hosts(&known.replace(PROBE, "kind = \"tcp\"")), Some(vec!["203.0.113.10".to_owned()]));
    let written = behind(SERVICE, &format!("{redirect}\nredirect_hosts = [\"a.example\", \"::1\"]"));
    let plain = config(&known.replace(PROBE, "kind = \"http\""));
    assert!(plain.warnings[0].message.contains("don't seem to speak TLS"), "{:?}", plain.warnings);
    assert_eq!(hosts(&written), Some(vec!["a.example".to_owned(), "::1".to_owned()]));
}

#[test]
fn defaults_that_are_written_are_as_good_as_left_out() {
    accepted(&behind(
        POOL,
        "forwarding = \"snat\"\nfailover = \"auto\"\nwhen_all_down = \"last\"\nsnat_addresses = []",
    ));
    accepted(&behind(BACKEND, "cold = false\nfail_timeout = \"1m\"\nfail_timeout_max = \"60s\""));
}
