//! Ends the flows of several backends of a pool: whoever is one or was one.
//!
//! Most of them have no flows, and a cut takes three walks and three grace periods. So only the first one is cut whatever
//! it has: when its cut is done every run of the packet path has ended that could still have led a client to any of them,
//! and who has no line in the tables then gets none any more.

use std::collections::BTreeSet;

use balancer_common::abi::WireAddress;

use super::DataplaneError;
use super::cut::CutReport;
use super::exits::Exits;
use super::flows::{FamilyTables, FlowTable};
use super::held::Syns;

/// A backend whose flows are to end.
#[derive(Debug)]
pub struct Doomed {
    /// Its slot.
    pub slot: u16,
    /// Its name; it may have left the configuration.
    pub name: String,
    /// The way to it.
    pub exits: Exits,
}

impl FlowTable {
    /// Ends all flows of these backends, as [`FlowTable::cut`] does, and keeps unanswered SYNs as that does; says what came of
    /// each. Their pool's word must have left all of them before.
    pub fn cut_all(
        &self,
        backends: &[Doomed],
        mut unanswered: Option<&mut Syns>,
    ) -> Vec<Result<CutReport, DataplaneError>> {
        let Some((first, others)) = backends.split_first() else { return Vec::new() };
        let mut reports = vec![self.cut(first.slot, &first.exits, unanswered.as_deref_mut())];
        // One that failed may have waited for nothing.
        let referred = reports[0].is_ok().then(|| self.referred());
        let is_idle = |slot| referred.as_ref().is_some_and(|referred| !referred.contains(slot));
        reports.extend(others.iter().map(|Doomed { slot, exits, .. }| {
            if is_idle(slot) {
                Ok(CutReport::default())
            } else {
                self.cut(*slot, exits, unanswered.as_deref_mut())
            }
        }));
        reports
    }

    /// Slots of backends that any line names, also half of a flow.
    fn referred(&self) -> BTreeSet<u16> {
        let mut slots = BTreeSet::new();
        self.v4.refer(&mut slots);
        self.v6.refer(&mut slots);
        slots
    }
}

impl<A: WireAddress> FamilyTables<A> {
    fn refer(&self, slots: &mut BTreeSet<u16>) {
        for table in [&self.half_open.table, &self.established.table] {
            slots.extend(table.live().map(|met| table.slots(met).1));
        }
    }
}
