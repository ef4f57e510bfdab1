//! Ends the flows of several backends of a pool, whoever is one or was one; or those of a service that is gone.
//!
//! Most of them have no flows, and a cut takes three walks and three grace periods. So only the first one is cut whatever
//! it has: when its cut is done every run of the packet path has ended that could still have led a client to any of them,
//! and who has no line in the tables then gets none any more.

use std::collections::{BTreeMap, BTreeSet};

use balancer_common::abi::WireAddress;

use super::DataplaneError;
use super::cut::CutReport;
use super::exits::{Exits, patience};
use super::flows::{FamilyTables, FlowTable};
use super::held::Syns;
use super::slots::Busy;

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
        let until = patience();
        let mut reports = vec![self.cut(first.slot, &first.exits, unanswered.as_deref_mut(), until)];
        // One that failed may have waited for nothing.
        let referred = reports[0].is_ok().then(|| self.referred());
        let is_idle = |slot| referred.as_ref().is_some_and(|referred| !referred.contains(slot));
        reports.extend(others.iter().map(|Doomed { slot, exits, .. }| {
            if is_idle(slot) {
                Ok(CutReport::default())
            } else {
                self.cut(*slot, exits, unanswered.as_deref_mut(), until)
            }
        }));
        reports
    }

    /// Ends all flows of the service in this slot, which is not to be reached any more. `ways`: to its backends, by slot;
    /// those of others hear of it when they say something.
    pub fn cut_service(
        &self,
        service: u16,
        ways: &BTreeMap<u16, Exits>,
    ) -> Result<CutReport, DataplaneError> {
        let mut all = CutReport::default();
        let until = patience();
        let of_service = self.pairs().into_iter().filter(|(of, _)| *of == service);
        for (_, backend) in of_service {
            let Some(exits) = ways.get(&backend) else { continue };
            let CutReport { flows, resets_sent, problem } =
                self.cut_of_service(service, backend, exits, until)?;
            all.flows += flows;
            all.resets_sent += resets_sent;
            all.problem = all.problem.or(problem);
        }
        Ok(all)
    }

    /// Slots that any line names, also half of a flow.
    #[must_use]
    pub fn busy(&self) -> Busy {
        let (services, backends): (BTreeSet<u16>, BTreeSet<u16>) = self.pairs().into_iter().unzip();
        Busy { services, backends: backends.into_iter().filter(|slot| *slot != 0).collect() }
    }

    fn referred(&self) -> BTreeSet<u16> {
        self.pairs().into_iter().map(|(_, backend)| backend).collect()
    }

    /// Of services and backends.
    fn pairs(&self) -> BTreeSet<(u16, u16)> {
        let mut pairs = BTreeSet::new();
        self.v4.refer(&mut pairs);
        self.v6.refer(&mut pairs);
        pairs
    }
}

impl<A: WireAddress> FamilyTables<A> {
    fn refer(&self, pairs: &mut BTreeSet<(u16, u16)>) {
        for table in [&self.half_open.table, &self.established.table] {
            pairs.extend(table.live().map(|met| table.slots(met)));
        }
    }
}
