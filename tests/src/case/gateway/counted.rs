//! What the program has counted, and that it has counted nothing elsewhere.

use anyhow::{Context, Result, ensure};
use balancer_common::abi::{Signals, Traffic};
use balancer_common::limits::{MAX_BACKENDS, MAX_SERVICES};

use super::Gateway;
use crate::case::counters::Counters;
use crate::case::scene::Member;

impl Gateway {
    /// All counters of who is in the plan.
    ///
    /// # Errors
    /// When a table can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let [half_open_entries, established_entries] = self.flow_maps.count()?;
        let [half_open, established] = self.flow_maps.counted()?;
        if !self.is_crowded {
            ensure!(
                [half_open as usize, established as usize].map(|flows| 2 * flows)
                    == [half_open_entries, established_entries],
                "{half_open} handshakes and {established} flows are counted, {half_open_entries} and \
                 {established_entries} lines are there"
            );
        }
        let mut counters = Counters { half_open_entries, established_entries, ..Counters::default() };
        for (reason, tally) in self.tables.tallies()? {
            counters.drops.insert(reason, tally.dropped);
            counters.answers.insert(reason, tally.answered);
            counters.passed.insert(reason, tally.passed);
        }
        for (listen, slot) in self.service_slots() {
            counters.services.insert(listen, self.tables.service_traffic(slot)?);
        }
        for (name, slot) in self.backend_slots() {
            counters.backends.insert(name, self.tables.backend_traffic(slot)?);
        }
        Ok(counters)
    }

    /// Fails when a slot that nobody has was counted in.
    ///
    /// # Errors
    /// As told, or when a table can't be read.
    pub fn nothing_is_counted_elsewhere(&self) -> Result<()> {
        let services: Vec<u16> = self.service_slots().into_iter().map(|(_, slot)| slot).collect();
        let backends: Vec<u16> = self.backend_slots().into_iter().map(|(_, slot)| slot).collect();
        for slot in (0..MAX_SERVICES as u16).filter(|slot| !services.contains(slot)) {
            ensure!(
                self.tables.service_traffic(slot)? == Traffic::default(),
                "service slot {slot} was counted"
            );
        }
        for slot in (0..MAX_BACKENDS as u16).filter(|slot| !backends.contains(slot)) {
            ensure!(
                self.tables.backend_traffic(slot)? == Traffic::default(),
                "backend slot {slot} was counted"
            );
        }
        Ok(())
    }

    /// What is counted of a backend's part in connection attempts.
    ///
    /// # Errors
    /// When the plan has no such backend, or the table can't be read.
    pub fn signals(&self, member: Member) -> Result<Signals> {
        let slot = self.slot(member).context("a backend of the plan")?;
        Ok(self.tables.signals(slot)?)
    }
}
