//! How much CPU time the whole machine spends: with packets that are handled in softirqs, on whichever CPU they come
//! up, no process's own time tells what a connection costs.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// USER_HZ: /proc/stat is in hundredths of a second on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A moment, and what the machine's CPUs had not done until then.
#[derive(Debug, Clone, Copy)]
pub struct Busy {
    at: Instant,
    cpus: f64,
    /// Idle, waiting for disks, or taken by the hypervisor.
    not_ours_s: f64,
}

impl Busy {
    /// Now.
    ///
    /// # Errors
    /// When /proc/stat can't be read.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let (cpus, ticks) = read(&text).context("a /proc/stat of another form")?;
        Ok(Self { at: Instant::now(), cpus, not_ours_s: ticks as f64 / TICKS_PER_SECOND })
    }

    /// Wall-clock seconds, and CPU seconds that were spent on all CPUs, since then. Idle time is what the kernel
    /// counts exactly; what else is in /proc/stat is sampled by the tick.
    ///
    /// # Errors
    /// When /proc/stat can't be read.
    pub fn since(&self) -> Result<(f64, f64)> {
        let now = Self::now()?;
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        let busy = seconds * self.cpus - (now.not_ours_s - self.not_ours_s);
        Ok((seconds, busy.max(0.0)))
    }

    /// CPU seconds a second, over this long, of whatever else runs.
    ///
    /// # Errors
    /// When /proc/stat can't be read.
    pub fn meanwhile(time: Duration) -> Result<f64> {
        let before = Self::now()?;
        thread::sleep(time);
        let (seconds, busy) = before.since()?;
        Ok(busy / seconds)
    }
}

/// How many CPUs, and the sum of ticks of idle, iowait and steal.
fn read(text: &str) -> Option<(f64, u64)> {
    let cpus = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = all.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [_user, _nice, _system, idle, iowait, _irq, _softirq, steal, ..] = ticks[..] else { return None };
    Some((cpus as f64, idle + iowait + steal))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_ours() {
        let text = "cpu  10 0 20 300 4 0 7 50 0 0\ncpu0 5 0 10 150 2 0 3 25 0 0\ncpu1 5 0 10 150 2 0 4 25 0 0\nintr 1\n";
        assert_eq!(read(text), Some((2.0, 354)));
        assert_eq!(read("cpu 1 2 3\n"), None);
    }
}
