//! Whole explanations, and that each key has a part in one.

use std::collections::BTreeSet;

use super::super::example::replaced;
use super::super::parse;
use super::super::shape::Shapes;
use super::explain;

/// The README's first configuration, in short.
fn passwords() -> String {
    replaced(&[
        ("kind = \"tcp\"", "server_name = \"pw.example.org\""),
        ("\"10.0.2.11\"", "\"10.0.2.11\"\nmax_fails = 3\nfail_timeout = \"60s\""),
        ("\"10.0.2.12\"", "\"10.0.2.12\"\nbackup = true"),
    ])
}

/// Everything that has a sentence of its own.
const RICH: &str = r#"
[gateway]
interfaces = ["wan0"]
xdp_mode = "native"
max_flows = 1000
max_half_open = 500
idle_timeout = "1h"
notify = ["/n", "-v"]
[http]
listen = "127.0.0.1:9464"
token_file = "/etc/balancer/token"
[[pool]]
name = "db"
forwarding = "snat"
failover = "auto"
failback = "auto"
failback_delay = "30s"
on_backend_down = "reset"
when_all_down = "reject"
passive = "count"
connect_retry = "retransmit"
connect_timeout = "200ms"
snat_addresses = ["10.0.2.1"]
snat_ports = "2000-2999,4000"
drain_deadline = "5m"
start_timeout = "90s"
[[pool.service]]
name = "sql"
listen = "203.0.113.10:5432"
redirect_http = "203.0.113.10:80"
redirect_hosts = ["a.example", "b.example"]
backend_port = 5433
[pool.service.probe]
kind = "https"
interval = "4s"
fast_interval = "1s"
timeout = "2s"
rise = 3
server_name = "db.example.org"
ca_file = "/ca.pem"
verify = true
path = "/up"
expect_status = "200"
expect_body = "fine"
[[pool.backend]]
name = "one"
address = "10.0.2.11"
max_fails = 2
fail_timeout = "20s"
fail_timeout_max = "5m"
backup = false
cold = false
disabled = false
[[pool.backend]]
name = "two"
address = "10.0.2.12"
max_fails = 0
cold = true
[[pool.hook]]
name = "promote it"
when = "before"
run = ["/promote", "db2"]
timeout = "40s"
on_error = "hold"
"#;

fn explained(text: &str) -> String {
    let parsed = parse("f.toml", text).unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}"));
    explain(parsed.unresolved())
}

#[test]
fn a_small_configuration_is_told_in_whole_sentences() {
    let expected = "\
gateway
  XDP is attached to wan0 and lan0: in the driver, or behind it, with a warning, where the driver can't.
  At most 262144 flows stand at once, and 65536 handshakes beside them. A flow without a packet for 2h5m is forgotten.
  Nothing is run for events that want a person.

pool passwords
  Clients reach
    203.0.113.10:443 (web), which goes to port 10001 of the backend that serves.
  Backends see this gateway's address, the one that the kernel would use towards them, and ports 1024-32767,61000-65535.
  The backends, in their order:
    1. server1 at 10.0.2.11: 3 failures within 1m, and it is down for 1m.
    2. server2 (backup) at 10.0.2.12: one failure, and it is down for 10s.
  web is probed every 2s by a TLS handshake for pw.example.org, with a certificate that the system's roots vouch for; more than 1s is a failure. After a failure, and once a time down is over, it is probed every 500ms. One good probe then, and it is up again; one that fails then, and it is down once more.
  When the backend that serves is down, new flows go to the first in that order that is up.
  It goes back to an earlier one only by `balancer failback passwords`.
  Flows of the backend that failed are reset once the pool has moved away, and their clients connect anew.
  When nobody is up, new flows still go to the last that served.
  `balancer drain` leaves flows 10m to end, unless it says otherwise.
  A client's connection that its backend refuses, or does not answer within 300ms, has that backend probed at once. It goes on to the next backend at once, and its client does not see it.
";
    assert_eq!(explained(&passwords()), expected);
}

