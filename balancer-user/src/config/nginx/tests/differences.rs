//! What nginx can do and balancer can't, or does otherwise: never wrong silently.

use std::net::SocketAddr;

use super::super::super::{Check, Service};
use super::*;

#[test]
fn what_a_pool_cannot_have_is_left_out_and_said() {
    let text = "upstream a {
            server 10.0.2.11:8001; server 10.0.2.11:8002; server 10.0.2.12:8003 backup; server unix:/run/x;
            server 127.0.0.1:8001; server 203.0.113.10:8001; server 10.0.2.11:8001; least_conn; keepalive 16;
        }
        server { listen 80; location / { proxy_pass http://a; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(backends(&config.pools[0]), ["10.0.2.11"]);
    assert_warns(
        &imported,
        &[
            "`server 10.0.2.11:8002;` is left out: it is on port 8002",
            "it is on port 8003, but a service sends to the same port of all backends, here 8001",
            "`server unix:/run/x;` is left out",
            "127.0.0.1 is a loopback address",
            "clients connect to this address",
            "stand in the upstream already",
        ],
    );
    assert_says(
        &imported,
        &["least_conn; nothing is shared out", "keepalive 16; connections to backends aren't kept"],
    );
}

#[test]
fn servers_that_share_their_load_are_told_that_they_do_not_any_more() {
    let text =
        "upstream a { server 10.0.2.11; server 10.0.2.12; } server { location / { proxy_pass http://a; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:80>80"]);
    assert_warns(&imported, &["shares its requests out among 2 servers; here all go to the first"]);
}

