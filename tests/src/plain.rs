//! Plain TCP as fast as it goes, for measuring what stands between a client and a server: a server that echoes or
//! pours, clients that connect, converse, read, or replay a frame, and the emptiest XDP programs. The program is `lab-host plain`; what it is
//! measured for is in `path/`.
//!
//! Each client warms up, then counts within a window, with the CPU time that the whole machine spent in it, and prints
//! one JSON report. One thread and epoll, for client and server: they share a small machine with what is measured.
//! Deliberately not here: TLS (`traffic/` has that), and any judgement.

mod ack;
mod busy;
mod connections;
mod conversation;
mod flood;
mod idle;
mod percentile;
mod programs;
mod server;
mod streams;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use serde_json::Value;

pub use busy::Busy;
pub use percentile::percentile;
pub use server::echoes;

use server::REQUEST_BYTES;

/// What `lab-host plain` does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Echo what comes in, or pour bytes to who asks for them by a `d`; prints `ready` once listening
    Serve {
        /// Where
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
    },
    /// Connect, ask, read the answer, close, and again
    Connections {
        /// To whom, and how long
        #[command(flatten)]
        window: Window,
        /// How many at a time
        #[arg(long, default_value_t = 1)]
        parallel: usize,
    },
    /// Ask and read the answer again and again, in one connection
    Conversation {
        /// To whom, and how long
        #[command(flatten)]
        window: Window,
    },
    /// Open connections, have one answer on each, print `ready`, and report how they end
    Idle {
        /// To whom
        #[arg(long)]
        target: SocketAddr,
        /// How many
        #[arg(long)]
        connections: usize,
        /// For how long their end is waited for, in milliseconds
        #[arg(long, value_parser = milliseconds, default_value = "30000")]
        patience_ms: Duration,
    },
    /// Read all that the server can pour
    Streams {
        /// To whom, and how long
        #[command(flatten)]
        window: Window,
        /// How many connections
        #[arg(long, default_value_t = 1)]
        streams: usize,
    },
    /// Replay the last bare ACK of a connection, in frames of 64 bytes; prints `ready`, and runs until it is killed
    Flood {
        /// To whom
        #[arg(long)]
        target: SocketAddr,
        /// The benchmarks' BPF object
        #[arg(long, value_name = "PATH")]
        object: PathBuf,
        /// Where the frames leave
        #[arg(long)]
        interface: String,
        /// Frames of a connection that there isn't, for a way that no connection fits through
        #[arg(long)]
        made_up: bool,
    },
    /// Redirect all that comes in by an empty XDP program; prints `ready`, and runs until it is killed
    Redirect {
        /// The benchmarks' BPF object
        #[arg(long, value_name = "PATH")]
        object: PathBuf,
        /// Where frames come in
        #[arg(long)]
        from: String,
        /// Where they leave
        #[arg(long)]
        to: String,
    },
    /// Drop all that comes in by an empty XDP program; prints `ready`, and runs until it is killed
    Discard {
        /// The benchmarks' BPF object
        #[arg(long, value_name = "PATH")]
        object: PathBuf,
        /// Where frames come in
        #[arg(long)]
        interface: String,
    },
}

/// Against whom, and how long.
#[derive(Debug, Clone, Copy, Args)]
pub struct Window {
    /// A server of `serve`, or what leads to one
    #[arg(long)]
    target: SocketAddr,
    /// What isn't counted, at the start, in milliseconds
    #[arg(long, value_parser = milliseconds, default_value = "200")]
    warm_up_ms: Duration,
    /// What is counted after that, in milliseconds
    #[arg(long, value_parser = milliseconds, default_value = "1000")]
    window_ms: Duration,
}

/// Keeps the calling thread, and those that it starts from now on, on one CPU.
///
/// # Errors
/// When there is no such CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("stay on CPU {cpu}"))
}

/// What a process begins with is often less than the connections of one benchmark.
fn open_as_many_files_as_there_may_be() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("raise the limit of open files")
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

impl Verb {
    /// Does it; `None` from what serves.
    ///
    /// # Errors
    /// When it can't be done at all. A failed connection among many is in the report.
    pub fn run(&self) -> Result<Option<Value>> {
        open_as_many_files_as_there_may_be()?;
        match self {
            Self::Serve { listen } => server::serve(listen).map(|()| None),
            Self::Connections { window, parallel } => connections::connections(window, *parallel).map(Some),
            Self::Conversation { window } => conversation::conversation(window).map(Some),
            Self::Idle { target, connections, patience_ms } => {
                idle::idle(*target, *connections, *patience_ms).map(Some)
            }
            Self::Streams { window, streams } => streams::streams(window, *streams).map(Some),
            Self::Flood { target, object, interface, made_up } => {
                flood::flood(*target, object, interface, *made_up).map(|()| None)
            }
            Self::Redirect { object, from, to } => programs::redirect(object, from, to).map(|()| None),
            Self::Discard { object, interface } => programs::discard(object, interface).map(|()| None),
        }
    }
}
