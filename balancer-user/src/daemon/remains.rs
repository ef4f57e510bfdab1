//! What is known without a daemon: the kernel's maps, `state.json`, and the configuration for what only that says.
//!
//! It only looks: no lock is taken, no program loaded, nothing written, so it may be read while a daemon starts. Nobody
//! probes now, so no health is known but that of a backend that was down when the daemon ended. Deliberately not here: how it
//! is shown, and that it is no daemon's answer; that is the command line's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use balancer_common::abi::Route;

use crate::config::{self, Config};
use crate::control::protocol::{
    Admin, Attachment, Backend, BackendStats, FailbackPolicy, Flows, FlowsQuery, Health, Pool, PoolReason,
    PoolState, Service, ServiceStats, Stats, StatsSchema, Status, StatusSchema, Timestamp, Transition,
    XdpMode,
};
use crate::dataplane::attach::Mode;
use crate::dataplane::flows::{FlowState, FlowTable};
use crate::dataplane::links::{self, Pinned};
use crate::dataplane::maps::Pins;
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::slots::Occupied;
use crate::dataplane::survey::Device;
use crate::dataplane::tables::Tables;
use crate::dataplane::{DataplaneError, layout_version};
use crate::exit::{Exit, Failure};
use crate::store::state::{self, Reached, Stop};
use crate::store::{State, read_state};

use super::listing::{Names, Wanted};
use super::view;

/// Of a backend that nobody probes.
const UNPROBED: &str = "no daemon probes it";
/// Of one that was down.
const WAS_DOWN: &str = "it was down when the daemon ended";

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

