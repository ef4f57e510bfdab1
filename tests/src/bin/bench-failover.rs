//! How long a failover takes: the distribution over many runs, from the moment in which the primary is killed or
//! silenced to the first new connection that the backup has answered, and from the decision to the map write.
//!
//! Exits with 1 when one of the runs was slower than what is promised. Deliberately not here: a build; `cargo xtask`
//! does that and names the binary.

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    lab::Topology,
    site::{Options, POOL, Programs, Site, WEB},
};
use clap::Parser;

/// With these settings …
const INTERVAL: Duration = Duration::from_millis(500);
/// … a failure is seen an interval and a timeout later at worst, and a quarter of a second is for the rest.
const SWITCH_MAX_MS: f64 = 1250.0;
/// From the decision to the map write.
const WRITE_MAX_MS: f64 = 1.0;

#[derive(Parser)]
#[command(about = "Measures how long a failover takes, in a lab of its own (needs root)")]
struct Arguments {
    /// The balancer to measure
    #[arg(long, value_name = "PATH")]
    balancer: PathBuf,
    /// How many times the primary is killed, and how many times silenced
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// How the primary fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Killed,
    Silenced,
}

fn main() -> Result<ExitCode> {
    let Arguments { balancer, runs } = Arguments::parse();
    ensure!(balancer.is_file(), "{}: no such file; `cargo xtask build` makes it", balancer.display());
    let lab_host = env::current_exe().context("find this program")?.with_file_name("lab-host");
    let options = Options { interval: "500ms", fail_timeout: "1s", ..Options::default() };
    let programs = Programs { balancer, lab_host };
    let mut site = Site::start("bench", &Topology::two_armed(), options, &programs)?;

    println!(
        "{runs} runs each; 2 services probed every 500 ms, timeout 500 ms, max_fails 1; a connection every 20 ms"
    );
    println!("{:40}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "min", "p50", "p90", "max");
    let mut is_kept = true;
    for (failure, row) in [
        (Failure::Killed, "primary killed -> answer of the backup"),
        (Failure::Silenced, "primary silenced -> answer of the backup"),
    ] {
        let times =
            (0..runs).map(|run| measure(&mut site, failure, run, runs)).collect::<Result<Vec<_>>>()?;
        is_kept &= show(row, times, SWITCH_MAX_MS);
    }
    let written = site
        .gateway
        .logged("transition")
        .into_iter()
        .map(|line| line["took_ms"].as_f64().with_context(|| format!("took_ms in {line}")));
    is_kept &= show("decision -> map write", written.collect::<Result<Vec<_>>>()?, WRITE_MAX_MS);
    if is_kept {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("slower than promised: {SWITCH_MAX_MS} ms for a switch, {WRITE_MAX_MS} ms for a map write");
    Ok(ExitCode::FAILURE)
}

/// One failover and the way back; milliseconds of the first.
fn measure(site: &mut Site, failure: Failure, run: u32, runs: u32) -> Result<f64> {
    let watcher = site.watch(WEB)?;
    watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
    // What was waited for came with a probe: without this all runs would begin at the same point of the interval.
    thread::sleep(INTERVAL * run / runs);
    let failed = match failure {
        Failure::Killed => site.kill(0),
        Failure::Silenced => {
            let silenced = SystemTime::now();
            site.lab().backend(0).nft_silence()?;
            silenced
        }
    };
    let took = watcher.first_answer("server2", failed)?;
    drop(watcher);
    match failure {
        Failure::Killed => site.serve(0)?,
        Failure::Silenced => site.lab().backend(0).nft_restore()?,
    }
    site.gateway.wait_until("the primary to be up again", |status| {
        status.active() == "server2" && status.is("server1", "up")
    })?;
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    Ok(took.as_secs_f64() * 1000.0)
}

/// Prints a row; says whether the slowest is fast enough.
fn show(row: &str, mut times_ms: Vec<f64>, max_ms: f64) -> bool {
    times_ms.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let index = (times_ms.len() * percent).div_ceil(100).saturating_sub(1);
        times_ms.get(index).copied().unwrap_or(f64::NAN)
    };
    let [min, p50, p90, max] = [0, 50, 90, 100].map(percentile);
    println!("{row:40}{min:>9.2}{p50:>9.2}{p90:>9.2}{max:>9.2}");
    max <= max_ms
}
