//! What each verb takes, by its own name; what the verbs are, and what all of them take, is in the module above.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use super::{LogFormat, watch};
use crate::control::protocol::{DEFAULT_EVENTS, MAX_EVENTS};

/// `balancer run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Give up pinned state that can't be taken over; live flows break
    #[arg(long)]
    pub replace: bool,
    /// On SIGTERM, remove everything from the kernel instead of leaving traffic running
    #[arg(long)]
    pub detach_on_exit: bool,
    /// How the log is written to stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// `balancer check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// Leave host names, interfaces and root certificates alone: check on another machine than the gateway
    #[arg(long)]
    pub no_resolve: bool,
    /// Tell in words what would be applied, and what is as it is by default; not with -o json
    #[arg(long)]
    pub explain: bool,
}

/// `balancer status`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct StatusArgs {
    /// Show this pool only
    pub pool: Option<String>,
    /// Exit with 6 when a shown pool is not on an up backend
    #[arg(long, conflicts_with = "watch")]
    pub exit_code: bool,
    /// Whether once.
    #[command(flatten)]
    pub watch: watch::Watch,
}

/// `balancer stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StatsArgs {
    /// Whether once.
    #[command(flatten)]
    pub watch: watch::Watch,
}

/// `balancer flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct FlowsArgs {
    /// Show flows of this pool only
    #[arg(long)]
    pub pool: Option<String>,
    /// Show flows to backends of this name only
    #[arg(long)]
    pub backend: Option<String>,
    /// Show flows of this client only
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Show so many at most: any of them, as there is no order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// `balancer events`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// Show so many of the newest, at most 10000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_EVENTS)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=MAX_EVENTS))]
    pub limit: u64,
    /// Then wait for more and show each as it happens, until the daemon ends; in JSON one object a line
    #[arg(long)]
    pub follow: bool,
    /// Show events of this pool only
    #[arg(long)]
    pub pool: Option<String>,
}

/// `balancer trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct TraceArgs {
    /// Show packets from or to this client only, also those that are not for a service
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Show packets of this service only; POOL/SERVICE, where several pools have one of this name
    #[arg(long, value_name = "S")]
    pub service: Option<String>,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// `balancer why`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct WhyArgs {
    /// The pool to explain
    pub pool: String,
}

/// `balancer failover`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct FailoverArgs {
    /// The pool to move
    pub pool: String,
    /// The backend to make active
    #[arg(long, value_name = "BACKEND")]
    pub to: Option<String>,
    /// Go there although it isn't eligible; with --to also out of a change that is held
    #[arg(long)]
    pub force: bool,
    /// Reset the flows of the backend that was active
    #[arg(long)]
    pub reset: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// For every verb that changes something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Wait {
    /// Don't wait until it is done, only until it has begun
    #[arg(long)]
    pub no_wait: bool,
}

/// `balancer failback`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct FailbackArgs {
    /// The pool to move
    pub pool: String,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `balancer drain`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DrainArgs {
    /// The pool
    pub pool: String,
    /// The backend to take out of use
    pub backend: String,
    /// Reset what is left after this long, as in `90s` [default: the pool's drain_deadline]
    #[arg(long, value_name = "D", value_parser = crate::duration::parse)]
    pub deadline: Option<Duration>,
    /// Though no other backend is eligible
    #[arg(long)]
    pub force: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `balancer maint`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct MaintArgs {
    /// The pool
    pub pool: String,
    /// The backend to take out of use
    pub backend: String,
    /// Though no other backend is eligible
    #[arg(long)]
    pub force: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `balancer ready`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ReadyArgs {
    /// The pool
    pub pool: String,
    /// The backend to put back
    pub backend: String,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `balancer resume`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ResumeArgs {
    /// The pool that is held
    pub pool: String,
    /// How to go on.
    #[command(flatten)]
    pub how: Resumption,
    /// How to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// `balancer reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ReloadArgs {
    /// Take it back after this long, as in `60s`, unless `reload --confirmed` comes before
    #[arg(long, value_name = "D", value_parser = crate::duration::parse)]
    pub confirm: Option<Duration>,
    /// Keep what the last `reload --confirm` has changed
    #[arg(long, conflicts_with = "confirm")]
    pub confirmed: bool,
    /// Don't wait until it is done: `balancer events` tells what comes of it
    #[arg(long, conflicts_with_all = ["confirm", "confirmed"])]
    pub no_wait: bool,
}

/// One of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Resumption {
    /// Do what failed once more
    #[arg(long)]
    pub retry: bool,
    /// Go on without it
    #[arg(long)]
    pub skip: bool,
}