#[test]
fn hooks_a_cold_standby_and_damping_are_told() {
    let expected = "\
gateway
  XDP is attached to wan0: in the driver; where that can't be, it is not attached.
  At most 1000 flows stand at once, and 500 handshakes beside them. A flow without a packet for 1h is forgotten.
  `/n -v` is run for every event that wants a person.
  The dashboard is at http://127.0.0.1:9464/, metrics are at http://127.0.0.1:9464/metrics.
  Who knows the token in /etc/balancer/token may act on the dashboard.

pool db
  Clients reach
    203.0.113.10:5432 (sql), which goes to port 5433 of the backend that serves.
    Plain HTTP at 203.0.113.10:80 is sent on to there, at a.example or b.example.
  Backends see this gateway's address 10.0.2.1, and ports 2000-2999,4000.
  The backends, in their order:
    1. one at 10.0.2.11: 2 failures within 20s, and it is down for 20s. Down again soon after it came up: twice as long each time, up to 5m.
    2. two at 10.0.2.12: no number of failures makes it down.
      It is cold: not probed while it stands by, and taken to be ready. Once the `before` hooks have run it has 1m30s to come up.
  sql is probed every 4s over TLS for db.example.org, with a certificate that /ca.pem vouches for by GET /up, which must be answered with 200 and a body with \"fine\"; more than 2s is a failure. After a failure, and once a time down is over, it is probed every 1s. 3 good probes then, and it is up again; one that fails then, and it is down once more.
  When the backend that serves is down, new flows go to the first in that order that is up.
  It goes back by itself to the first in order, once that was up for 30s without interruption.
  Flows of the backend that failed are reset once the pool has moved away, and their clients connect anew.
  When nobody is up, new flows are refused with RST.
  `balancer drain` leaves flows 5m to end, unless it says otherwise.
  A client's connection that its backend refuses, or does not answer within 200ms, counts as a failure of that backend, if there are two or more and none was answered in the last 100ms. It waits for the pool to change, and goes on then.
  Before another backend serves, all flows of the others are cut and new ones wait, while these run, one by one:
    1. promote it: `/promote db2`, for 40s at most. If it fails, new flows wait until `balancer resume db`.
";
    assert_eq!(explained(RICH), expected);
}

#[test]
fn what_asks_nobody_and_what_nobody_asks_is_told() {
    let text = passwords().replace(
        "name = \"passwords\"",
        "name = \"passwords\"\nforwarding = \"dnat\"\nfailover = \"manual\"",
    );
    let text = text.replace("server_name = \"pw.example.org\"", "kind = \"none\"");
    for (passive, retry, told) in [
        (
            "count",
            "instant",
            "web is not probed. Only clients' own connections tell that a backend fails there. Once its time down is over, nothing is known of a backend then, and the pool does not go back to it by itself.\n",
        ),
        (
            "off",
            "off",
            "A client's connection that its backend refuses or does not answer has no consequence.\n",
        ),
        (
            "off",
            "instant",
            "says nothing of that backend. It goes on to no other, as the pool would not by itself",
        ),
        (
            "probe",
            "off",
            "would have that backend probed, but no service is. Its client sees that it failed.\n",
        ),
        ("probe", "off", "the pool stays there and asks the operator: `balancer failover passwords`.\n"),
        (
            "probe",
            "off",
            "Backends see the clients' addresses, and their way back must lead through this gateway.",
        ),
    ] {
        let keys = format!("name = \"passwords\"\npassive = \"{passive}\"\nconnect_retry = \"{retry}\"");
        let said = explained(&text.replace("name = \"passwords\"", &keys));
        assert!(said.contains(told), "{told}\nin:\n{said}");
    }
}

