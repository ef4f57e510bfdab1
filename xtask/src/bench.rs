//! Builds everything and starts a benchmark, which lives with the tests: it uses the same labs.

use anyhow::Result;

use crate::build::{bench_object, path_object};
use crate::demo::build_with_labs;
use crate::run::{root, run, target};
use crate::setup::{self, as_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// From the death or silence of the primary to the first connection on the backup
    Failover {
        /// How often each
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// What a packet costs in the kernel, beside a peer over the kernel's own table
    Packet {
        /// Only see that everything works: few packets, and no judgement about times
        #[arg(long)]
        quick: bool,
        /// Only what walks over all flows take, as the daemon counts, ages and lists them
        #[arg(long)]
        walks: bool,
        /// How often each is measured
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
    },
    /// What probes of 500 backends cost the daemon, and how evenly they start
    Probes {
        /// Only see that everything works: one short round, and no judgement about times
        #[arg(long)]
        quick: bool,
        /// How often it is measured [default: 5]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
    },
    /// What clients notice when the primary dies or goes silent, beside nginx and HAProxy
    Retry {
        /// Only see that everything works: one short round, and no judgement about times
        #[arg(long)]
        quick: bool,
        /// How often each is measured [default: 5]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
        /// Write docs/benchmarks-retry.md
        #[arg(long, conflicts_with = "quick")]
        write: bool,
    },
    /// Connections, latency, bulk, frames and CPU of whole paths, beside routing, nft, nginx and HAProxy
    Path {
        /// Only see that everything works: one short round, and no judgement about times
        #[arg(long)]
        quick: bool,
        /// How often each is measured [default: 5]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
        /// Write docs/benchmarks.md
        #[arg(long, conflicts_with = "quick")]
        write: bool,
    },
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    match arguments.what {
        What::Failover { runs } => failover(runs),
        What::Packet { quick, walks, rounds } => packet(quick, walks, rounds),
        What::Probes { quick, rounds } => probes(quick, rounds),
        What::Retry { quick, rounds, write } => retry(quick, rounds, write),
        What::Path { quick, rounds, write } => path(quick, rounds, write),
    }
}

fn failover(runs: u32) -> Result<()> {
    let built = build_with_labs()?;
    let binary = built.binary.to_string_lossy().into_owned();
    run(&mut as_root(&[&program("bench-failover"), "--balancer", &binary, "--runs", &runs.to_string()]))
}

fn packet(quick: bool, walks: bool, rounds: Option<u32>) -> Result<()> {
    let object = bench_object()?.to_string_lossy().into_owned();
    build_with_labs()?;
    let output = target().join("bench").to_string_lossy().into_owned();
    let program = program("bench-packet");
    let mut words = vec![program.as_str(), "--bench-object", &object, "--output", &output];
    if quick {
        words.push("--quick");
    }
    if walks {
        words.push("--walks");
    }
    let rounds = rounds.map(|rounds| rounds.to_string());
    if let Some(rounds) = &rounds {
        words.extend(["--rounds", rounds]);
    }
    run(&mut as_root(&words))
}

fn probes(quick: bool, rounds: Option<u32>) -> Result<()> {
    let built = build_with_labs()?;
    let mut bench = as_root(&[&program("bench-probes")]);
    bench.arg("--balancer").arg(&built.binary);
    if quick {
        bench.arg("--quick");
    }
    if let Some(rounds) = rounds {
        bench.arg("--rounds").arg(rounds.to_string());
    }
    run(&mut bench)
}

fn retry(quick: bool, rounds: Option<u32>, write: bool) -> Result<()> {
    let peers = setup::for_peers()?;
    let built = build_with_labs()?;
    let mut bench = as_root(&[&program("bench-retry")]);
    bench.arg("--balancer").arg(&built.binary).arg("--output").arg(target().join("bench"));
    peers.tell(&mut bench);
    if quick {
        bench.arg("--quick");
    }
    if let Some(rounds) = rounds {
        bench.arg("--rounds").arg(rounds.to_string());
    }
    if write {
        bench.arg("--write").arg(root().join("docs/benchmarks-retry.md"));
    }
    run(&mut bench)
}

fn path(quick: bool, rounds: Option<u32>, write: bool) -> Result<()> {
    let peers = setup::for_peers()?;
    let object = path_object()?;
    let built = build_with_labs()?;
    let mut bench = as_root(&[&program("bench-path")]);
    bench.arg("--balancer").arg(&built.binary).arg("--object").arg(&object);
    peers.tell(&mut bench);
    bench.arg("--output").arg(target().join("bench"));
    if quick {
        bench.args(["--window-ms", "200"]);
    }
    let rounds = rounds.or(quick.then_some(1));
    if let Some(rounds) = rounds {
        bench.arg("--rounds").arg(rounds.to_string());
    }
    if write {
        bench.arg("--write").arg(root().join("docs/benchmarks.md"));
    }
    run(&mut bench)
}

/// A program of the tests that is built with the labs.
fn program(name: &str) -> String {
    target().join("release").join(name).to_string_lossy().into_owned()
}
