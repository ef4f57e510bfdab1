//! What probes of 500 backends cost, and how evenly they start.
//!
//! Exits with 1 when it is more than is promised; not with `--quick`, which only shows that everything works.
//! Deliberately not here: a build; `cargo xtask` does that and names the binary.

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use balancer_tests::probe_bench::{Options, run};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures what probes cost, in a lab of its own (needs root)")]
struct Arguments {
    /// The balancer to measure
    #[arg(long, value_name = "PATH")]
    balancer: PathBuf,
    /// Only see that everything works: one short round, and no judgement about times
    #[arg(long)]
    quick: bool,
    /// How often it is measured
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
}

fn main() -> Result<ExitCode> {
    let Arguments { balancer, quick, rounds } = Arguments::parse();
    ensure!(balancer.is_file(), "{}: no such file; `cargo xtask build` makes it", balancer.display());
    let lab_host = env::current_exe().context("find this program")?.with_file_name("lab-host");
    if run(&Options { balancer, lab_host, quick, rounds })? {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("more than promised: see what was missed above");
    Ok(ExitCode::FAILURE)
}
