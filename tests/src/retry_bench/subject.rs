//! Who stands between clients and servers, and how the primary fails.
//!
//! All have the same limits: one failure makes the primary down, for 10 s. The peers are set as their manuals have it for
//! quick failovers, and log who was sent on to the backup: that is what the affected are counted by.

use std::net::IpAddr;

use crate::site::{Options, PASSWORDS, Pool, Service, WEB};

/// A pool with one service.
const POOLS: &[Pool] = &[Pool { services: &[WEB], ..PASSWORDS }];

/// Where the peers are: not where a site's own watch forbids all but XDP to answer.
pub(super) const PEERS: Service = Service { name: "peers", port: 8443, backend_port: WEB.backend_port };

/// What becomes of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its process is killed: who connects is refused.
    Killed,
    /// Nothing comes in and nothing goes out: who connects hears nothing.
    Silenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// With `connect_retry` and `passive` as said.
    Balancer {
        retry: &'static str,
        passive: &'static str,
    },
    Nginx,
    Haproxy,
}

impl Failure {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Killed => "primary killed",
            Self::Silenced => "primary silenced",
        }
    }

    /// New connections a second.
    pub(super) fn rate(self) -> u32 {
        match self {
            Self::Killed => 300,
            Self::Silenced => 200,
        }
    }

    pub(super) fn subjects(self) -> &'static [Subject] {
        match self {
            Self::Killed => &KILLED,
            Self::Silenced => &SILENCED,
        }
    }
}

const fn balancer(retry: &'static str, passive: &'static str) -> Subject {
    Subject::Balancer { retry, passive }
}

static KILLED: [Subject; 5] = [
    balancer("instant", "probe"),
    // Only the probes end it, so it lasts long enough for percentiles.
    balancer("instant", "off"),
    balancer("retransmit", "probe"),
    Subject::Nginx,
    Subject::Haproxy,
];

static SILENCED: [Subject; 4] =
    [balancer("instant", "count"), balancer("instant", "probe"), Subject::Nginx, Subject::Haproxy];

impl Subject {
    pub(super) fn name(self) -> String {
        match self {
            Self::Balancer { retry, passive } => format!("balancer {retry}, {passive}"),
            Self::Nginx => "nginx".to_owned(),
            Self::Haproxy => "HAProxy".to_owned(),
        }
    }

    /// Where clients meet it.
    pub(super) fn service(self) -> Service {
        match self {
            Self::Balancer { .. } => WEB,
            Self::Nginx | Self::Haproxy => PEERS,
        }
    }

    /// Of the site around it. Against silence probes are so rare that they can't help.
    pub(super) fn options(self, failure: Failure) -> Options {
        let (retry, passive) = match self {
            Self::Balancer { retry, passive } => (retry, passive),
            Self::Nginx | Self::Haproxy => ("off", "off"),
        };
        let (interval, fast_interval) = match failure {
            Failure::Killed => ("2s", "500ms"),
            Failure::Silenced => ("30s", "7500ms"),
        };
        Options {
            interval,
            fast_interval,
            timeout: "1s",
            fail_timeout: "10s",
            on_backend_down: "reset",
            passive,
            connect_retry: retry,
            pools: POOLS,
            ..Options::default()
        }
    }
}

/// For these servers, in order.
pub(super) fn nginx_configuration(vip: IpAddr, [primary, backup]: [IpAddr; 2]) -> String {
    let Service { port, backend_port, .. } = PEERS;
    format!(
        "worker_processes auto;
events {{
    worker_connections 4096;
}}
stream {{
    log_format affected '$remote_addr:$remote_port $upstream_addr';
    access_log /dev/stdout affected;
    upstream servers {{
        zone servers 64k;
        server {primary}:{backend_port} max_fails=1 fail_timeout=10s;
        server {backup}:{backend_port} backup;
    }}
    server {{
        listen {vip}:{port} reuseport backlog=4096;
        tcp_nodelay on;
        proxy_connect_timeout 1s;
        proxy_next_upstream on;
        proxy_pass servers;
    }}
}}
"
    )
}

/// For these servers, in order.
pub(super) fn haproxy_configuration(vip: IpAddr, [primary, backup]: [IpAddr; 2]) -> String {
    let Service { port, backend_port, .. } = PEERS;
    format!(
        "global
    maxconn 4096
    log stdout format raw local0
defaults
    mode tcp
    log global
    log-format \"%ci:%cp %rc\"
    option redispatch
    timeout connect 1s
    timeout check 1s
    timeout client 60s
    timeout server 60s
    default-server check inter 1s fall 1 rise 1
listen servers
    bind {vip}:{port}
    server primary {primary}:{backend_port}
    server backup {backup}:{backend_port} backup
"
    )
}

/// The clients that a peer has sent on to another server, by its log.
pub(super) fn sent_on(subject: Subject, log: &str) -> Vec<String> {
    let was_sent_on = |told: &str| match subject {
        // The servers that were tried.
        Subject::Nginx => told.contains(','),
        // How often it was tried anew, and a `+` when with another server.
        Subject::Haproxy => told != "0",
        Subject::Balancer { .. } => false,
    };
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, told)| was_sent_on(told)).map(|(client, _)| client.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_sent_on_is_told_from_who_was_not() {
        let log = "203.0.113.7:40000 10.0.2.11:10001\n\
                   203.0.113.7:40001 10.0.2.11:10001, 10.0.2.12:10001\n";
        assert_eq!(sent_on(Subject::Nginx, log), ["203.0.113.7:40001"]);
        let log = "203.0.113.7:40000 0\n203.0.113.7:40001 +1\n203.0.113.7:40002 2\n";
        assert_eq!(sent_on(Subject::Haproxy, log), ["203.0.113.7:40001", "203.0.113.7:40002"]);
    }
}
