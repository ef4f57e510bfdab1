//! From a configuration to a data plane that is ready to be decided about: locks, adopted or new maps, slots, probers.
//!
//! Nothing here touches traffic: services become reachable and programs are attached only after the first decision,
//! by [`Parts::open_for_traffic`]. Deliberately not here: which configuration it is (`choice`), and what comes after it (`life`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use balancer_common::abi::Traced;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::config::Config;
use crate::dataplane::attach::{self, Holder};
use crate::dataplane::failures::{self, Attempt};
use crate::dataplane::flows::{FlowTable, Lifetimes};
use crate::dataplane::links::{self, Pinned};
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::object::{self, Loaded};
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
use super::parts::{Families, Parts};
use super::{Options, dashboard, failed, kin, memory, plan};

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

    /// Whether there is traffic to be taken over: by maps of this layout, or in the place of links of another one.
    fn takes_over(&self) -> bool {
        !self.fresh || self.former.iter().any(|layout| !layout.links.is_empty())
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
    let mut config = choice.accepted().config.settled();
    if !options.replace {
        keep_sizes(&mut config, &ground.pins);
    }
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

/// Tables that are pinned keep their sizes, as in a reload: those that the configuration has now are pending.
fn keep_sizes(config: &mut Config, pins: &PinDirectory) {
    let wanted = plan::wanted(config);
    let kept = wanted.of_pinned_sizes(pins.versioned());
    for said in kin::for_a_restart(&wanted, &kept) {
        warn!(event = "pending", "{said}");
    }
    config.gateway.max_flows = kept.max_flows;
    config.gateway.max_half_open = kept.max_half_open;
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
    let Ground { pins, former, .. } = ground;
    let kernel = Neighbours::connect()?;
    refuse_foreign_programs(config, pins, former, replace, &kernel).await?;
    let http = dashboard::listen_at_a_start(config, ground.takes_over()).map_err(failed)?;
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
            let is_on = |layout: &&OtherLayout| attach::on(&layout.links, &target).is_some();
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
