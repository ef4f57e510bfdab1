//! The command line: what may be typed, and the verbs that ask a running daemon.
//!
//! It knows the control API's client and documents, what a dead daemon left in its state directory, and nothing else of
//! the controller: `run`, `check`, `doctor`, `import` and `detach` are parsed here and carried out by whoever calls [`parse`].
//! Here are the verbs; what each takes is in `arguments`, and what it prints in a file of its own.

mod arguments;
mod ask;
pub mod check;
pub mod doctor;
pub mod events;
mod examples;
pub mod flows;
pub mod import;
mod layout;
mod left_behind;
pub mod log;
pub mod manual;
pub mod operate;
mod rates;
pub mod reload;
pub mod remains;
pub mod schema;
pub mod stats;
pub mod status;
pub mod top;
pub mod trace;
pub mod watch;
pub mod why;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;

pub use arguments::{
    CheckArgs, DrainArgs, EventsArgs, FailbackArgs, FailoverArgs, FlowsArgs, MaintArgs, ReadyArgs,
    ReloadArgs, ResumeArgs, Resumption, RunArgs, StatsArgs, StatusArgs, TraceArgs, Wait, WhyArgs,
};

use examples::{
    CHECK_EXAMPLES, COMPLETIONS_EXAMPLES, DOCTOR_EXAMPLES, DRAIN_EXAMPLES, EVENTS_EXAMPLES, EXAMPLES,
    FAILOVER_EXAMPLES, FLOWS_EXAMPLES, MAN_EXAMPLES, RELOAD_EXAMPLES, SCHEMA_EXAMPLES, STATS_EXAMPLES,
    STATUS_EXAMPLES, TRACE_EXAMPLES, WHY_EXAMPLES,
};

/// What `--version` tells.
#[derive(Clone, Debug)]
pub struct Build {
    /// The package's version.
    pub version: &'static str,
    /// The layout of what is pinned.
    pub layout: u32,
    /// The BPF object's hash in hex; `None` when it isn't embedded.
    pub object: Option<String>,
}

impl Build {
    /// Digits of the hash that are shown: enough to tell any two builds apart.
    const SHOWN_HASH_DIGITS: usize = 12;

    fn describe(&self) -> String {
        let object: String = match &self.object {
            Some(hash) => hash.chars().take(Self::SHOWN_HASH_DIGITS).collect(),
            None => "none".to_owned(),
        };
        format!("{} (layout v{}, object {object})", self.version, self.layout)
    }
}

/// An XDP failover load balancer: a pool's new connections go to one backend, and to the next when it fails.
#[derive(Debug, Parser)]
#[command(name = "balancer", after_help = EXAMPLES, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Where things are.
    #[command(flatten)]
    pub paths: Paths,
    /// How data is printed.
    #[command(flatten)]
    format: Format,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where an instance has its files; several instances side by side have different ones.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Instance (before or after the verb)")]
