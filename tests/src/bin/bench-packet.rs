//! What a packet costs in the kernel, beside a peer over the kernel's own table.
//!
//! Exits with 1 when something is slower or larger than is promised; not with `--quick`, which only shows that
//! everything works. Deliberately not here: a build; `cargo xtask` does that and names the objects.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use balancer_tests::packet_bench::{Options, What, run};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures what a packet costs in the kernel, in a lab of its own (needs root)")]
struct Arguments {
    /// The BPF object that makes packets and has the peers
    #[arg(long, value_name = "PATH")]
    bench_object: PathBuf,
    /// Where every round is written to
    #[arg(long, value_name = "DIRECTORY")]
    output: PathBuf,
    /// Only see that everything works: few packets, and no judgement about times
    #[arg(long)]
    quick: bool,
    /// Only what walks over all flows take, as the daemon counts, ages and lists them
    #[arg(long)]
    walks: bool,
    /// How often each row is measured
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
}

fn main() -> Result<ExitCode> {
    let Arguments { bench_object, output, quick, walks, rounds } = Arguments::parse();
    let what = if walks { What::Walks } else { What::Everything };
    if run(&Options { bench_object, output, what, quick, rounds })? {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("slower or larger than promised: see what was missed above");
    Ok(ExitCode::FAILURE)
}
