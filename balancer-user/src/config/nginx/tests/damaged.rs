//! Configurations that have lost something, and files that are none.

use std::time::Duration;

use super::*;

/// As such examples are published: no upstream has its closing brace, nor has the location.
const LOST: &str = "\
upstream backend_web {
    server 10.0.2.11:10001 max_fails=1 fail_timeout=60s;
    server 10.0.2.12:10001 backup;

upstream backend_api {
    server 10.0.2.11:8877 max_fails=1 fail_timeout=60s;
    server 10.0.2.12:8877 backup;

server {
    listen 443 ssl;
    location / {
        proxy_pass https://backend_web;

}
server {
    listen 8877 ssl;
    location / {
        proxy_pass https://backend_api;
    }
}
";

#[test]
fn lost_braces_are_found_and_their_opening_lines_named() {
    let (imported, config) = imported(LOST, &Settings::default());
    assert_eq!(config.pools.len(), 1);
    let ports: Vec<_> = config.pools[0].services.iter().map(|service| service.backend_port).collect();
    assert_eq!(ports, [10001, 8877]);
    let limits: Vec<_> =
        config.pools[0].backends.iter().map(|backend| (backend.max_fails, backend.fail_timeout)).collect();
    assert_eq!(limits, [(1, Duration::from_secs(60)), (1, Duration::from_secs(10))]);
    let warnings = [
        "pw.conf:5: `upstream backend_web {` on line 1 has lost its closing brace",
        "pw.conf:9: `upstream backend_api {` on line 5 has lost its closing brace",
        "`location / {` on line 11 has lost its closing brace",
    ];
    assert_warns(&imported, &warnings);
    assert_says(&imported, &warnings);
}

#[test]
fn what_is_no_configuration_of_nginx_is_refused() {
    for (text, words) in [
        ("", "nothing to import"),
        ("Dear all,\nthe meeting is at 10.\n", "nothing to import"),
        ("events {}\nhttp { server { listen 80; root /srv; } }", "leads to no backend"),
        ("a \"b", "pw.conf:1: not a configuration of nginx: a quote is opened"),
        ("{ \"a\": 1 }", "not a configuration of nginx"),
        ("[gateway]\ninterfaces = [\"wan0\"]\n", "nothing to import"),
        ("upstream a { server unix:/x; }", "none of its servers can be a backend"),
        ("upstream a { server 10.0.0.1 down; }", "all of its servers are down"),
        ("upstream a { server 127.0.0.1:80; }", "none of its servers"),
    ] {
        let shown = refused(text);
        assert!(shown.contains(words), "{text:?}: {shown}");
    }
}
