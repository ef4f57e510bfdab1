//! What happens around the program between two packets: what the controller decides, and what befalls tables and devices.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_common::abi::ActiveWord;
use balancer_user::dataplane::slots::{Busy, assign};

use super::Gateway;
use crate::case::scene::{Member, Scene, Side};

impl Gateway {
    /// Makes a backend the active one of its pool.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn activate(&mut self, member: Member) -> Result<()> {
        let (pool, _) = self.given.member(member.address).context("a backend of the plan")?;
        let scene = pool.scene;
        self.is_as_given = false;
        self.set_active(scene, Some(member));
        Ok(())
    }

    /// Does what a reload does first that takes a pool away: only the plan is another one, and nobody of the pool is known for
    /// its flows any more.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn plan_without(&mut self, scene: &Scene) -> Result<()> {
        self.is_as_given = false;
        self.plan.retain(|pool| pool.name != scene.name);
        self.slots = assign(&self.plan, &self.tables.occupied()?, &Busy::default())?;
        self.tables.write_pools(&self.plan, &self.slots)?;
        self.tables.keep_roles(true)?;
        Ok(self.tables.keep_roles(false)?)
    }

    /// And what it does last: publishes the services of the plan, and no others.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn publish(&mut self) -> Result<()> {
        Ok(self.tables.publish_services(&self.plan, &self.slots)?)
    }

    /// Takes a pool's services back, which keeps its backends.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn withdraw(&mut self, scene: &Scene) -> Result<()> {
        self.is_as_given = false;
        let mut plan = self.plan.clone();
        plan.iter_mut().filter(|pool| pool.name == scene.name).for_each(|pool| pool.services.clear());
        Ok(self.tables.publish_services(&plan, &self.slots)?)
    }

    /// Has the next connection of its pool's services try a backend.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn put_on_trial(&mut self, member: Member) -> Result<()> {
        let (pool, _) = self.given.member(member.address).context("a backend of the plan")?;
        let slot = self.slot(member).context("a backend of the plan")?;
        self.is_as_given = false;
        let pools = self.plan.iter().zip(&self.slots).filter(|(plan, _)| plan.name == pool.scene.name);
        let services = pools.flat_map(|(_, slots)| &slots.services);
        services.for_each(|service| self.tables.set_trial(service.index, slot));
        Ok(())
    }

    /// Leaves a pool without an active backend.
    pub fn deactivate(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_active(scene, None);
    }

    /// Has a pool's new flows wait.
    pub fn hold(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_word(scene, ActiveWord::hold(0, 0));
    }

    /// Has a pool refuse new flows.
    pub fn reject(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_word(scene, ActiveWord::reject(0, 0));
    }

    /// Takes back the way to a backend.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn lose_way(&mut self, member: Member) -> Result<()> {
        let slot = self.slot(member).context("a backend of the plan")?;
        self.is_as_given = false;
        Ok(self.tables.set_way(slot, None)?)
    }

    /// Makes all flows older: as if nothing had happened for this long.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn grow_older(&mut self, by: Duration) -> Result<()> {
        self.flow_maps.grow_older(by)
    }

    /// Removes the client's side of every flow, as nothing ever should: what remains is half a flow.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn tear_flows_apart(&mut self) -> Result<()> {
        self.is_crowded = true;
        self.flow_maps.tear_apart()
    }

    /// Has every lock taken by another CPU, or given back.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn set_locks(&mut self, taken: bool) -> Result<()> {
        self.flow_maps.set_locks(taken)
    }

    /// Has more handshakes counted than there may be, none of them where a new one could take its place.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn crowd_handshakes(&mut self) -> Result<()> {
        self.is_crowded = true;
        self.flow_maps.crowd()
    }

    /// Has every CPU look for room no more in this moment.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn exhaust_searches(&mut self) -> Result<()> {
        self.searches.exhaust()
    }

    /// Deletes the device of this side, as when a card is pulled.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn pull(&self, side: Side) -> Result<()> {
        let status = Command::new("ip").args(["link", "delete", side.interface()]).status()?;
        ensure!(status.success(), "ip link delete {}: {status}", side.interface());
        Ok(())
    }
}
