//! What the maps, the state and the configuration say together of pools, their members and their interfaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use balancer_common::abi::Route;

use crate::config;
use crate::control::protocol::{
    Admin, Attachment, Backend, FailbackPolicy, Health, Pool, PoolReason, PoolState, Service, Timestamp,
    Transition, XdpMode,
};
use crate::dataplane::DataplaneError;
use crate::dataplane::attach::Mode;
use crate::dataplane::links::Pinned;
use crate::dataplane::survey::Device;
use crate::store::state::{self, Reached, Stop};

use super::{Remains, now};

/// Of a backend that nobody probes.
const UNPROBED: &str = "no daemon probes it";
/// Of one that was down.
const WAS_DOWN: &str = "it was down when the daemon ended";

impl Remains {
    /// Slots and names, in the order in which they were remembered.
    pub(super) fn pools(&self) -> Vec<(u16, String)> {
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

    /// Slots and names of a pool's backends, in the order in which they were remembered; of those that weren't, or were at another
    /// address, whoever is in use, or has flows.
    pub(super) fn backends(&self, pool: u16, name: &str, flows: &BTreeMap<u16, u64>) -> Vec<(u16, String)> {
        let of_pool = self.occupied.backends.iter().filter(|(_, (held_by, ..))| *held_by == pool);
        let known = self.remembered(name);
        let place = |backend: &str, address: IpAddr| {
            let is_there = |known: &state::Backend| known.address.is_none_or(|known| known == address);
            known?.backends.iter().position(|known| known.name == backend && is_there(known))
        };
        let mut backends: Vec<(Option<usize>, u16, String)> =
            of_pool.map(|(slot, (_, name, address))| (place(name, *address), *slot, name.clone())).collect();
        let active = self.tables.active(pool).backend();
        backends.retain(|(place, slot, _)| {
            known.is_none() || place.is_some() || active == Some(*slot) || flows.contains_key(slot)
        });
        backends.sort_by_key(|(place, slot, _)| (place.unwrap_or(usize::MAX), *slot));
        backends.into_iter().map(|(_, slot, name)| (slot, name)).collect()
    }

    pub(super) fn pool(
        &self,
        slot: u16,
        name: &str,
        flows: &BTreeMap<u16, u64>,
    ) -> Result<Pool, DataplaneError> {
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

    pub(super) fn services(&self, pool: u16) -> Result<Vec<Service>, DataplaneError> {
        let of_pool = self.occupied.services.iter().filter(|(_, (held_by, ..))| *held_by == pool);
        let mut services: Vec<_> = of_pool.collect();
        // In the order in which they were given their slots, which is the configuration's.
        services.sort_by_key(|(_, (_, slot, _))| *slot);
        let service = |(listen, (_, slot, backend_port)): (&SocketAddr, &(u16, u16, u16))| {
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
    pub(super) fn attachments(&self, links: &[Pinned], devices: &[Device]) -> Vec<Attachment> {
        let interfaces = self.config.as_ref().map_or(&[][..], |config| &config.gateway.interfaces);
        let place = |name: &String| interfaces.iter().position(|known| known == name).unwrap_or(usize::MAX);
        let on = |link: &Pinned| devices.iter().find(|device| Some(device.ifindex) == link.ifindex);
        let found = links.iter().filter_map(|link| Some(attachment(link, on(link)?)));
        let mut attachments: Vec<Attachment> = found.collect();
        attachments.sort_by_key(|attachment| (place(&attachment.interface), attachment.link_id));
        attachments
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
