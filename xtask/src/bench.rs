//! Builds everything and starts a benchmark, which lives with the tests: it uses the same labs.

use anyhow::Result;

use crate::build::bench_object;
use crate::demo::build_with_labs;
use crate::run::{run, target};
use crate::setup::as_root;

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
        /// How often each is measured
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
    },
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    match arguments.what {
        What::Failover { runs } => failover(runs),
        What::Packet { quick, rounds } => packet(quick, rounds),
    }
}

fn failover(runs: u32) -> Result<()> {
    let built = build_with_labs()?;
    let binary = built.binary.to_string_lossy().into_owned();
    run(&mut as_root(&[&program("bench-failover"), "--balancer", &binary, "--runs", &runs.to_string()]))
}

fn packet(quick: bool, rounds: Option<u32>) -> Result<()> {
    let object = bench_object()?.to_string_lossy().into_owned();
    build_with_labs()?;
    let output = target().join("bench").to_string_lossy().into_owned();
    let program = program("bench-packet");
    let mut words = vec![program.as_str(), "--bench-object", &object, "--output", &output];
    if quick {
        words.push("--quick");
    }
    let rounds = rounds.map(|rounds| rounds.to_string());
    if let Some(rounds) = &rounds {
        words.extend(["--rounds", rounds]);
    }
    run(&mut as_root(&words))
}

/// A program of the tests that is built with the labs.
fn program(name: &str) -> String {
    target().join("release").join(name).to_string_lossy().into_owned()
}
