//! What is known without a daemon: the kernel's maps, `state.json`, and the configuration for what only that says.
//!
//! It only looks: no lock is taken, no program loaded, nothing written, so it may be read while a daemon starts. Nobody
//! probes now, so no health is known but that of a backend that was down when the daemon ended. Deliberately not here: how it
//! is shown, and that it is no daemon's answer; that is the command line's.

mod pools;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::{self, Config};
use crate::control::protocol::{
    BackendStats, Flow, FlowsQuery, ServiceStats, Stats, StatsSchema, Status, StatusSchema, Timestamp,
};
use crate::dataplane::flows::{FlowState, FlowTable};
use crate::dataplane::links;
use crate::dataplane::maps::Pins;
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::slots::Occupied;
use crate::dataplane::survey::Device;
use crate::dataplane::tables::Tables;
use crate::dataplane::{DataplaneError, layout_version};
use crate::exit::{Exit, Failure};
use crate::store::{State, read_state};

use super::listing::{Names, Wanted};
use super::view;

/// Where an instance has its files.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration: for the order and the roles of backends.
    pub config: PathBuf,
    /// With `state.json`.
    pub state_dir: PathBuf,
    /// With the maps.
    pub pin_dir: PathBuf,
}

/// What was found.
struct Remains {
    pins: PathBuf,
    tables: Tables,
    occupied: Occupied,
    service_names: BTreeMap<u16, String>,
    state: Option<State>,
    config: Option<Config>,
}

/// The status document; `None` where nothing is pinned.
///
/// # Errors
/// No permission, or a map that can't be read.
pub fn status(places: &Places) -> Result<Option<Status>, Failure> {
    let Some(remains) = Remains::find(places)? else { return Ok(None) };
    let tallies = remains.tables.tallies()?;
    let flows = remains.established()?;
    let pools = remains.pools();
    let pools = pools.into_iter().map(|(slot, name)| remains.pool(slot, &name, &flows));
    Ok(Some(Status {
        schema: StatusSchema::V1,
        as_of: now(),
        daemon: None,
        attachments: remains.attachments(&links::pinned(&remains.pins)?, &devices()?),
        pools: pools.collect::<Result<_, _>>()?,
        drops: view::drops(&tallies),
        degraded: Vec::new(),
        pending: Vec::new(),
    }))
}

/// The counters; `None` where nothing is pinned.
///
/// # Errors
/// As [`status`].
pub fn stats(places: &Places) -> Result<Option<Stats>, Failure> {
    let Some(remains) = Remains::find(places)? else { return Ok(None) };
    let tallies = remains.tables.tallies()?;
    let flows = remains.established()?;
    let (mut services, mut backends) = (Vec::new(), Vec::new());
    for (slot, pool) in remains.pools() {
        for service in remains.services(slot)? {
            services.push(ServiceStats {
                pool: pool.clone(),
                service: service.name,
                new_flows: service.new_flows,
                packets: service.packets,
                bytes: service.bytes,
            });
        }
        for (backend, name) in remains.backends(slot, &pool, &flows) {
            let (traffic, signals) =
                (remains.tables.backend_traffic(backend)?, remains.tables.signals(backend)?);
            backends.push(BackendStats {
                flows: flows.get(&backend).copied().unwrap_or_default(),
                failures_lost: remains.tables.failures_lost(backend),
                ..view::backend_stats((&pool, &name), &traffic, &signals)
            });
        }
    }
    Ok(Some(Stats {
        schema: StatsSchema::V1,
        as_of: now(),
        services,
        backends,
        drops: view::drops(&tallies),
        answers: view::answers(&tallies),
        passed: view::passed(&tallies),
    }))
}

/// Has live flows visited until no more are wanted, those too whose time is over, as nobody takes them out; `false` where
/// nothing is pinned.
///
/// # Errors
/// As [`status`]; or it names what there isn't.
pub fn flows(
    places: &Places,
    query: &FlowsQuery,
    visit: &mut dyn FnMut(Flow<'_>) -> bool,
) -> Result<bool, Failure> {
    let Some(remains) = Remains::find(places)? else { return Ok(false) };
    let pools = &remains.occupied.pools;
    let wanted = Wanted::new(
        query.clone(),
        remains.names_of_services(),
        remains.names_of_backends(),
        pools.values().map(String::as_str),
    );
    let wanted = wanted.map_err(|reason| Failure::new(Exit::Failed, format!("refused: {reason}")))?;
    let table = remains.table()?;
    wanted.each(|visit| table.for_each(visit), visit);
    Ok(true)
}

impl Remains {
    fn find(places: &Places) -> Result<Option<Self>, Failure> {
        match fs::metadata(&places.pin_dir) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!("{}: {error}: do this as root", places.pin_dir.display());
                return Err(Failure::new(Exit::Permission, text));
            }
            _ if !PinDirectory::could_be_adopted(&places.pin_dir) => return Ok(None),
            _ => {}
        }
        let pins = places.pin_dir.join(layout_version());
        let tables = Tables::take(&mut Pins(&pins))?;
        // What can't be read of the files is left out: the maps know what traffic does.
        let directory = File::open(&places.state_dir).ok();
        let state = directory.and_then(|directory| read_state(&directory).ok().flatten());
        // Of one that came by stdin nothing is left.
        let file = (places.config.as_os_str() != "-").then(|| config::load(&places.config).ok()).flatten();
        let config = file.map(|parsed| parsed.unresolved().clone());
        Ok(Some(Self {
            occupied: tables.occupied()?,
            service_names: tables.service_names()?,
            pins,
            tables,
            state,
            config,
        }))
    }

    fn table(&self) -> Result<FlowTable, DataplaneError> {
        FlowTable::look(&mut Pins(&self.pins))
    }

    /// Established flows that haven't begun to close, by backend's slot.
    fn established(&self) -> Result<BTreeMap<u16, u64>, DataplaneError> {
        let mut counts = BTreeMap::new();
        self.table()?.for_each(|flow| {
            if flow.state == FlowState::Established {
                *counts.entry(flow.backend).or_default() += 1;
            }
        });
        Ok(counts)
    }

    fn names_of_services(&self) -> Names {
        let pool = |slot| self.occupied.pools.get(slot).cloned().unwrap_or_default();
        let services = self.occupied.services.values();
        let named = services
            .filter_map(|(of, slot, _)| Some((*slot, (pool(of), self.service_names.get(slot)?.clone()))));
        named.collect()
    }

    fn names_of_backends(&self) -> Names {
        let backends = self.occupied.backends.iter();
        let named = backends.filter_map(|(slot, (of, name, _))| {
            Some((*slot, (self.occupied.pools.get(of)?.clone(), name.clone())))
        });
        named.collect()
    }
}

/// The interfaces of this network namespace.
fn devices() -> Result<Vec<Device>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Failed, format!("asking for interfaces: {error}")))?;
    Ok(runtime.block_on(async { Neighbours::connect()?.devices().await })?)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
