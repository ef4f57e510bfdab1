//! What the controller's walks over all flows take: one that counts and ages them, and one that tells of each.
//!
//! Deliberately absent: what becomes of a flow that is told of. Writing it down as JSON is the daemon's, and its client's.

use anyhow::{Result, ensure};

use super::feeder::cpu_time;
use super::gateway::Gateway;
use super::world::{DNAT4, Flows};
use super::{Bench, DNAT};

/// Of one core, for a look at each of a million flows.
const WALK_MAX_MS: f64 = 100.0;
/// How often each is walked, unless fewer rounds are wanted.
const WALKS: u32 = 3;

impl Bench {
    /// Makes as many flows as there may be, where walks are measured.
    pub(super) fn open_flows(&mut self) -> Result<()> {
        let (chunk, most) = (self.scale.chunk, self.scale.most_flows());
        for first in (0..most).step_by(chunk as usize) {
            self.handshakes(DNAT, &DNAT4, Flows { first, count: chunk }, false)?;
        }
        let found = self.gateways[DNAT].census()?.values().sum::<u64>();
        ensure!(found <= most, "{found} flows, of {most} that were opened");
        self.missing[DNAT] = most - found;
        Ok(())
    }

    /// Measures and prints them; returns how many take longer than is wanted.
    pub(super) fn report_walks(&mut self) -> Result<usize> {
        let sweeps = self.walks("a sweep", |gateway| Ok(gateway.census()?.values().sum()))?;
        let listings = self.walks("a listing", |gateway| Ok(gateway.listed()))?;
        Ok(sweeps + listings)
    }

    /// Walks that each have to come upon every flow.
    fn walks(&mut self, what: &str, walk: impl Fn(&mut Gateway) -> Result<u64>) -> Result<usize> {
        let flows = self.scale.most_flows();
        let wanted = flows - self.missing[DNAT];
        let timed = |_| {
            let before = cpu_time();
            let counted = walk(&mut self.gateways[DNAT])?;
            let took = cpu_time().saturating_sub(before);
            ensure!(counted == wanted, "{what} has counted {counted} flows instead of {wanted}");
            Ok(took.as_secs_f64() * 1000.0)
        };
        let mut times_ms = (0..self.scale.rounds.min(WALKS)).map(timed).collect::<Result<Vec<f64>>>()?;
        times_ms.sort_by(f64::total_cmp);
        let (median, most) = (times_ms[(times_ms.len() - 1) / 2], times_ms[times_ms.len() - 1]);
        let wanted_ms = WALK_MAX_MS * flows as f64 / 1e6;
        let is_kept = median <= wanted_ms;
        println!(
            "{what} over {flows} flows: {median:.1} ms of one core, {most:.1} at most (wanted {wanted_ms:.1}{})",
            if is_kept { "" } else { ", missed" }
        );
        Ok(usize::from(!is_kept))
    }
}
