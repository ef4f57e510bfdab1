//! What probes cost: the daemon's CPU time for 500 backends probed by TLS every 2 s, and how evenly they start.
//!
//! The time is the kernel's account of the daemon's process. On virtual cables the kernel does most of the other side's
//! network work at the sender's expense, so it is rather too high; the handshakes of the server aren't in it. Starts are
//! as the server sees them, which on a busy machine is later than they were: the median of the rounds counts.
//! Deliberately not here: the first round after the start, which comes at once on purpose, and failures, which the
//! policy's own tests have.

mod server;
mod stand;

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{packet_bench::machine::Machine, plain::percentile};
use server::now_us;
pub use server::serve;
use stand::{INTERVAL, Stand, TARGETS};

/// Of one core.
const CPU_MAX_PERCENT: f64 = 25.0;
/// Starts in the busiest tenth of a second, over those in an average one.
const CROWD_MAX: f64 = 2.0;
const TENTH_US: u64 = 100_000;
/// USER_HZ: processes' times are in hundredths of a second on every architecture that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// `balancer`.
    pub balancer: PathBuf,
    /// `lab-host`.
    pub lab_host: PathBuf,
    /// As little as shows that everything works, and no judgement.
    pub quick: bool,
    /// How often; `None`: as often as is usual.
    pub rounds: Option<u32>,
}

/// One look at a daemon at work.
#[derive(Clone, Copy, Debug)]
struct Round {
    cpu_percent: f64,
    /// Starts in an average tenth of a second.
    mean: f64,
    /// Starts in the busiest 100 ms, wherever they begin.
    busiest: usize,
}

/// Measures and prints; says whether everything is as promised, and it always is when nothing is judged.
///
/// # Errors
/// When something can't be started or read, or fewer probes came than should have.
pub fn run(options: &Options) -> Result<bool> {
    let window = Duration::from_secs(if options.quick { 4 } else { 20 });
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let stand = Stand::start(options)?;
    println!("{}", Machine::here()?);
    println!(
        "{TARGETS} backends probed by TLS (ECDSA P-256) every {INTERVAL:?}; {rounds} rounds of {window:?}"
    );
    // From the start's round, which came at once, to the even spread.
    thread::sleep(2 * INTERVAL);
    let least = if options.quick { 0.5 } else { 0.98 };
    let rounds = (0..rounds).map(|_| round(&stand, window, least)).collect::<Result<Vec<_>>>()?;

    let cpu = show(
        "CPU of the daemon, % of a core",
        rounds.iter().map(|round| round.cpu_percent),
        CPU_MAX_PERCENT,
    )?;
    show("starts in 100 ms, mean", rounds.iter().map(|round| round.mean), f64::INFINITY)?;
    show("starts in 100 ms, most", rounds.iter().map(|round| round.busiest as f64), f64::INFINITY)?;
    let crowds = rounds.iter().map(|round| round.busiest as f64 / round.mean);
    let crowd = show("most over mean", crowds, CROWD_MAX)?;
    Ok(options.quick || cpu && crowd)
}

/// `least`: which part of the wanted probes must have come.
fn round(stand: &Stand, window: Duration, least: f64) -> Result<Round> {
    let pid = stand.gateway.pid()?;
    let (began, from_us, before) = (Instant::now(), now_us(), cpu_time(pid)?);
    thread::sleep(window);
    let (took, until_us, after) = (began.elapsed(), now_us(), cpu_time(pid)?);
    let starts = stand.starts_us()?;
    let starts: Vec<_> = starts.into_iter().filter(|at| (from_us..until_us).contains(at)).collect();
    let wanted = f64::from(TARGETS) * took.as_secs_f64() / INTERVAL.as_secs_f64();
    ensure!(
        starts.len() as f64 >= wanted * least,
        "{} probes in {took:?}, and {TARGETS} backends need {wanted:.0}: this machine is too busy for numbers",
        starts.len()
    );
    Ok(Round {
        cpu_percent: (after - before).as_secs_f64() / took.as_secs_f64() * 100.0,
        mean: starts.len() as f64 / took.as_secs_f64() / 10.0,
        busiest: busiest(&starts),
    })
}

/// Prints a row; says whether its median is within the bound.
fn show(row: &str, values: impl Iterator<Item = f64>, bound: f64) -> Result<bool> {
    let mut values: Vec<f64> = values.collect();
    let [least, median, most] = [0, 50, 100].map(|percent| percentile(&mut values, percent));
    let (least, median, most) =
        least.zip(median).zip(most).map(|((a, b), c)| (a, b, c)).context("a round")?;
    let wanted = if bound.is_finite() { format!("   wanted: at most {bound}") } else { String::new() };
    println!("{row:34} median {median:6.2} ({least:.2} to {most:.2}){wanted}");
    Ok(median <= bound)
}

/// The most that lie within 100 ms; sorted.
fn busiest(starts_us: &[u64]) -> usize {
    let mut window = VecDeque::new();
    let mut most = 0;
    for at in starts_us {
        window.push_back(*at);
        while window.front().is_some_and(|first| first + TENTH_US <= *at) {
            window.pop_front();
        }
        most = most.max(window.len());
    }
    most
}

/// All threads' time in user and kernel mode so far.
fn cpu_time(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let ticks = ticks(&text).with_context(|| format!("a {file} of another form: {text}"))?;
    Ok(TICK * ticks)
}

/// Fields 14 and 15; the program's name, which may hold anything, is the second.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 5 0 0 0 120 45 0 0 20 0 3 0 99 1 2";
        assert_eq!(ticks(stat), Some(165));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn the_busiest_tenth_of_a_second_may_begin_anywhere() {
        assert_eq!(busiest(&[0, 50_000, 60_000, 99_999, 149_999, 150_000]), 4);
        assert_eq!(busiest(&[0, 100_000, 200_000]), 1);
        assert_eq!(busiest(&[]), 0);
    }
}