/// Live flows, those too whose time is over, as nobody takes them out; `None` where nothing is pinned.
///
/// # Errors
/// As [`status`]; or it names what there isn't, or there are too many.
pub fn flows(places: &Places, query: &FlowsQuery) -> Result<Option<Flows>, Failure> {
    let Some(remains) = Remains::find(places)? else { return Ok(None) };
    let refused = |reason: String| Failure::new(Exit::Failed, format!("refused: {reason}"));
    let pools = &remains.occupied.pools;
    let wanted = Wanted::new(
        query.clone(),
        remains.names_of_services(),
        remains.names_of_backends(),
        pools.values().map(String::as_str),
    );
    let table = remains.table()?;
    let listing = wanted.map_err(refused)?.list(|| false, |visit| table.for_each(visit)).map_err(refused)?;
    let flows = serde_json::from_slice(&listing.to_bytes());
    flows.map(Some).map_err(|error| Failure::new(Exit::Failed, format!("reading what was listed: {error}")))
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
        let config = config::load(&places.config).ok().map(|parsed| parsed.unresolved().clone());
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

    /// Slots and names, in the order in which they were remembered.
    fn pools(&self) -> Vec<(u16, String)> {
        let mut pools: Vec<_> =
            self.occupied.pools.iter().map(|(slot, name)| (*slot, name.clone())).collect();
        let remembered = self.state.iter().flat_map(|state| &state.pools);
        let order: Vec<&str> = remembered.map(|pool| pool.name.as_str()).collect();
        pools.sort_by_key(|(_, name)| order.iter().position(|known| known == name).unwrap_or(order.len()));
        pools
    }

    fn remembered(&self, pool: &str) -> Option<&state::Pool> {
        self.state.as_ref()?.pools.iter().find(|known| known.name == pool)
    }

    fn configured(&self, pool: &str) -> Option<&config::Pool> {
        self.config.as_ref()?.pools.iter().find(|known| known.name == pool)
    }

    /// Slots and names of a pool's backends, in the order in which they were remembered; of those that weren't, whoever is in
    /// use, or has flows.
    fn backends(&self, pool: u16, name: &str, flows: &BTreeMap<u16, u64>) -> Vec<(u16, String)> {
        let of_pool = self.occupied.backends.iter().filter(|(_, (held_by, ..))| *held_by == pool);
        let known = self.remembered(name);
        let place = |backend: &str| known?.backends.iter().position(|known| known.name == backend);
        let mut backends: Vec<(Option<usize>, u16, String)> =
            of_pool.map(|(slot, (_, name, _))| (place(name), *slot, name.clone())).collect();
        let active = self.tables.active(pool).backend();
        backends.retain(|(place, slot, _)| {
            known.is_none() || place.is_some() || active == Some(*slot) || flows.contains_key(slot)
        });
        backends.sort_by_key(|(place, slot, _)| (place.unwrap_or(usize::MAX), *slot));
        backends.into_iter().map(|(_, slot, name)| (slot, name)).collect()
    }

    fn pool(&self, slot: u16, name: &str, flows: &BTreeMap<u16, u64>) -> Result<Pool, DataplaneError> {
        let past = self.remembered(name);
        let word = self.tables.active(slot);
        let of_slot = |slot| self.occupied.backends.get(&slot).map(|(_, name, _)| name.clone());
        let remembered = past.and_then(|past| past.active.clone());
        let change = past.and_then(|past| past.transition.as_ref());
        let is_held = change.is_some_and(|change| matches!(change.reached, Reached::Held { .. }));
        let (active, state) = match word.route() {
            Route::Backend(backend) if is_held => (of_slot(backend), PoolState::Held),
            Route::Backend(backend) => (of_slot(backend), PoolState::Serving),
            Route::Hold if change.is_some() && !is_held => (remembered.clone(), PoolState::Switching),
            Route::Hold => (remembered.clone(), PoolState::Held),
            Route::Reject | Route::Nobody => (None, PoolState::AllDown),
        };
        // A change that the file doesn't know of any more: when it was, nobody wrote down.
        let is_as_written = active.is_some() && active == remembered;
        let written = self.state.as_ref().map_or_else(now, |state| state.written);
        let backends = self.backends(slot, name, flows).into_iter();
        let failback = self.configured(name).map(|pool| pool.failback);
        Ok(Pool {
            name: name.to_owned(),
            active,
            state,
            since: past.filter(|_| is_as_written).map_or(written, |past| past.since),
            reason: past.filter(|_| is_as_written).map_or(PoolReason::Restored, |past| past.reason),
            failback: match failback {
                Some(config::Failback::Auto { .. }) => FailbackPolicy::Auto,
                Some(config::Failback::Manual) | None => FailbackPolicy::Manual,
            },
            services: self.services(slot)?,
            backends: backends
                .map(|(slot, backend)| self.backend(name, slot, &backend, flows, written))
                .collect(),
            transition: change.filter(|_| state != PoolState::Serving).map(transition),
            last_failover: None,
        })
    }

    fn services(&self, pool: u16) -> Result<Vec<Service>, DataplaneError> {
        let of_pool = self.occupied.services.iter().filter(|(_, (held_by, ..))| *held_by == pool);
        let mut services: Vec<_> = of_pool.collect();
        // In the order in which they were given their slots, which is the configuration's.
        services.sort_by_key(|(_, (_, slot, _))| *slot);
        let service = |(listen, (_, slot, backend_port)): (&std::net::SocketAddr, &(u16, u16, u16))| {
            let traffic = self.tables.service_traffic(*slot)?;
            Ok(Service {
                name: self.service_names.get(slot).cloned().unwrap_or_default(),
                listen: *listen,
                backend_port: *backend_port,
                new_flows: traffic.new_flows,
                packets: traffic.packets,
                bytes: traffic.bytes,
            })
        };
        services.into_iter().map(service).collect()
    }

    fn backend(
        &self,
        pool: &str,
        slot: u16,
        name: &str,
        flows: &BTreeMap<u16, u64>,
        written: Timestamp,
    ) -> Backend {
        let past = self.remembered(pool);
        let past = past.and_then(|past| past.backends.iter().find(|known| known.name == name));
        let was_down = past.is_some_and(|past| past.services.iter().any(|one| one.down_for_ms.is_some()));
        let configured = self.configured(pool);
        let configured = configured.and_then(|pool| pool.backends.iter().find(|known| known.name == name));
        let address = self.occupied.backends.get(&slot).map(|(.., address)| address.to_string());
        Backend {
            name: name.to_owned(),
            address: address.unwrap_or_default(),
            host: configured.and_then(|backend| backend.host.clone()),
            backup: configured.is_some_and(|backend| backend.backup),
            health: if was_down { Health::Down } else { Health::Unknown },
            admin: match past.map(|past| past.admin) {
                Some(state::Admin::Drain) => Admin::Drain,
                Some(state::Admin::Maint) => Admin::Maint,
                _ if configured.is_some_and(|backend| backend.disabled) => Admin::Disabled,
                Some(state::Admin::Ready) | None => Admin::Ready,
            },
            fails: 0,
            reason: Some(if was_down { WAS_DOWN } else { UNPROBED }.to_owned()),
            since: written,
            flows: flows.get(&slot).copied().unwrap_or_default(),
            last_probe: None,
        }
    }

    /// In the configuration's order, as far as it tells. Links whose device is gone are left out: what it was called is only in
    /// the pin's name.
    fn attachments(&self, links: &[Pinned], devices: &[Device]) -> Vec<Attachment> {
        let interfaces = self.config.as_ref().map_or(&[][..], |config| &config.gateway.interfaces);
        let place = |name: &String| interfaces.iter().position(|known| known == name).unwrap_or(usize::MAX);
        let on = |link: &Pinned| devices.iter().find(|device| Some(device.ifindex) == link.ifindex);
        let found = links.iter().filter_map(|link| Some(attachment(link, on(link)?)));
        let mut attachments: Vec<Attachment> = found.collect();
        attachments.sort_by_key(|attachment| (place(&attachment.interface), attachment.link_id));
        attachments
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

fn transition(change: &state::Transition) -> Transition {
    let step = match &change.reached {
        Reached::Running(step) | Reached::Next(state::Next::Hook(step)) => Some(*step),
        Reached::Held { stop: Stop::Failed(step) | Stop::Lost(state::Next::Hook(step)), .. } => Some(*step),
        Reached::Cutting | Reached::Next(_) | Reached::Held { .. } => None,
    };
    // As `memory` writes them: when each runs, and its name.
    let hook = step.and_then(|step| change.hooks.get(step as usize)).and_then(|hook| hook.split_once(' '));
    Transition {
        id: change.id,
        from: change.from.clone(),
        to: change.to.clone(),
        reason: change.reason,
        step,
        hook: hook.map(|(_, name)| name.to_owned()),
        started: change.started,
    }
}

/// The interfaces of this network namespace.
fn devices() -> Result<Vec<Device>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Failed, format!("asking for interfaces: {error}")))?;
    Ok(runtime.block_on(async { Neighbours::connect()?.devices().await })?)
}

fn attachment(link: &Pinned, device: &Device) -> Attachment {
    let mode = device.program.map(|(_, mode)| match mode {
        Mode::Native => XdpMode::Native,
        Mode::Generic => XdpMode::Generic,
    });
    Attachment {
        interface: device.name.clone(),
        mode,
        program_id: device.program.map(|(id, _)| id),
        link_id: Some(link.id),
        error: None,
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
