//! From a configuration to a data plane that is ready to be decided about: locks, adopted or new maps, slots, probers.
//!
//! Nothing here touches traffic: services become reachable and programs are attached only after the first decision,
//! by [`Parts::open_for_traffic`]. Deliberately not here: which configuration it is (`choice`), and what comes after it (`life`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use balancer_common::abi::Interface;
use balancer_common::abi::Traced;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::config::Config;
use crate::dataplane::attach::{self, Attachment, Holder, ModeChoice, Target};
use crate::dataplane::failures::{self, Attempt};
use crate::dataplane::flows::{FlowTable, Lifetimes};
use crate::dataplane::links::{self, Pinned};
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::object::{self, Loaded, Wanted};
use crate::dataplane::pins::{OtherLayout, PinDirectory};
use crate::dataplane::ring::Ring;
use crate::dataplane::slots::{self, Busy, Occupied, PoolPlan, PoolSlots};
use crate::dataplane::tables::Tables;
use crate::dataplane::traces::{self, Tracer};
use crate::dataplane::{DataplaneError, layout_version};
use crate::descriptors;
use crate::directory::LockedDirectory;
use crate::exit::Failure;
use crate::store::{Remembered, Store};

use super::choice::Choice;
use super::interfaces::Interfaces;
use super::replace::Probers;
use super::{Options, dashboard, failed, memory, plan};

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
    replace: bool,
    /// For whoever puts it onto interfaces or frames before it.
    pub(super) program: Arc<Mutex<Loaded>>,
    /// Whether the kernel can do the latter.
    pub(super) can_feed: bool,
    kernel: Arc<Neighbours>,
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

/// What this daemon alone may use, and what was there before it.
pub(super) struct Ground {
    state: LockedDirectory,
    pins: PinDirectory,
    /// Nothing had been pinned for this layout.
    fresh: bool,
    former: Vec<OtherLayout>,
}

impl Ground {
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        let state = LockedDirectory::open(&options.state_dir)?;
        let pins = PinDirectory::open(&options.pin_dir)?;
        let (fresh, former) = (pins.is_empty()?, pins.other_layouts()?);
        Ok(Self { state, pins, fresh, former })
    }

    /// The start failed: what it made goes.
    pub(super) fn give_up(self) {
        if self.fresh {
            abandon(self.pins);
        }
    }
}

/// A start that went well.
pub(super) struct Started {
    pub(super) parts: Parts,
    pub(super) flows: FlowTable,
    pub(super) failures: AsyncFd<Ring<Attempt>>,
    pub(super) tracer: Tracer,
    pub(super) traced: AsyncFd<Ring<Traced>>,
    pub(super) interfaces: Interfaces,
    /// For the watcher of interfaces and ways.
    pub(super) watcher: Neighbours,
    /// Who was there, and had flows, before anybody was written.
    pub(super) found: (Occupied, Busy),
    /// For `[http]`.
    pub(super) http: Option<TcpListener>,
    pub(super) store: Store,
    pub(super) remembered: Remembered,
}

pub(super) async fn start(
    choice: &Choice<'_>,
    ground: Ground,
    options: &Options,
) -> Result<Started, Failure> {
    let config = choice.accepted().config.settled();
    let room = descriptors::room();
    let (dataplane, kernel, http) = match assemble(&config, &ground, options.replace).await {
        Ok(assembled) => assembled,
        Err(failure) => {
            ground.give_up();
            return Err(failure);
        }
    };
    drop(room);
    let Ground { state, pins, fresh, former } = ground;
    for layout in former.iter().filter(|_| !options.replace) {
        let path = layout.path.display();
        warn!(event = "left_behind", path = %path, "another version has pinned this, and it does nothing here; \
             `balancer run --replace` or `balancer detach` removes it");
    }
    let Dataplane { plan, slots, tables, flows, failures, tracer, traced, program, interfaces, found } =
        dataplane;
    info!(event = "started", adopted = !fresh, pools = config.pools.len());
    let (store, remembered) = Store::open(state).map_err(failed)?;
    if let Some(state) = &remembered.state {
        memory::tell_forgotten(&choice.accepted().config, state);
    }
    let can_feed = program.live_frames.is_ok();
    let program = Arc::new(Mutex::new(program));
    let (kernel, watcher) = (Arc::new(kernel), Neighbours::connect()?);
    let families = Families::of(&config);
    let parts = Parts {
        config,
        plan,
        slots,
        probers: choice.accepted().probers.clone(),
        tables,
        pins,
        fresh,
        replace: options.replace,
        program,
        can_feed,
        kernel,
        families,
    };
    Ok(Started {
        parts,
        interfaces,
        found,
        watcher,
        flows,
        failures,
        tracer,
        traced,
        http,
        store,
        remembered,
    })
}

/// After a start that failed: what it pinned goes.
pub(super) fn abandon(pins: PinDirectory) {
    if let Err(error) = pins.abandon() {
        warn!(event = "cleanup", error = %error, "pins are left behind; `balancer detach` removes them");
    }
}

