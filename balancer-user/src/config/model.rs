//! What a configuration says, as types: each has what its table in the text has, and what its documentation says holds.
//!
//! Deliberately absent: how a text becomes one; that is the readers', a file for each table.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;

use super::Token;
use crate::program::CommandLine;

/// A whole configuration. All names are unique in their scope, all listening addresses too; no backend is one, or a
/// source address; and all addresses of a pool are of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What concerns the machine.
    pub gateway: Gateway,
    /// What machines and people are shown, if they are shown anything.
    pub http: Option<Http>,
    /// At least one.
    pub pools: Vec<Pool>,
    /// What a person should know, in the order of the text.
    pub warnings: Vec<Warning>,
}

/// Something that is allowed, and may not be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where, from 1.
    pub line: usize,
    /// Where in it, from 1.
    pub column: usize,
    /// What, and what follows from it.
    pub message: String,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// At least one, each once.
    pub interfaces: Vec<String>,
    /// How XDP is attached.
    pub xdp_mode: XdpMode,
    /// Established flows at most.
    pub max_flows: u32,
    /// Handshakes at most.
    pub max_half_open: u32,
    /// An established flow without a packet for this long is forgotten.
    pub idle_timeout: Duration,
    /// What is run for every event that wants a person.
    pub notify: Option<CommandLine>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where the dashboard and `/metrics` are.
    pub listen: SocketAddr,
    /// Where the token stands; without one the dashboard only shows.
    pub token_file: Option<PathBuf>,
    /// After [`Parsed::check`] there if its file is.
    pub token: Option<Token>,
}

/// Where in the kernel an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, or else generic with a warning.
    Auto,
    /// In the driver.
    Native,
    /// Behind the driver, on any device.
    Generic,
}

/// `[[pool]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Unique.
    pub name: String,
    /// Whose address the backends see.
    pub forwarding: Forwarding,
    /// How the pool leaves a backend that fails.
    pub failover: Failover,
    /// How the pool returns to an earlier backend.
    pub failback: Failback,
    /// What becomes of new flows while no backend is eligible.
    pub when_all_down: WhenAllDown,
    /// What becomes of the flows of a backend that failed.
    pub on_backend_down: OnBackendDown,
    /// What a client's connection attempt that a backend did not take says about that backend.
    pub passive: Passive,
    /// What becomes of such an attempt.
    pub connect_retry: ConnectRetry,
    /// A SYN without an answer for this long was not taken.
    pub connect_timeout: Duration,
    /// How long a drained backend's flows may go on, if the operator doesn't say.
    pub drain_deadline: Duration,
    /// How long a cold standby may take to come up.
    pub start_timeout: Duration,
    /// Source addresses towards the backends, each once, of the services' family, at most 16; empty: the one that the
    /// kernel would use. Always empty with [`Forwarding::Dnat`].
    pub snat_addresses: Vec<IpAddr>,
    /// Source ports towards the backends, sorted and disjoint; after [`Parsed::check`] without those that the machine
    /// uses itself and those that services and the daemon listen on, in 1 to 32 ranges.
    pub snat_ports: Vec<RangeInclusive<u16>>,
    /// At least one.
    pub services: Vec<Service>,
    /// At least one that isn't disabled, and settled; as written: `backup` is not sorted behind yet.
    pub backends: Vec<Backend>,
    /// In this order they run around a change of the active backend; names are unique.
    pub hooks: Vec<Hook>,
}

/// Whose address the backends see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// The gateway's: their answers find the way by themselves.
    Snat,
    /// The client's: their route back must lead through the gateway.
    Dnat,
}

/// How a pool leaves a backend that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// By itself.
    Auto,
    /// It asks the operator.
    Manual,
}

/// What becomes of new flows while no backend is eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllDown {
    /// They go on to the last active one.
    Last,
    /// They are answered with RST.
    Reject,
}

/// What becomes of the flows of a backend that failed, once the pool has moved away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBackendDown {
    /// They are ended with RST.
    Reset,
    /// They are left alone.
    Keep,
}

/// What a client's connection attempt that a backend did not take says about that backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passive {
    /// That it is to be probed at once.
    Probe,
    /// That it failed, as nginx has it.
    Count,
    /// Nothing.
    Off,
}

