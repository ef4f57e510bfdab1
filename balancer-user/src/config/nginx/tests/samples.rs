//! Configurations without mistakes.

use std::path::PathBuf;
use std::time::Duration;

use super::super::super::{Check, Failback, Verify};
use super::*;

const PASSWORDS: &str = r#"
upstream pw_web {
    server 10.0.2.11:10001 max_fails=2 fail_timeout=60s;
    server 10.0.2.12:10001 backup;
}
upstream pw_api {
    server 10.0.2.11:8877 max_fails=2 fail_timeout=60s weight=5;
    server 10.0.2.12:8877 backup;
}
server {
    listen 80;
    server_name pw.example.org;
    return 301 https://$host$request_uri;
}
server {
    listen 443 ssl;
    server_name pw.example.org;
    ssl_certificate /etc/nginx/pw.crt;
    ssl_certificate_key /etc/nginx/pw.key;
    location / {
        proxy_pass https://pw_web;
        error_page 502 /sorry.html;
    }
}
server {
    listen 8877 ssl;
    location / { proxy_pass https://pw_api; }
}
"#;

/// From `[gateway]` on.
const PASSWORDS_TOML: &str = r#"[gateway]
interfaces = ["wan0"]

# `upstream pw_web` (pw.conf:2).
# `upstream pw_api` (pw.conf:6): the same hosts, so it moves with the one before.
# Pools of their own: `balancer import nginx --separate`.
[[pool]]
name = "pw_web"
# As nginx: back to the first server as soon as it is up again; "manual" would stay on the backup.
failback = "auto"

# nginx doesn't verify the backends' certificates either (no proxy_ssl_verify). Better, if the backends have
# its certificate: server_name = "pw.example.org", without `verify`.
[pool.probe]
kind = "tls"
verify = false

# pw.conf:16: listen 443 ssl;
# pw.conf:21: proxy_pass https://pw_web;
# Not carried over:
#   pw.conf:12: server_name pw.example.org;
#   pw.conf:17: server_name pw.example.org;
#       names aren't read: address and port alone decide where a connection goes.
#   pw.conf:13: return 301 https://$host$request_uri;
#       HTTP isn't read: no files, redirects or rules by path.
#   pw.conf:18: ssl_certificate /etc/nginx/pw.crt;
#   pw.conf:19: ssl_certificate_key /etc/nginx/pw.key;
#       TLS passes through: the backends keep their own certificates, keys and protocols, and clients see
#       those.
#   pw.conf:22: error_page 502 /sorry.html;
#       nobody answers in a backend's place: clients see its own errors, and none when no backend answers.
[[pool.service]]
name = "pw_web"
listen = "198.51.100.7:443"
backend_port = 10001
# pw.conf:13 sends clients of plain HTTP to https; here the daemon itself does.
redirect_http = "198.51.100.7:80"
redirect_hosts = ["pw.example.org"]

# pw.conf:26: listen 8877 ssl;
# pw.conf:27: proxy_pass https://pw_api;
[[pool.service]]
name = "pw_api"
listen = "198.51.100.7:8877"
backend_port = 8877

# pw.conf:7: `weight=5` is not carried over as it is: nothing is shared out: the order of the backends
# decides.
[[pool.backend]]
name = "10.0.2.11"
address = "10.0.2.11"
max_fails = 2
fail_timeout = "60s"

[[pool.backend]]
name = "10.0.2.12"
address = "10.0.2.12"
max_fails = 1
fail_timeout = "10s"
backup = true
"#;

fn settings(vip: &str) -> Settings {
    Settings { vip: Some(vip.parse().unwrap()), ..Settings::default() }
}

#[test]
fn a_password_server_on_two_hosts_becomes_one_pool() {
    let settings = Settings { interfaces: vec!["wan0".to_owned()], ..settings("198.51.100.7") };
    let (imported, config) = imported(PASSWORDS, &settings);
    let from_gateway = &imported.toml[imported.toml.find("[gateway]").unwrap()..];
    assert_eq!(from_gateway, PASSWORDS_TOML, "{from_gateway}");
    assert_eq!(imported.counts, [1, 2, 2]);
    assert_eq!(config.pools[0].failback, Failback::Auto { delay: Duration::ZERO });
    let remarks: Vec<String> = imported.remarks.iter().map(ToString::to_string).collect();
    assert!(remarks.is_empty(), "{remarks:?}");
    let redirect = config.pools[0].services[0].redirect.as_ref().unwrap();
    assert_eq!((redirect.listen.port(), &redirect.hosts[..]), (80, &["pw.example.org".to_owned()][..]));
}

#[test]
fn separate_keeps_upstreams_apart() {
    let (_, config) = imported(PASSWORDS, &Settings { separate: true, ..Settings::default() });
    assert_eq!(names(&config), ["pw_web", "pw_api"]);
    for pool in &config.pools {
        assert_eq!(backends(pool), ["10.0.2.11", "10.0.2.12"]);
    }
}

#[test]
fn a_database_behind_stream_is_probed_by_tcp() {
    let text = "stream {
        upstream postgres { server 10.0.2.21:5432 max_fails=0 fail_timeout=30; server 10.0.2.22:5432 backup down; }
        server { listen 10.0.0.1:5432 so_keepalive=on; proxy_pass postgres; proxy_timeout 1h; proxy_connect_timeout 1s; }
    }";
    let (imported, config) = imported(text, &Settings::default());
    let pool = &config.pools[0];
    assert_eq!((pool.name.as_str(), listens(pool)), ("postgres", vec!["10.0.0.1:5432>5432".to_owned()]));
    assert_eq!(pool.services[0].probe.check, Check::Tcp);
    let one = &pool.backends[0];
    assert_eq!((one.max_fails, one.fail_timeout, one.disabled), (0, Duration::from_secs(30), false));
    let two = &pool.backends[1];
    assert_eq!(
        (two.max_fails, two.fail_timeout, two.disabled, two.backup),
        (1, Duration::from_secs(10), true, true)
    );
    assert_says(
        &imported,
        &["requests aren't timed", "`connect_timeout` of the pool says", "connections that fail"],
    );
}

