//! What it means here that a line of nginx's isn't carried over.
//!
//! By the directive's name only; what depends on more is said where that is known.

/// Directives, each by its name or by how it begins (`ssl_*`), and what their absence means. The first that fits.
const MEANINGS: &[(&[&str], &str)] = &[
    (
        &["server_name", "server_names_*", "ssl_preread*", "map", "geo", "split_clients"],
        "names aren't read: address and port alone decide where a connection goes",
    ),
    (
        &["proxy_ssl", "proxy_ssl_*", "grpc_ssl_*"],
        "TLS to the backends is spoken by the clients themselves; of this only verification concerns the probe",
    ),
    (
        &["ssl", "ssl_*", "http2*", "http3*", "quic_*"],
        "TLS passes through: the backends keep their own certificates, keys and protocols, and clients see those",
    ),
    (
        &["error_page", "proxy_intercept_errors", "recursive_error_pages"],
        "nobody answers in a backend's place: clients see its own errors, and none when no backend answers",
    ),
    (
        &["proxy_set_header", "grpc_set_header", "set_real_ip_from", "real_ip_*", "proxy_http_version"],
        "requests pass as they are: no X-Forwarded-For or Host is set, and with snat backends see the gateway's address",
    ),
    (
        &[
            "add_header*",
            "proxy_hide_header",
            "proxy_pass_header",
            "proxy_cookie_*",
            "proxy_redirect",
            "expires",
        ],
        "answers pass as they are: set headers (HSTS, too) and cookies in the backends",
    ),
    (
        &["proxy_connect_timeout", "grpc_connect_timeout"],
        "`connect_timeout` of the pool says how long an attempt waits before the next backend is tried (300ms)",
    ),
    (
        &["*_timeout", "*_timeouts", "keepalive_requests", "proxy_socket_keepalive", "tcp_*"],
        "requests aren't timed; [gateway] `idle_timeout` says when a connection without packets is forgotten (2h5m)",
    ),
    (
        &["proxy_next_upstream*", "grpc_next_upstream*"],
        "see `connect_retry`: an attempt that isn't taken goes on to the next backend; a request is never repeated",
    ),
    (
        &["least_conn", "least_time", "ip_hash", "hash", "random", "sticky*", "queue", "ntlm"],
        "nothing is shared out: all new connections go to the first backend that is up, so each client meets the same",
    ),
    (&["keepalive", "keepalive_*"], "connections to backends aren't kept or shared: each is a client's own"),
    (
        &["zone", "state", "resolver", "resolver_*"],
        "no counterpart is needed: one daemon counts, and it resolves host names itself",
    ),
    (
        &["health_check*", "match", "check*"],
        "see [pool.probe]: each backend is probed all the time; `kind`, `path`, `expect_status` say how",
    ),
    (
        &[
            "allow",
            "deny",
            "auth_*",
            "satisfy",
            "limit_*",
            "valid_referers",
            "secure_link*",
            "access_by_lua*",
        ],
        "NOT PROTECTED any more: access isn't checked here; do it in the backends, or in the gateway's firewall",
    ),
    (
        &[
            "rewrite*",
            "return",
            "if",
            "try_files",
            "set",
            "break",
            "internal",
            "alias",
            "root",
            "index",
            "autoindex*",
        ],
        "HTTP isn't read: no files, redirects or rules by path",
    ),
    (
        &[
            "fastcgi_*",
            "uwsgi_*",
            "scgi_*",
            "memcached_*",
            "mirror*",
            "sub_filter*",
            "proxy_cache*",
            "proxy_store*",
        ],
        "HTTP isn't read or translated: the backends must speak to clients themselves",
    ),
    (
        &["proxy_protocol"],
        "DOES NOT WORK YET: no PROXY protocol is added, so backends must not expect it; forwarding = \"dnat\" shows \
         them the clients' addresses",
    ),
    (&["proxy_bind"], "see `snat_addresses`: what backends see, by default the kernel's choice"),
    (&["*_by_lua*", "lua_*", "js_*", "perl*"], "programs within nginx have no counterpart"),
    (
        &["client_*", "large_client_header_buffers", "proxy_*", "grpc_*"],
        "HTTP isn't read, buffered or bounded",
    ),
    (
        &[
            "access_log",
            "error_log",
            "log_*",
            "gzip*",
            "brotli*",
            "sendfile*",
            "aio*",
            "directio*",
            "open_file_cache*",
            "default_type",
            "types",
            "types_*",
            "charset*",
            "user",
            "worker_*",
            "pid",
            "events",
            "load_module",
            "daemon",
            "env",
            "pcre_jit",
            "variables_*",
            "thread_pool",
            "server_tokens",
            "port_in_redirect",
            "reset_timedout_*",
            "output_buffers",
            "etag",
            "msie_*",
            "underscores_in_headers",
            "merge_slashes",
            "mail",
            "timer_resolution",
        ],
        "about nginx's own process, its logs or HTTP: nothing to carry over",
    ),
];

/// What else there may be: modules of others.
const UNKNOWN: &str = "balancer has nothing like it; see whether the backends need it";

/// Whether what is lost must not be overlooked.
pub(super) fn is_urgent(meaning: &str) -> bool {
    meaning.starts_with("NOT PROTECTED") || meaning.starts_with("DOES NOT WORK")
}

/// What is lost with this directive.
pub(super) fn of(name: &str) -> &'static str {
    let fits = |pattern: &&str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), Some(_)) => name.contains(end.trim_end_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => *pattern == name,
    };
    MEANINGS.iter().find(|(names, _)| names.iter().any(&fits)).map_or(UNKNOWN, |(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_find_their_meaning() {
        for (name, words) in [
            ("ssl_certificate", "TLS passes through"),
            ("proxy_ssl", "TLS to the backends"),
            ("proxy_ssl_server_name", "TLS to the backends"),
            ("proxy_set_header", "X-Forwarded-For"),
            ("proxy_read_timeout", "aren't timed"),
            ("proxy_connect_timeout", "connect_timeout"),
            ("keepalive_timeout", "aren't timed"),
            ("keepalive", "a client's own"),
            ("ip_hash", "shared out"),
            ("deny", "NOT PROTECTED"),
            ("access_by_lua_block", "NOT PROTECTED"),
            ("content_by_lua_block", "programs within nginx"),
            ("proxy_buffering", "buffered"),
            ("worker_processes", "own process"),
            ("my_module", "nothing like it"),
        ] {
            assert!(of(name).contains(words), "{name}: {}", of(name));
        }
    }
}