#[test]
fn the_same_hosts_in_other_roles_stay_apart() {
    let text = "upstream a { server 10.0.2.11:81; server 10.0.2.12:81 backup; }
        upstream b { server 10.0.2.11:82 backup; server 10.0.2.12:82; }
        upstream c { server 10.0.2.12:83 backup; server 10.0.2.11:83 max_fails=3; }
        server { listen 81; location / { proxy_pass http://a; } }
        server { listen 82; location / { proxy_pass http://b; } }
        server { listen 83; location / { proxy_pass http://c; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(names(&config), ["a", "b"]);
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:81>81", "203.0.113.10:83>83"]);
    assert_eq!(config.pools[0].backends[0].max_fails, 1);
    assert_warns(
        &imported,
        &[
            "`upstream b` has the same hosts as pool a in other roles",
            "`upstream c` has max_fails=3 and fail_timeout=10s for 10.0.2.11; one backend has one of each",
        ],
    );
}

#[test]
fn tls_that_nginx_ended_or_began_is_told_loudly() {
    let text = "upstream a { server 10.0.2.11:81; }
        server { listen 443 ssl; location / { proxy_pass http://a; } }
        server { listen 80; location / { proxy_pass https://a; } }
        stream { upstream s { server 10.0.2.12:82; } server { listen 82; proxy_pass s; proxy_ssl on; } }";
    let (imported, config) = imported(text, &Settings::default());
    let ends = "DOES NOT WORK YET: nginx ends TLS here, and the backends speak without it on port 81";
    let begins = "DOES NOT WORK YET: clients speak without TLS here, and the backends with it on port";
    assert_warns(&imported, &[ends, &format!("{begins} 81"), &format!("{begins} 82")]);
    assert_says(&imported, &[ends, begins]);
    let tls = |service: &Service| matches!(service.probe.check, Check::Tls { .. });
    let probes: Vec<bool> = config.pools.iter().flat_map(|pool| pool.services.iter().map(tls)).collect();
    assert_eq!(probes, [false, true, true]);
}

#[test]
fn names_and_paths_decide_nothing_here() {
    let text = "upstream a { server 10.0.2.11:443; } upstream b { server 10.0.2.12:443; } upstream c { server 10.0.2.13:443; }
        server { listen 443 ssl; server_name a.example.org; location /c { proxy_pass https://c; } location / { proxy_pass https://a; } }
        server { listen 443 ssl default_server; server_name b.example.org; location / { proxy_pass https://b; } }
        server { listen 444 ssl; location /x { proxy_pass https://c/y; allow 10.0.0.0/8; deny all; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(names(&config), ["b", "c"]);
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:443>443"]);
    assert_warns(
        &imported,
        &[
            "203.0.113.10:443 leads to the `server` of pw.conf:3 for all names",
            "`proxy_pass https://c; (in location /c)` is not carried over: paths aren't read",
            "so the requests' own path isn't replaced by /y",
            "`upstream a` is left out",
        ],
    );
    assert_says(
        &imported,
        &["The `server` of pw.conf:2 (listen 443 ssl;), which leads to no pool", "deny all; NOT PROTECTED"],
    );
}

#[test]
fn what_nginx_decides_at_run_time_is_left_and_said() {
    let text = "stream {
        map $ssl_preread_server_name $name { a.example.org a; default b; }
        upstream a { server 10.0.2.11:443; } upstream b { server 10.0.2.12:443; }
        server { listen 443; ssl_preread on; proxy_pass $name; }
        server { listen 53 udp; proxy_pass a; }
        server { listen 5432; proxy_pass 10.0.2.13:5432; }
        server { listen 5433; proxy_pass 10.0.2.13; }
    }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(names(&config), ["10.0.2.13"]);
    assert_warns(
        &imported,
        &[
            "`proxy_pass $name;` is not carried over: where it leads is known to nginx only",
            "`listen 53 udp;` is not carried over: only TCP",
            "`proxy_pass 10.0.2.13;` is not carried over: it names no port",
            "`upstream b` is left out",
        ],
    );
}

#[test]
fn what_must_not_be_overlooked_is_a_warning() {
    let text = "stream { upstream a { server 10.0.2.11:443; } server {
        listen 443 proxy_protocol; proxy_pass a; proxy_protocol on; deny all; } }";
    let (imported, _) = imported(text, &Settings::default());
    assert_warns(
        &imported,
        &[
            "`listen 443 proxy_protocol;`: DOES NOT WORK YET: clients send the PROXY protocol first",
            "`proxy_protocol on;`: DOES NOT WORK YET: no PROXY protocol is added",
            "`deny all;`: NOT PROTECTED any more",
        ],
    );
}

#[test]
fn a_redirect_beside_tls_is_no_service_of_its_own() {
    let text = "upstream a { server 10.0.2.11:443; } server {
        listen 80; listen 443 ssl; if ($scheme = http) { return 301 https://$host$request_uri; }
        location / { proxy_pass https://a; } location /old { return 301 https://old.example.org; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:443>443"]);
    assert_says(&imported, &["redirect_http = \"203.0.113.10:80\"", "nginx names no host"]);
    let redirect = config.pools[0].services[0].redirect.as_ref().unwrap();
    assert_eq!(
        (redirect.listen.to_string().as_str(), &redirect.hosts[..]),
        ("203.0.113.10:80", &["203.0.113.10".to_owned()][..])
    );
}

#[test]
fn no_more_names_are_redirected_to_than_a_service_may_have() {
    let names: String = (0..70).map(|n| format!(" a{n}.example.org A{n}.example.org")).collect();
    let text = format!(
        "upstream a {{ server 10.0.2.11:443; }}
        server {{ listen 80; server_name{names}; return 301 https://$host$request_uri; }}
        server {{ listen 443 ssl; server_name a1.example.org; location / {{ proxy_pass https://a; }} }}"
    );
    let (imported, config) = imported(&text, &Settings::default());
    assert_eq!(config.pools[0].services[0].redirect.as_ref().unwrap().hosts.len(), 64);
    let left = "only 64 names are redirected to; left out: a64.example.org a65.example.org";
    assert!(imported.remarks.iter().any(|remark| remark.to_string().contains(left)), "{}", imported.toml);
}

#[test]
fn plain_http_leads_to_one_service_and_its_names_are_carried_over() {
    let text = "upstream a { server 10.0.2.11:443; } upstream b { server 10.0.2.12:444; }
        server { listen 80; server_name a.example.org *.a.example.org; return 301 https://$host$request_uri; }
        server { listen 443 ssl; server_name a.example.org; location / { proxy_pass https://a; } }
        server { listen 80; server_name b.example.org; return 301 https://www.example.org:444$request_uri; }
        server { listen 444 ssl; server_name b.example.org; location / { proxy_pass https://b; } }";
    let (imported, config) = imported(text, &Settings::default());
    let redirects: Vec<_> = config
        .pools
        .iter()
        .flat_map(|pool| &pool.services)
        .filter_map(|service| service.redirect.as_ref())
        .collect();
    let [redirect] = redirects[..] else { panic!("{}", imported.toml) };
    assert_eq!(redirect.hosts, ["a.example.org"]);
    let remarks: Vec<String> = imported.remarks.iter().map(ToString::to_string).collect();
    let words = "plain HTTP on port 80 isn't redirected to https any more: 203.0.113.10:80 is a service";
    assert!(remarks.iter().any(|remark| remark.contains(words)), "{remarks:?}");
    let alone = text.replace("server { listen 80; server_name a.example.org *.a.example.org; return 301 https://$host$request_uri; }", "");
    let (_, config) = super::imported(&alone, &Settings::default());
    let redirect =
        config.pools.iter().flat_map(|pool| &pool.services).find_map(|service| service.redirect.as_ref());
    assert_eq!(redirect.unwrap().hosts, ["www.example.org"]);
}

#[test]
fn host_names_stay_as_they_are() {
    let text = "upstream a { server DB1.example.org:443 resolve; } upstream b { server db1.example.org:444; }
        server { listen 443 ssl; location / { proxy_pass https://a; } }
        server { listen 444 ssl; location / { proxy_pass https://b; } }";
    let imported = imported_beside(text, &[], &Settings::default()).unwrap();
    assert!(
        imported.toml.contains("name = \"db1.example.org\"\naddress = \"db1.example.org\"\n"),
        "{}",
        imported.toml
    );
    let told = imported.toml.matches("nginx resolves this name once").count();
    assert_eq!(told, 1, "{}", imported.toml);
    assert_says(
        &imported,
        &["nginx resolves this name once, at its start", "`resolve` is not carried over as it is"],
    );
}

#[test]
fn upstreams_alone_are_listened_for_at_their_own_port() {
    let text = "upstream a { server 10.0.2.11:8080; } upstream b { server 10.0.2.12; }";
    let (imported, config) = imported(text, &Settings::default());
    assert_eq!(names(&config), ["a", "b"]);
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:8080>8080"]);
    assert_says(&imported, &["no `listen` leads to `a`: REPLACE the port"]);
}

#[test]
fn proxy_pass_may_name_a_host_itself() {
    let text =
        "server { listen 443 ssl; server_name pw.example.org; location / { proxy_pass https://10.0.2.11; } }
        server { listen 8443 ssl; location / { proxy_pass https://10.0.2.11/; } }";
    let (imported, config) = imported(text, &Settings::default());
    assert_says(&imported, &["listen 8443 ssl; pw.conf:2: proxy_pass https://10.0.2.11/;"]);
    assert_eq!(names(&config), ["pw.example.org"]);
    assert_eq!(listens(&config.pools[0]), ["203.0.113.10:443>443", "203.0.113.10:8443>443"]);
    let services: Vec<&str> = config.pools[0].services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(services, ["pw.example.org-443", "pw.example.org-8443"]);
}

#[test]
fn included_files_are_part_of_it_and_are_named() {
    let site = "server { listen 443 ssl;\nlocation / { proxy_pass https://a; proxy_buffering off; } }";
    let main = "http { include *.upstream; include site; }";
    let others = [("a.upstream", "upstream a { server 10.0.2.11:443; }"), ("site", site)];
    let imported = imported_beside(main, &others, &Settings::default()).unwrap();
    assert_eq!(names(&config(&imported.toml)), ["a"]);
    assert_says(&imported, &["`upstream a` (a.upstream:1)", "site:2: proxy_buffering off;"]);
}

#[test]
fn more_than_balancer_holds_is_left_out_and_said() {
    let servers: String = (1..=20).map(|n| format!("server 10.0.3.{n}:443;")).collect();
    let listens_on: String = (1..=20).map(|n| format!("listen {};", 7000 + n)).collect();
    let text =
        format!("upstream a {{ {servers} }} server {{ {listens_on} location / {{ proxy_pass http://a; }} }}");
    let (imported, config) = imported(&text, &Settings::default());
    assert_eq!((config.pools[0].services.len(), config.pools[0].backends.len()), (16, 16));
    let last: SocketAddr = "203.0.113.10:7016".parse().unwrap();
    assert_eq!(config.pools[0].services[15].listen, last);
    assert_warns(&imported, &["a pool has at most 16 services", "a pool has at most 16 backends"]);
}
