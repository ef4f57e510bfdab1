//! The packet path's time: the kernel's jiffies, in ticks of which lines have 32 bits, and what it is in seconds.

use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use balancer_common::abi::Clock;
use balancer_common::limits::JIFFIES_PER_TICK;
use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::DataplaneError;
use super::maps::Maps;
use super::tables::take;

/// The program that reads both clocks, and where it writes them down.
const PROGRAM: &str = "read_clock";
const MAP: &str = "CLOCK";
/// The kernel runs no shorter one.
const FRAME: [u8; 64] = [0; 64];

/// A moment of the packet path: the kernel's jiffies, 64 bits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jiffies(pub(super) u64);

/// Turns moments of this process into ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowClock {
    /// Both clocks at one moment.
    read: Clock,
    jiffy_ns: u64,
}

impl FlowClock {
    /// Reads both clocks by a program of the object: nothing else tells the kernel's jiffies.
    pub(super) fn read(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let refused = |error: ProgramError| DataplaneError::Program(Box::new(error));
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or(DataplaneError::ObjectLacks("XDP program"))?;
        program.load().map_err(refused)?;
        program
            .test_run(TestRunOptions { data_in: Some(&FRAME), ..TestRunOptions::new() })
            .map_err(refused)?;
        program.unload().map_err(refused)?;
        Self::as_last_read(ebpf)
    }

    /// As a controller read both clocks last: it has gone by that, too.
    pub(super) fn as_last_read(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        let clock: Array<MapData, Clock> = take(maps, MAP)?;
        let read = clock.get(&0, 0).map_err(DataplaneError::map("reading", MAP))?;
        Ok(Self { read, jiffy_ns: jiffy_ns() })
    }

    /// The tick at a moment of `CLOCK_MONOTONIC`.
    pub(super) fn tick_at(&self, monotonic_ns: u64) -> u32 {
        (self.jiffies_at(monotonic_ns) / i128::from(JIFFIES_PER_TICK)) as u32
    }

    /// How much of the tick at a moment of `CLOCK_MONOTONIC` is over.
    pub(super) fn elapsed_of_tick_at(&self, monotonic_ns: u64) -> Duration {
        let jiffies = self.jiffies_at(monotonic_ns).rem_euclid(i128::from(JIFFIES_PER_TICK));
        Duration::from_nanos(jiffies as u64 * self.jiffy_ns)
    }

    /// How long ago that was, at a moment of `CLOCK_MONOTONIC`; as exact as the kernel ticks.
    pub(super) fn age_at(&self, then: Jiffies, monotonic_ns: u64) -> Duration {
        let jiffies = self.jiffies_at(monotonic_ns) - i128::from(then.0);
        Duration::from_nanos(u64::try_from(jiffies).unwrap_or_default().saturating_mul(self.jiffy_ns))
    }

    fn jiffies_at(&self, monotonic_ns: u64) -> i128 {
        let since = i128::from(monotonic_ns) - i128::from(self.read.monotonic_ns);
        i128::from(self.read.jiffies) + since.div_euclid(i128::from(self.jiffy_ns))
    }

    /// So many ticks.
    pub(super) fn duration(&self, ticks: u32) -> Duration {
        Duration::from_nanos(u64::from(ticks) * self.jiffy_ns * JIFFIES_PER_TICK)
    }
}

/// How long the kernel's tick is: what its coarse clocks go by.
fn jiffy_ns() -> u64 {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    (resolution.tv_sec as u64 * 1_000_000_000 + resolution.tv_nsec as u64).max(1)
}

/// How long a tick of flows is.
pub(super) fn tick_ns() -> u64 {
    jiffy_ns() * JIFFIES_PER_TICK
}

/// `CLOCK_MONOTONIC` now.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
impl FlowClock {
    /// Whose ticks began at this moment of `CLOCK_MONOTONIC`.
    pub(super) const fn of_ticks_since(monotonic_ns: u64) -> Self {
        Self { read: Clock { jiffies: 1 << 32, monotonic_ns }, jiffy_ns: 4_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_monotonic_clock_both_ways() {
        let clock =
            FlowClock { read: Clock { jiffies: 1 << 32, monotonic_ns: 5_000_000_000 }, jiffy_ns: 4_000_000 };
        let then = clock.tick_at(5_000_000_000);
        assert_eq!(then, 1 << 28);
        assert_eq!(clock.tick_at(5_000_000_000 + 64_000_000), then + 1);
        assert_eq!(clock.tick_at(5_000_000_000 - 1), then - 1);
        assert_eq!(clock.duration(125), Duration::from_secs(8));
        let into = [0, 3_999_999, 4_000_000, 63_999_999, 64_000_000];
        let into = into.map(|later| clock.elapsed_of_tick_at(5_000_000_000 + later).as_millis());
        assert_eq!(into, [0, 0, 4, 60, 0]);
    }

    #[test]
    fn what_is_to_come_is_no_time_ago() {
        let clock =
            FlowClock { read: Clock { jiffies: 1000, monotonic_ns: 5_000_000_000 }, jiffy_ns: 4_000_000 };
        let age = |jiffies, now| clock.age_at(Jiffies(jiffies), now);
        assert_eq!(age(1000, 5_000_000_000), Duration::ZERO);
        assert_eq!(age(1000, 5_008_000_000), Duration::from_millis(8));
        assert_eq!(age(750, 5_003_999_999), Duration::from_secs(1));
        assert_eq!(age(1001, 5_000_000_000), Duration::ZERO);
        assert_eq!(age(u64::MAX, 0), Duration::ZERO);
    }
}