#[test]
fn a_listen_without_an_address_gets_an_example_that_is_marked() {
    let text =
        "upstream a { server 10.0.2.11:81; } server { listen *:81; location / { proxy_pass http://a; } }";
    let (example, config) = imported(text, &Settings::default());
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:81>81"]);
    assert_eq!(example.toml.matches("# REPLACE").count(), 2, "{}", example.toml);
    let settings = Settings { interfaces: vec!["eth0".to_owned()], ..settings("198.51.100.7") };
    let (given, config) = imported(text, &settings);
    assert_eq!(listens(&config.pools[0]), ["198.51.100.7:81>81"]);
    assert_eq!(given.toml.matches("# REPLACE").count(), 0, "{}", given.toml);
}

#[test]
fn every_form_of_listen_is_carried_over_or_said() {
    let text = "upstream a { server 10.0.2.11:443; }
        server {
            listen 443 ssl default_server; listen [::]:443 ssl ipv6only=off; listen 10.0.0.1:444 ssl http2;
            listen 8000-8002 ssl; listen 9000-9100 ssl; listen unix:/run/x ssl; listen localhost:445 ssl;
            listen 127.0.0.1:446 ssl; listen [2001:db8::1]:443 ssl; listen 443 quic reuseport; listen 0;
            location / { proxy_pass https://a; }
        }";
    let (imported, config) = imported(text, &settings("198.51.100.7"));
    let expected: Vec<String> =
        ["198.51.100.7:443", "10.0.0.1:444", "198.51.100.7:8000", "198.51.100.7:8001", "198.51.100.7:8002"]
            .iter()
            .map(|listen| format!("{listen}>443"))
            .collect();
    assert_eq!(listens(&config.pools[0]), expected);
    assert_warns(
        &imported,
        &[
            "101 ports are more than a pool may have",
            "`listen unix:/run/x ssl;` is not carried over: a unix socket",
            "a name can't be listened on",
            "127.0.0.1 is a loopback address",
            "of the other IP family",
            "`listen 443 quic reuseport;` is not carried over: only TCP",
        ],
    );
    assert_says(&imported, &["listen 0; nginx itself can't read it"]);
}

#[test]
fn ipv6_backends_get_ipv6_clients_only() {
    let text = "upstream a { server [2001:db8:2::11]:443; server 10.0.2.11:443 backup; }
        server { listen 443 ssl; listen [::]:443 ssl; location / { proxy_pass https://a; } }";
    let (first, config) = imported(text, &Settings::default());
    assert_eq!(listens(&config.pools[0]), ["[2001:db8::10]:443>443"]);
    assert_eq!(backends(&config.pools[0]), ["2001:db8:2::11"]);
    assert_warns(&first, &["IPv4 isn't translated to IPv6", "of the other IP family than the pool"]);
    let (_, config) = imported(text, &settings("2001:db8:1::7"));
    assert_eq!(listens(&config.pools[0]), ["[2001:db8:1::7]:443>443"]);
}

#[test]
fn verification_is_taken_over_where_nginx_verifies() {
    let text = "upstream pw.example.org { server 10.0.2.11:443; }
        server { listen 443 ssl; location / {
            proxy_ssl_verify on; proxy_ssl_trusted_certificate '/etc/nginx/ca \"1\".pem'; proxy_pass https://pw.example.org;
        } }";
    let (_, config) = imported(text, &Settings::default());
    assert_eq!(
        config.pools[0].services[0].probe.check,
        Check::Tls {
            server_name: Some("pw.example.org".to_owned()),
            verify: Verify::CaFile(PathBuf::from("/etc/nginx/ca \"1\".pem"))
        }
    );
    let (_, config) = imported(
        &text.replace("proxy_ssl_verify on", "proxy_ssl_verify on; proxy_ssl_name api.example.org"),
        &Settings::default(),
    );
    let Check::Tls { server_name, .. } = &config.pools[0].services[0].probe.check else {
        panic!("{config:?}")
    };
    assert_eq!(server_name.as_deref(), Some("api.example.org"));
}
