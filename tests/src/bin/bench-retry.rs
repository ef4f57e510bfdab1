//! What clients notice when the primary fails, behind balancer and its peers; `cargo xtask bench retry` builds and starts
//! it. What it does is in `src/retry_bench.rs`.
//!
//! Exits with 1 when balancer gives less than is promised; not with `--quick`, which only shows that everything works.

use std::{
    env, fs,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    peers::Peers,
    retry_bench::{Options, PREFACE, run},
    site::Programs,
};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures what clients notice when a server fails, in labs of its own (needs root)")]
struct Arguments {
    /// The balancer to measure
    #[arg(long, value_name = "PATH")]
    balancer: PathBuf,
    #[command(flatten)]
    peers: Peers,
    /// Only see that everything works: one short round, and no judgement about times
    #[arg(long)]
    quick: bool,
    /// How often each subject has its turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Only subjects whose name contains this
    #[arg(long, value_name = "TEXT", conflicts_with = "write")]
    only: Option<String>,
    /// The folder of the raw output
    #[arg(long, value_name = "PATH", default_value = "target/bench")]
    output: PathBuf,
    /// Write the document here
    #[arg(long, value_name = "PATH")]
    write: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let Arguments { balancer, peers, quick, rounds, only, output, write } = Arguments::parse();
    ensure!(balancer.is_file(), "{}: no such file; `cargo xtask bench retry` makes it", balancer.display());
    let lab_host = env::current_exe().context("find this program")?.with_file_name("lab-host");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the time of day")?.as_secs();
    let raw = output.join(format!("retry-{now}.jsonl"));
    let programs = Programs { balancer, lab_host };
    let (report, is_as_promised) = run(&Options { programs, peers, raw: raw.clone(), quick, rounds, only })?;
    print!("{report}");
    let summary = raw.with_extension("md");
    fs::write(&summary, &report).with_context(|| format!("write {}", summary.display()))?;
    println!("\nraw output: {}", raw.display());
    if let Some(document) = write {
        if let Some(folder) = document.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&document, format!("{PREFACE}\n{report}"))
            .with_context(|| format!("write {}", document.display()))?;
        println!("written: {}", document.display());
    }
    if is_as_promised {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("less than promised: see what was missed above");
    Ok(ExitCode::FAILURE)
}