/// What there is in the kernel, and what it was told.
struct Dataplane {
    plan: Vec<PoolPlan>,
    slots: Vec<PoolSlots>,
    tables: Tables,
    flows: FlowTable,
    failures: AsyncFd<Ring<Attempt>>,
    tracer: Tracer,
    traced: AsyncFd<Ring<Traced>>,
    program: Loaded,
    interfaces: Interfaces,
    found: (Occupied, Busy),
}

/// All that needs no decision; what is bound for `[http]`, too.
async fn assemble(
    config: &Config,
    ground: &Ground,
    replace: bool,
) -> Result<(Dataplane, Neighbours, Option<TcpListener>), Failure> {
    let Ground { pins, fresh, former, .. } = ground;
    let kernel = Neighbours::connect()?;
    refuse_foreign_programs(config, pins, former, replace, &kernel).await?;
    let http = dashboard::listen_at_a_start(config, *fresh).map_err(failed)?;
    let dataplane = Dataplane::new(config, pins, &kernel, replace).await?;
    Ok((dataplane, kernel, http))
}

impl Dataplane {
    async fn new(
        config: &Config,
        pins: &PinDirectory,
        neighbours: &Neighbours,
        replace: bool,
    ) -> Result<Self, DataplaneError> {
        let plan = plan::for_dataplane(config);
        let wanted = plan::wanted(config);
        let mut program = match object::load(wanted, Some(pins.versioned())) {
            Err(error @ DataplaneError::NotAdoptable { .. }) if replace => {
                let removed = pins.clear_maps()?;
                warn!(event = "replaced", pins = removed, cause = %error, "flows and counters start anew");
                object::load(wanted, Some(pins.versioned()))?
            }
            loaded => loaded?,
        };
        if let Err(problem) = &program.live_frames {
            warn!(
                event = "live_frames",
                problem, "clients that wait for another backend have to repeat themselves"
            );
        }
        if let Err(problem) = &program.frags {
            warn!(
                event = "frags",
                problem, "no frames in several buffers: a large MTU needs generic mode here"
            );
        }
        let mut tables = Tables::take(&mut program.ebpf)?;
        let flows =
            FlowTable::take(&mut program.ebpf, Lifetimes { established: config.gateway.idle_timeout })?;
        let failures = failures::take(&mut program.ebpf)?.awaited()?;
        let traced = traces::take_told(&mut program.ebpf)?.awaited()?;
        let tracer = Tracer::take(&mut program.ebpf)?;
        let found = (tables.occupied()?, flows.sweep().busy);
        let slots = slots::assign(&plan, &found.0, &found.1)?;
        tables.write_pools(&plan, &slots)?;
        let interfaces = Self::interfaces(config, &mut tables, neighbours).await?;
        Ok(Self { plan, slots, tables, flows, failures, tracer, traced, program, interfaces, found })
    }

    /// Gives those that are there a slot.
    async fn interfaces(
        config: &Config,
        tables: &mut Tables,
        neighbours: &Neighbours,
    ) -> Result<Interfaces, DataplaneError> {
        let names = &config.gateway.interfaces;
        let (mut written, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for name in names {
            match neighbours.interface(name).await {
                Ok((_, facts)) => {
                    let slot = tables.interface_slot(&facts, &taken)?;
                    tables.set_interface(slot, facts)?;
                    taken.insert(slot);
                    written.insert(name.clone(), (slot, facts));
                }
                // Only with something to adopt: the configuration was checked.
                Err(DataplaneError::NoInterface(name)) => {
                    warn!(event = "interface", interface = %name, "the interface does not exist");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Interfaces::new(names, &written))
    }
}

/// Before anything is made: an interface with a program that isn't in our pins ends the start; with one of our own of
/// another layout only if that isn't to be given up.
async fn refuse_foreign_programs(
    config: &Config,
    pins: &PinDirectory,
    former: &[OtherLayout],
    replace: bool,
    kernel: &Neighbours,
) -> Result<(), DataplaneError> {
    let links = links::pinned(pins.versioned())?;
    let mut held: Vec<(&OtherLayout, &str)> = Vec::new();
    for name in &config.gateway.interfaces {
        let target = match kernel.interface(name).await {
            Ok((target, _)) => target,
            Err(DataplaneError::NoInterface(_)) => continue,
            Err(error) => return Err(error),
        };
        let all: Vec<Pinned> = former.iter().flat_map(|layout| layout.links.clone()).collect();
        if attach::refuse_foreign(&target, &links, &all)? == Holder::Former {
            let is_on =
                |layout: &&OtherLayout| layout.links.iter().any(|link| link.ifindex == Some(target.ifindex));
            held.extend(former.iter().find(is_on).map(|layout| (layout, name.as_str())));
        }
    }
    let Some((first, _)) = held.first().filter(|_| !replace) else { return Ok(()) };
    let interfaces = held.iter().filter(|(layout, _)| layout.path == first.path).map(|(_, name)| *name);
    Err(DataplaneError::OtherLayout {
        path: first.path.clone(),
        version: first.version(),
        interfaces: interfaces.collect::<Vec<_>>().join(", "),
        ours: layout_version(),
    })
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
