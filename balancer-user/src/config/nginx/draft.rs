//! A configuration of balancer with comments, before it is text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::model::Left;

/// All of it.
#[derive(Debug)]
pub(super) struct Draft {
    /// What was imported.
    pub(super) file: String,
    /// Those given; none: examples are written.
    pub(super) interfaces: Vec<String>,
    pub(super) pools: Vec<PoolDraft>,
    /// What stands in no pool.
    pub(super) sections: Vec<Section>,
}

/// Lines that aren't carried over, and what they were part of.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) left: Vec<Left>,
}

/// `[[pool]]`
#[derive(Debug)]
pub(super) struct PoolDraft {
    pub(super) comments: Vec<String>,
    pub(super) left: Vec<Left>,
    pub(super) name: String,
    /// At least one.
    pub(super) services: Vec<ServiceDraft>,
    pub(super) backends: Vec<Entry>,
}

/// `[[pool.service]]`
#[derive(Debug)]
pub(super) struct ServiceDraft {
    pub(super) comments: Vec<String>,
    pub(super) left: Vec<Left>,
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    /// The address is none of nginx's or of `--vip`.
    pub(super) is_placeholder: bool,
    pub(super) backend_port: u16,
    pub(super) probe: ProbeDraft,
    /// Where nginx redirects plain HTTP to this service.
    pub(super) redirect: Option<RedirectDraft>,
}

/// `redirect_http` and `redirect_hosts`
#[derive(Debug)]
pub(super) struct RedirectDraft {
    /// The line of nginx's.
    pub(super) by: String,
    pub(super) listen: SocketAddr,
    /// Those that are known.
    pub(super) hosts: Vec<String>,
}

/// `[pool.probe]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProbeDraft {
    pub(super) comment: String,
    pub(super) check: CheckDraft,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckDraft {
    Tcp,
    /// TLS, any certificate.
    TlsUnverified,
    Tls {
        server_name: String,
        ca_file: Option<PathBuf>,
    },
}

/// A server of nginx's: as a backend, or why it is none.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) comments: Vec<String>,
    pub(super) backend: Option<BackendDraft>,
}

/// `[[pool.backend]]`
#[derive(Debug, Clone)]
pub(super) struct BackendDraft {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) max_fails: u32,
    pub(super) fail_timeout: Duration,
    pub(super) backup: bool,
    pub(super) disabled: bool,
}
