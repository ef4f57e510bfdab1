//! What the controller does about flows: ends them, and sends those on their way that wait.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use balancer_user::dataplane::cut::CutReport;
use balancer_user::dataplane::cut_all::Doomed;
use balancer_user::dataplane::held::{Entrance, ReplayReport, Syns, Waiting};
use balancer_user::dataplane::rescue::{Rescuer, Rule};

use super::Gateway;
use crate::case::scene::{Member, Scene};

impl Gateway {
    /// Has SYNs that are held for this pool come in once more. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn replay(&self, scene: &Scene) -> Result<ReplayReport> {
        self.send_on(scene, None)
    }

    /// The same with those that wait for the answer of another backend than this one.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn move_on(&self, scene: &Scene, active: Member) -> Result<ReplayReport> {
        self.send_on(scene, Some(self.slot(active).context("a backend of the plan")?))
    }

    fn send_on(&self, scene: &Scene, not_at: Option<u16>) -> Result<ReplayReport> {
        let pools = self.plan.iter().zip(&self.slots).filter(|(pool, _)| pool.name == scene.name);
        let services = pools.flat_map(|(_, slots)| &slots.services).map(|slot| slot.index).collect();
        self.enter(|entrance| self.flows.replay(&Waiting { services, not_at }, entrance))
    }

    /// Has these SYNs come in once more. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn take_in(&self, syns: &Syns) -> Result<ReplayReport> {
        self.enter(|entrance| syns.come_in(entrance))
    }

    /// Tells a backend that these SYNs have left it, if they have. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the plan has no such backend, or the tables can't be read.
    pub fn tell_left(&self, syns: &Syns, member: Member) -> Result<()> {
        let slot = self.slot(member).context("a backend of the plan")?;
        let way = self.tables.way(slot).context("a way to it")?;
        self.flows.tell_left(syns, &[(slot, way)].into(), &self.tables.exits(0)?);
        Ok(())
    }

    fn enter(&self, come_in: impl FnOnce(Entrance<'_>) -> ReplayReport) -> Result<ReplayReport> {
        let exits = self.tables.exits(0)?;
        let (program, generic, repeats) = (&self.program, &BTreeSet::new(), &self.repeats);
        Ok(come_in(Entrance { program, exits: &exits, generic, repeats }))
    }

    /// Who looks for clients that nobody answers, by this rule for all services.
    #[must_use]
    pub fn rescuer(&self, rule: Rule) -> Rescuer {
        let rules = self.service_slots().into_iter().map(|(_, slot)| (slot, rule));
        Rescuer::new(self.flows.clone(), self.repeats.clone(), rules.collect())
    }

    /// Ends all flows of a backend.
    ///
    /// # Errors
    /// When the plan has no such backend, or the tables can't be read.
    pub fn cut(&self, member: Member) -> Result<CutReport> {
        let slot = self.slot(member).context("a backend of the plan")?;
        self.end(slot, None)
    }

    /// The same, and keeps the SYNs that it has not answered.
    ///
    /// # Errors
    /// As [`Gateway::cut`].
    pub fn cut_and_keep(&self, member: Member) -> Result<(CutReport, Syns)> {
        let slot = self.slot(member).context("a backend of the plan")?;
        let mut syns = Syns::default();
        let report = self.end(slot, Some(&mut syns))?;
        Ok((report, syns))
    }

    fn end(&self, slot: u16, unanswered: Option<&mut Syns>) -> Result<CutReport> {
        let doomed = Doomed { slot, name: String::new(), exits: self.tables.exits(slot)? };
        Ok(self.flows.cut_all(&[doomed], unanswered).pop().context("a report")??)
    }
}