pub struct Paths {
    /// Configuration; `-` reads stdin
    #[arg(long, global = true, value_name = "FILE", env = "BALANCER_CONFIG")]
    #[arg(default_value = "/etc/balancer/balancer.toml")]
    pub config: PathBuf,
    /// Control socket
    #[arg(long, global = true, value_name = "PATH", env = "BALANCER_SOCKET")]
    #[arg(default_value = "/run/balancer/control.sock")]
    pub socket: PathBuf,
    /// Directory of its own, locked while the daemon runs
    #[arg(long, global = true, value_name = "DIR", env = "BALANCER_STATE_DIR")]
    #[arg(default_value = "/var/lib/balancer")]
    pub state_dir: PathBuf,
    /// Pinned programs, links and maps, on a bpffs
    #[arg(long, global = true, value_name = "DIR", env = "BALANCER_PIN_DIR")]
    #[arg(default_value = "/sys/fs/bpf/balancer")]
    pub pin_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
struct Format {
    /// How to print data [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    output: Option<Output>,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: the document of the control API
    Json,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line an event, for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground
    ///
    /// Attaches the XDP program to the configured interfaces, probes the backends and moves pools. SIGTERM ends it
    /// and leaves traffic running; the next `run` takes everything over without a packet lost.
    Run(RunArgs),
    /// Validate the configuration, like `nginx -t`
    ///
    /// Exits 0 when `run` would accept it, 3 when not, and prints every error with its line and column. With -o json all that it
    /// finds is on stdout, and nothing on stderr.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show pools, backends, who is active (●) and why
    ///
    /// Without a daemon it tells what the kernel's maps and the state directory hold: traffic goes on as it was.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Show live flows: client, service, backend, state, age, idle time, packets and bytes
    ///
    /// In no order, those of a failed or removed backend included. A flow is half_open until its handshake is complete,
    /// established until one side ends it, then closing until it is forgotten. One that waits until its pool has a backend
    /// has none. Without --limit all flows are shown. Without a daemon those in the kernel's maps are. JSON is printed while it
    /// arrives: should it break off, which is exit code 1, its beginning has been printed.
    #[command(after_help = FLOWS_EXAMPLES)]
    Flows(FlowsArgs),
    /// Show packets, bytes and new flows per service and backend, and drops and answers by reason
    ///
    /// Totals since the maps were made, which outlive the daemon; with --watch also what they come to in a second. Each reason
    /// comes with what it means.
    #[command(after_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Show it all live in a terminal, with keys for what an operator does: drain, maint, ready, failover, failback
    ///
    /// Asks before it changes anything, and says what would follow. q ends it, ? tells the keys. Without a daemon it shows what the
    /// kernel's maps hold, and says so.
    Top,
    /// Show what happened, oldest first: health, failovers, commands, starts, each with its evidence
    ///
    /// The newest 100 unless --limit says otherwise. Without a daemon the journal in the state directory is read.
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// Show packets as they are decided about: what came, what became of it and why, a line each
    ///
    /// What XDP sends on, answers or drops no tcpdump on this gateway sees. Without --client, packets that are not for a service
    /// are left out. Of many packets a sample is shown, established flows' segments last, and how many were left out in between.
    /// All packets cost the gateway more meanwhile, so it is for root. Ctrl-C ends it.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Show why a pool is on its active backend: what led there, newest first
    ///
    /// The change to it; what was known and asked before, which is the last health of each backend, the operator's commands
    /// and alarms; and the change before that. Without a daemon the journal in the state directory is read.
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyArgs),
    /// Make another backend active now
    ///
    /// Without --to it is the next eligible one after the active one, in order. It stays active until `failback`,
    /// or until it fails, also with `failback = "auto"`. Already active: nothing happens, exit 0.
    #[command(after_help = FAILOVER_EXAMPLES)]
    Failover(FailoverArgs),
    /// Return to the first eligible backend in order
    Failback(FailbackArgs),
    /// Give a backend no new flows; old ones finish, and those left at the deadline are reset
    ///
    /// Drains outlive restarts and reboots. If it is the active backend, another becomes active first, hooks included;
    /// without another eligible one it is refused unless forced. `status` shows how many flows are left.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// As `drain`, and reset its flows at once
    Maint(MaintArgs),
    /// Put a drained backend, or one in maintenance, back into use
    Ready(ReadyArgs),
    /// Go on with a change that is held, because a hook failed or the backend to be did
    Resume(ResumeArgs),
    /// Read the configuration once more, and carry out what is another way in it, under traffic
    ///
    /// As SIGHUP does, and prints each difference. The whole file is checked first: an invalid one is refused with every error
    /// (exit 3), and nothing changes. Backends and services that are gone get no new flows; those that they have are reset
    /// at the `drain_deadline` that their pool had.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(ReloadArgs),
    /// Look at kernel, interfaces, addresses, directories and programs, and tell what mends what is wrong
    ///
    /// Works with a daemon and without, and changes nothing. Each finding has its cause and what to type; a fix that begins
    /// with # is for a person to decide. Exits 1 when something would not work. As root it sees everything.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// Make a configuration from another program's
    #[command(subcommand)]
    Import(import::Import),
    /// Remove every program, link, map and pin of this instance
    ///
    /// Traffic for the services is no longer balanced then. Refused (exit 7) beside a live daemon.
    Detach,
    /// Write the JSON schema of the configuration, or of what a verb prints with `-o json`
    ///
    /// Draft 2020-12. The configuration's knows tables, keys, types, words and bounds; what texts hold, and what must hold between
    /// keys, only `check` knows.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema(schema::SchemaArgs),
    /// Write a shell's completions to stdout
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(manual::CompletionsArgs),
    /// Write man pages: one to stdout, or all of them into a directory
    #[command(after_help = MAN_EXAMPLES)]
    Man(manual::ManArgs),
}

impl Cli {
    /// How to print data: the flag's value, or a table.
    #[must_use]
    pub fn output(&self) -> Output {
        self.format.output.unwrap_or_default()
    }
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// What clap wants printed instead: an error, the help or the version; [`usage`] does that.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    build: &Build,
) -> Result<Cli, clap::Error> {
    // clap keeps a `'static` version; the few bytes live as long as the process, which parses once.
    let version: &'static str = build.describe().leak();
    let mut command = Cli::command().version(version);
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (Verb::Check(CheckArgs { explain: true, .. }), Output::Json) = (&cli.verb, cli.output()) {
        let words =
            "--explain tells in words, and there is no JSON of it: leave out one of --explain and -o json";
        return Err(command.error(ErrorKind::ArgumentConflict, words));
    }
    Ok(cli)
}

/// Prints what [`parse`] gave instead of a command line: help and version to stdout with exit code 0, errors to
/// stderr with 2.
#[must_use]
pub fn usage(error: &clap::Error) -> Exit {
    // Nobody may be reading (`balancer --help | head -1`); that changes nothing.
    let _closed = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}
