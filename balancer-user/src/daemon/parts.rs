//! What the loop works with in the kernel: tables, pins, and the program, which is put onto interfaces and taken off them.
//!
//! Deliberately not here: how a start comes to it (`start`), and which interfaces are there (`interfaces`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use balancer_common::abi::Interface;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::config::Config;
use crate::dataplane::DataplaneError;
use crate::dataplane::attach::{self, Attachment, ModeChoice, Target};
use crate::dataplane::links::Pinned;
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::object::{Loaded, Wanted};
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::slots::{PoolPlan, PoolSlots};
use crate::dataplane::tables::Tables;

use super::plan;
use super::replace::Probers;

/// What the loop works with.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) plan: Vec<PoolPlan>,
    pub(super) slots: Vec<PoolSlots>,
    /// By pool and service.
    pub(super) probers: Probers,
    pub(super) tables: Tables,
    pub(super) pins: PinDirectory,
    /// Nothing had been pinned before this start.
    pub(super) fresh: bool,
    /// What can't be adopted is given up.
    pub(super) replace: bool,
    /// For whoever puts it onto interfaces or frames before it.
    pub(super) program: Arc<Mutex<Loaded>>,
    /// Whether the kernel can do the latter.
    pub(super) can_feed: bool,
    pub(super) kernel: Arc<Neighbours>,
    /// Which IP families the program was loaded for.
    pub(super) families: Families,
}

/// IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

impl Families {
    pub(super) fn of(config: &Config) -> Self {
        let Wanted { ipv4, ipv6, .. } = plan::wanted(config);
        Self { ipv4, ipv6 }
    }
}

impl Parts {
    /// Puts the program onto the interfaces, which may fail and then changes nothing; then makes the services reachable.
    pub(super) async fn open_for_traffic(&mut self) -> Result<Vec<Attachment>, DataplaneError> {
        let mut targets: Vec<Target> = Vec::new();
        for name in &self.config.gateway.interfaces {
            match self.kernel.interface(name).await {
                Ok((target, _)) => targets.push(target),
                Err(DataplaneError::NoInterface(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut program = self.program.lock().await;
        let program = program.program()?;
        let pins = self.pins.versioned();
        let choice = plan::mode_choice(&self.config);
        let former = if self.replace { self.pins.other_layouts()? } else { Vec::new() };
        let links: Vec<Pinned> = former.iter().flat_map(|layout| layout.links.clone()).collect();
        let open = || self.tables.publish_services(&self.plan, &self.slots);
        let attachments =
            attach::attach_all(program, &targets, choice, pins, &links, &self.kernel, open).await?;
        self.slots.iter_mut().for_each(PoolSlots::settle);
        for path in attach::release_others(&self.config.gateway.interfaces, pins)? {
            info!(event = "released", pin = %path.display(), "the interface is not in the configuration any more");
        }
        for layout in former {
            let pins = self.pins.clear_other(&layout)?;
            let layout = layout.version();
            warn!(event = "replaced", layout, pins, "flows and counters start anew");
        }
        Ok(attachments)
    }

    /// Two interfaces have exchanged their names: the pins do so, too.
    pub(super) fn exchange(&self, one: &str, other: &str) -> Result<(), DataplaneError> {
        attach::exchange(one, other, self.pins.versioned())
    }

    /// For attaching the program to one more interface, by what the configuration says now.
    pub(super) fn attacher(&self) -> Attacher {
        Attacher {
            program: self.program.clone(),
            choice: plan::mode_choice(&self.config),
            pins: self.pins.versioned().to_owned(),
            kernel: self.kernel.clone(),
        }
    }

    /// Takes the program off an interface; nothing leaves through it any more. `slot`: as it is known in the tables.
    pub(super) fn release(&mut self, interface: &str, slot: Option<u16>) -> Result<(), DataplaneError> {
        attach::release(interface, self.pins.versioned())?;
        slot.map_or(Ok(()), |slot| self.tables.release_interface(slot))
    }

    /// The backends to which there has to be a way, by slot.
    pub(super) fn backends(&self) -> BTreeMap<u16, IpAddr> {
        let pools = self.slots.iter().zip(&self.plan);
        let backends = pools.flat_map(|(slots, plan)| slots.backends.iter().zip(&plan.backends));
        backends.map(|(slot, backend)| (slot.index, backend.address)).collect()
    }
}

/// Attaches the program to single interfaces while the daemon runs.
pub(super) struct Attacher {
    program: Arc<Mutex<Loaded>>,
    choice: ModeChoice,
    pins: PathBuf,
    kernel: Arc<Neighbours>,
}

impl Attacher {
    /// By the rules of a start: in the mode that the configuration asks for, never in the place of a foreign program.
    /// `others`: where the program runs already. Also tells the facts of the device, for the tables. Drivers may take
    /// seconds: not on the loop's thread.
    pub(super) async fn attach(
        &self,
        interface: &str,
        others: &[Target],
    ) -> Result<(Attachment, Interface), DataplaneError> {
        // Others wait for the program, too: the kernel is asked before.
        let (target, facts) = self.kernel.interface(interface).await?;
        let mut program = self.program.lock().await;
        let program = program.program()?;
        let attached =
            attach::attach_one(program, &target, others, self.choice, &self.pins, &self.kernel).await?;
        Ok((attached, facts))
    }
}
