//! What a path through balancer gives and costs, beside paths through its peers; `cargo xtask bench path` builds and
//! starts it. What it does is in `src/path.rs`.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    path::{PREFACE, Plan, Programs, Stand, measure, report},
    peers::Peers,
};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures paths through balancer and its peers, in a lab of its own (needs root)")]
struct Arguments {
    /// The balancer to measure
    #[arg(long, value_name = "PATH")]
    balancer: PathBuf,
    /// The BPF object with the programs that measure
    #[arg(long, value_name = "PATH")]
    object: PathBuf,
    #[command(flatten)]
    peers: Peers,
    /// How often each subject has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// For each value
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    window_ms: u64,
    /// The folder of the raw output
    #[arg(long, value_name = "PATH", default_value = "target/bench")]
    output: PathBuf,
    /// Write the document here
    #[arg(long, value_name = "PATH")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match bench(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-path: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: Arguments) -> Result<()> {
    let Arguments { balancer, object, peers, .. } = arguments;
    for file in [&balancer, &object] {
        ensure!(file.is_file(), "{}: no such file; `cargo xtask bench path` makes it", file.display());
    }
    let lab_host = env::current_exe().context("find this program")?.with_file_name("lab-host");
    let programs = Programs { balancer, lab_host, object, peers };
    let plan = Plan { rounds: arguments.rounds, window: Duration::from_millis(arguments.window_ms) };

    fs::create_dir_all(&arguments.output).with_context(|| format!("make {}", arguments.output.display()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the time of day")?.as_secs();
    let raw = arguments.output.join(format!("path-{now}.jsonl"));
    let mut raw_file = File::create(&raw).with_context(|| format!("create {}", raw.display()))?;

    let stand = Stand::build(programs.clone())?;
    let samples = measure(&stand, plan, &mut raw_file)?;
    drop(stand);
    let report = report(&samples, plan, &programs);
    print!("{report}");
    let summary = raw.with_extension("md");
    fs::write(&summary, &report).with_context(|| format!("write {}", summary.display()))?;
    println!("\nraw output: {}", raw.display());
    if let Some(document) = arguments.write {
        if let Some(folder) = document.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&document, format!("{PREFACE}\n{report}"))
            .with_context(|| format!("write {}", document.display()))?;
        println!("written: {}", document.display());
    }
    Ok(())
}