/// What becomes of a client's connection attempt that a backend did not take. In a pool with `before` hooks both ways of
/// going on mean the same: it waits for the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectRetry {
    /// It goes on to the next backend at once.
    Instant,
    /// The client's own repetition goes to the next backend.
    Retransmit,
    /// Its client sees that.
    Off,
}

/// When a pool goes back to the first eligible backend in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// When the operator says so.
    Manual,
    /// By itself.
    Auto {
        /// After that backend was up without interruption for this long.
        delay: Duration,
    },
}

/// `[[pool.service]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique in its pool.
    pub name: String,
    /// Unique among all pools, port above 0.
    pub listen: SocketAddr,
    /// Above 0.
    pub backend_port: u16,
    /// Plain HTTP that is sent here.
    pub redirect: Option<Redirect>,
    /// How the backends are probed at this port.
    pub probe: Probe,
}

/// `redirect_http` and `redirect_hosts`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Where plain HTTP is answered; nothing else listens there.
    pub listen: SocketAddr,
    /// Whom it may lead to, names and addresses; at least one, and the first for who came by none of them.
    pub hosts: Vec<String>,
}

/// `[pool.service.probe]`, over `[pool.probe]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub check: Check,
    /// Between probes of a backend that is up or down.
    pub interval: Duration,
    /// Between probes of a suspect, and in probation; at most `interval`.
    pub fast_interval: Duration,
    /// No answer for this long is a failure; may be longer than `interval`.
    pub timeout: Duration,
    /// Good signals in probation before a backend is up again.
    pub rise: u32,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A full TLS handshake.
    Tls {
        /// SNI, and the name to verify; none: a backend's host name. Where `verify` isn't off, each backend has one then.
        server_name: Option<String>,
        /// Whom to trust.
        verify: Verify,
    },
    /// The same, and then a request over it.
    Https {
        /// As in [`Check::Tls`]; also whom to ask for, as in [`Check::Http`].
        server_name: Option<String>,
        /// Whom to trust.
        verify: Verify,
        /// What to ask.
        question: Question,
    },
    /// A request over TCP.
    Http {
        /// Whom to ask for; none: a backend's host name, or its address.
        server_name: Option<String>,
        /// What to ask.
        question: Question,
    },
    /// A TCP handshake.
    Tcp,
    /// A program, whose exit code 0 is good.
    Exec {
        /// What is run.
        run: CommandLine,
    },
    /// Nothing.
    None,
}

/// What an HTTP probe asks, and which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What to GET.
    pub path: PathAndQuery,
    /// Good statuses, sorted and disjoint.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Must be in the body; empty: the body does not matter.
    pub expect_body: String,
}

/// Which certificates a TLS probe accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Any.
    Off,
    /// Those under the system's roots.
    SystemRoots,
    /// Those under the certificates in this file.
    CaFile(PathBuf),
}

/// `[[pool.backend]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its pool.
    pub name: String,
    /// Unique in its pool; unspecified if it is given by a name and nobody was asked ([`Names::LeftAlone`]), or nobody knows
    /// ([`Config::settled`]).
    pub address: IpAddr,
    /// The host name by which it is given, if it is.
    pub host: Option<String>,
    /// Failures within `fail_timeout` that make it down; 0: never.
    pub max_fails: u32,
    /// The window in which failures count, and how long the backend then stays down.
    pub fail_timeout: Duration,
    /// How long relapses may keep it down; at least `fail_timeout`.
    pub fail_timeout_max: Duration,
    /// Behind all backends without this flag.
    pub backup: bool,
    /// A standby that doesn't run until the hooks start it.
    pub cold: bool,
    /// Never used (nginx's `down`).
    pub disabled: bool,
}

/// `[[pool.hook]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Unique in its pool; one line for people.
    pub name: String,
    /// When it runs.
    pub when: HookWhen,
    /// What is run.
    pub run: CommandLine,
    /// It is ended then.
    pub timeout: Duration,
    /// What follows when it fails.
    pub on_error: OnError,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookWhen {
    /// Before anything new reaches the new backend.
    Before,
    /// Once that is active.
    After,
}

impl Pool {
    /// Whether steps are taken before another backend serves; they hand the role over.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        self.hooks.iter().any(|hook| hook.when == HookWhen::Before)
    }
}

impl HookWhen {
    /// As in the configuration.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// What follows when a hook fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The change stops there until the operator decides.
    Hold,
    /// The next step.
    Continue,
}