/// A key, a line of RICH, and another value of it: nothing that is written there may leave the text as it is.
const OTHERS: &[(&str, &str, &str)] = &[
    ("gateway.interfaces", "interfaces = [\"wan0\"]", "interfaces = [\"wan1\"]"),
    ("gateway.xdp_mode", "xdp_mode = \"native\"", "xdp_mode = \"auto\""),
    ("gateway.xdp_mode", "xdp_mode = \"native\"", "xdp_mode = \"generic\""),
    ("gateway.max_flows", "max_flows = 1000", "max_flows = 1001"),
    ("gateway.max_half_open", "max_half_open = 500", "max_half_open = 501"),
    ("gateway.idle_timeout", "idle_timeout = \"1h\"", "idle_timeout = \"2h\""),
    ("gateway.notify", "notify = [\"/n\", \"-v\"]", "notify = [\"/n\"]"),
    ("gateway.notify", "notify = [\"/n\", \"-v\"]", ""),
    ("http.listen", "127.0.0.1:9464", "127.0.0.1:9465"),
    ("http.token_file", "token_file = \"/etc/balancer/token\"", "token_file = \"/etc/token\""),
    ("http.token_file", "token_file = \"/etc/balancer/token\"", ""),
    ("pool.name", "name = \"db\"", "name = \"other\""),
    ("pool.forwarding", "forwarding = \"snat\"", "forwarding = \"dnat\""),
    ("pool.failover", "failover = \"auto\"", "failover = \"manual\""),
    ("pool.failback", "failback = \"auto\"\nfailback_delay = \"30s\"", "failback = \"manual\""),
    ("pool.failback_delay", "failback_delay = \"30s\"", "failback_delay = \"31s\""),
    ("pool.failback_delay", "failback_delay = \"30s\"", "failback_delay = \"0s\""),
    ("pool.on_backend_down", "on_backend_down = \"reset\"", "on_backend_down = \"keep\""),
    ("pool.when_all_down", "when_all_down = \"reject\"", "when_all_down = \"last\""),
    ("pool.passive", "passive = \"count\"", "passive = \"probe\""),
    ("pool.passive", "passive = \"count\"", "passive = \"off\""),
    ("pool.connect_retry", "connect_retry = \"retransmit\"", "connect_retry = \"instant\""),
    ("pool.connect_retry", "connect_retry = \"retransmit\"", "connect_retry = \"off\""),
    ("pool.connect_timeout", "connect_timeout = \"200ms\"", "connect_timeout = \"201ms\""),
    (
        "pool.snat_addresses",
        "snat_addresses = [\"10.0.2.1\"]",
        "snat_addresses = [\"10.0.2.1\", \"10.0.2.2\"]",
    ),
    ("pool.snat_addresses", "snat_addresses = [\"10.0.2.1\"]", ""),
    ("pool.snat_ports", "snat_ports = \"2000-2999,4000\"", "snat_ports = \"2000-2999\""),
    ("pool.drain_deadline", "drain_deadline = \"5m\"", "drain_deadline = \"6m\""),
    ("pool.start_timeout", "start_timeout = \"90s\"", "start_timeout = \"91s\""),
    ("pool.service.name", "name = \"sql\"", "name = \"other\""),
    ("pool.service.listen", "203.0.113.10:5432", "203.0.113.10:5434"),
    ("pool.service.redirect_http", "203.0.113.10:80", "203.0.113.10:81"),
    ("pool.service.redirect_hosts", "\"b.example\"", "\"c.example\""),
    ("pool.service.backend_port", "backend_port = 5433", "backend_port = 5434"),
    ("probe.kind", "kind = \"https\"", "kind = \"http\""),
    ("probe.interval", "interval = \"4s\"", "interval = \"5s\""),
    ("probe.fast_interval", "fast_interval = \"1s\"", "fast_interval = \"2s\""),
    ("probe.timeout", "\ntimeout = \"2s\"", "\ntimeout = \"3s\""),
    ("probe.rise", "rise = 3", "rise = 1"),
    ("probe.server_name", "server_name = \"db.example.org\"", "server_name = \"a.example.org\""),
    ("probe.ca_file", "ca_file = \"/ca.pem\"", "ca_file = \"/other.pem\""),
    ("probe.verify", "verify = true", "verify = false"),
    ("probe.path", "path = \"/up\"", "path = \"/\""),
    ("probe.expect_status", "expect_status = \"200\"", "expect_status = \"200-204\""),
    ("probe.expect_body", "expect_body = \"fine\"", "expect_body = \"\""),
    ("probe.run", "", ""),
    ("pool.backend.name", "name = \"one\"", "name = \"other\""),
    ("pool.backend.address", "10.0.2.11", "10.0.2.13"),
    ("pool.backend.max_fails", "max_fails = 2", "max_fails = 3"),
    ("pool.backend.max_fails", "max_fails = 0", "max_fails = 1"),
    ("pool.backend.fail_timeout", "fail_timeout = \"20s\"", "fail_timeout = \"21s\""),
    ("pool.backend.fail_timeout_max", "fail_timeout_max = \"5m\"", "fail_timeout_max = \"20s\""),
    ("pool.backend.backup", "backup = false", "backup = true"),
    ("pool.backend.cold", "cold = false", "cold = true"),
    ("pool.backend.disabled", "disabled = false", "disabled = true"),
    ("pool.hook.name", "name = \"promote it\"", "name = \"other\""),
    ("pool.hook.when", "when = \"before\"", "when = \"after\""),
    ("pool.hook.run", "\"db2\"", "\"db3\""),
    ("pool.hook.timeout", "timeout = \"40s\"", "timeout = \"41s\""),
    ("pool.hook.on_error", "on_error = \"hold\"", "on_error = \"continue\""),
];

/// What another value means nothing without.
fn beside(key: &str, text: &str) -> String {
    match key {
        // Not with `before` hooks.
        "pool.on_backend_down" | "pool.connect_retry" => {
            text.replace("when = \"before\"", "when = \"after\"")
        }
        "pool.forwarding" => text.replace("snat_addresses = [\"10.0.2.1\"]", ""),
        "probe.kind" => text.replace("ca_file = \"/ca.pem\"\nverify = true\n", ""),
        _ => text.to_owned(),
    }
}

#[test]
fn every_value_of_every_key_has_a_part_in_the_text() {
    for (key, line, other) in OTHERS.iter().filter(|(key, ..)| *key != "probe.run") {
        assert_eq!(RICH.matches(line).count(), 1, "{key}: {line}");
        let plain = beside(key, RICH);
        // What stands beside `kind` is for one kind only.
        let plain = if *key == "probe.kind" { RICH.to_owned() } else { plain };
        let changed = beside(key, &RICH.replace(line, other));
        assert_ne!(explained(&changed), explained(&plain), "{key}: {other}");
    }
    let exec = |program: &str| {
        let keys = format!("kind = \"exec\"\nrun = [\"{program}\"]");
        explained(&passwords().replace("server_name = \"pw.example.org\"", &keys))
    };
    assert_ne!(exec("/a"), exec("/b"));
}

#[test]
fn every_key_has_another_value_here() {
    let known: BTreeSet<&str> = OTHERS.iter().map(|(key, ..)| *key).collect();
    for (name, _) in Shapes::of_all().leaves() {
        let of_probe = name.split_once("probe.").map(|(_, key)| format!("probe.{key}"));
        let name = of_probe.unwrap_or(name);
        assert!(known.contains(name.as_str()), "{name}");
    }
}

#[test]
fn what_is_left_out_is_told_with_what_holds_instead() {
    let said = parse("f.toml", &passwords()).expect("it is right").defaults();
    for told in [
        "not written, and so as it is by default\n",
        "  gateway in line 2: xdp_mode = \"auto\", max_flows = 262144, max_half_open = 65536, idle_timeout = \"2h5m\", notify: nothing\n",
        "fail_timeout_max: as `fail_timeout`: no damping, backup = false",
        "  the probe of the service in line 6: kind = \"tls\", interval = \"2s\", fast_interval: a quarter of `interval`",
    ] {
        assert!(said.contains(told), "{told}\nin:\n{said}");
    }
    assert!(!said.contains("server_name") && !said.contains("max_fails = 1, fail_timeout_max"), "{said}");
}
