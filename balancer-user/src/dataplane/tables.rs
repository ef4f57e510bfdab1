//! The kernel's maps with types: the only writer of everything but flows and counters.
//!
//! Order is everything here: what a word or a key makes reachable is written before it, and taken away after it.

use std::net::{Ipv4Addr, SocketAddrV4};

use aya::Ebpf;
use aya::maps::xdp::{DevMap, XdpMapError};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use balancer_common::abi::{
    ActiveWord, Address, Backend, Interface, NextHop, Pool, Port, Service, ServiceKey, Traffic, name_bytes,
    name_text,
};
use balancer_common::limits::{MAX_BACKENDS, MAX_INTERFACES, MAX_POOLS, MAX_PORT_RANGES};
use balancer_common::ports;
use balancer_common::verdict::Reason;

use super::DataplaneError;
use super::slots::{Occupied, PoolPlan, PoolSlots, ServicePlan};
use super::words::MappedWords;

/// Handles on all maps but the flow tables.
pub struct Tables {
    services: HashMap<MapData, ServiceKey, Service>,
    listen_addresses: HashMap<MapData, u32, u32>,
    pools: Array<MapData, Pool>,
    active: MappedWords,
    backends: Array<MapData, Backend>,
    next_hops: MappedWords,
    interfaces: Array<MapData, Interface>,
    devices: DevMap<MapData>,
    drops: PerCpuArray<MapData, u64>,
    service_traffic: PerCpuArray<MapData, Traffic>,
    backend_traffic: PerCpuArray<MapData, Traffic>,
}

/// A map of the loaded object, with its types.
pub(super) fn take<M: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, DataplaneError> {
    let map = ebpf.take_map(name).ok_or(DataplaneError::ObjectLacks(name))?;
    M::try_from(map).map_err(DataplaneError::map("opening", name))
}

/// An array of words of the loaded object, mapped into memory.
fn take_words(ebpf: &mut Ebpf, name: &'static str, length: usize) -> Result<MappedWords, DataplaneError> {
    match ebpf.take_map(name) {
        Some(Map::Array(map)) => MappedWords::new(&map, name, length),
        _ => Err(DataplaneError::ObjectLacks(name)),
    }
}

impl Tables {
    /// From a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            services: take(ebpf, "SERVICES")?,
            listen_addresses: take(ebpf, "LISTEN_ADDRESSES")?,
            pools: take(ebpf, "POOLS")?,
            active: take_words(ebpf, "ACTIVE", MAX_POOLS)?,
            backends: take(ebpf, "BACKENDS")?,
            next_hops: take_words(ebpf, "NEXT_HOPS", MAX_BACKENDS)?,
            interfaces: take(ebpf, "INTERFACES")?,
            devices: take(ebpf, "DEVICES")?,
            drops: take(ebpf, "DROPS")?,
            service_traffic: take(ebpf, "SERVICE_TRAFFIC")?,
            backend_traffic: take(ebpf, "BACKEND_TRAFFIC")?,
        })
    }

    /// Who has which slot.
    pub fn occupied(&self) -> Result<Occupied, DataplaneError> {
        let mut occupied = Occupied::default();
        for (slot, pool) in self.pools.iter().enumerate() {
            let pool = pool.map_err(DataplaneError::map("reading", "POOLS"))?;
            if pool.snat_range_count > 0 {
                occupied.pools.insert(slot as u16, name_text(&pool.name).to_owned());
            }
        }
        for entry in self.services.iter() {
            let (key, service) = entry.map_err(DataplaneError::map("reading", "SERVICES"))?;
            occupied.services.insert(key.into(), (service.pool, service.slot));
        }
        occupied.active = (0..MAX_POOLS as u16).filter_map(|pool| self.active(pool).backend()).collect();
        for (slot, backend) in self.backends.iter().enumerate() {
            let backend = backend.map_err(DataplaneError::map("reading", "BACKENDS"))?;
            if backend.address != Address::default() {
                let name = name_text(&backend.name).to_owned();
                occupied.backends.insert(slot as u16, (backend.pool as u16, name, backend.address.into()));
            }
        }
        Ok(occupied)
    }

    /// Writes pools and backends; nothing reaches them before their pool has an active backend and its services are
    /// published. Whoever is new in a slot starts with counters at zero and no way to it.
    pub fn write_pools(&mut self, plan: &[PoolPlan], slots: &[PoolSlots]) -> Result<(), DataplaneError> {
        for (pool, slots) in plan.iter().zip(slots) {
            for (backend, slot) in pool.backends.iter().zip(&slots.backends) {
                if !slot.fresh {
                    continue;
                }
                self.next_hops.store(slot.index.into(), 0);
                clear(&mut self.backend_traffic, "BACKEND_TRAFFIC", slot.index)?;
                let value = Backend {
                    address: backend.address.into(),
                    snat_address: Address::default(),
                    pool: slots.pool.index.into(),
                    name: name_bytes(&backend.name),
                };
                self.write_backend(slot.index, &value)?;
            }
            if slots.pool.fresh {
                self.active.store(slots.pool.index.into(), 0);
            }
            self.write_pool(pool, slots)?;
        }
        Ok(())
    }

    /// Makes every service of the plan reachable, and those that aren't in it unreachable.
    pub fn publish_services(&mut self, plan: &[PoolPlan], slots: &[PoolSlots]) -> Result<(), DataplaneError> {
        let wanted: Vec<(&ServicePlan, u16, &super::slots::Slot)> = plan
            .iter()
            .zip(slots)
            .flat_map(|(pool, slots)| {
                pool.services
                    .iter()
                    .zip(&slots.services)
                    .map(|(service, slot)| (service, slots.pool.index, slot))
            })
            .collect();
        let stale: Vec<ServiceKey> = self
            .services
            .keys()
            .filter_map(Result::ok)
            .filter(|key| !wanted.iter().any(|(service, ..)| SocketAddrV4::from(*key) == service.listen))
            .collect();
        for key in stale {
            self.services.remove(&key).map_err(DataplaneError::map("removing from", "SERVICES"))?;
        }
        for (service, pool, slot) in &wanted {
            if slot.fresh {
                clear(&mut self.service_traffic, "SERVICE_TRAFFIC", slot.index)?;
            }
            let address = u32::from_ne_bytes(service.listen.ip().octets());
            self.listen_addresses
                .insert(address, 1, 0)
                .map_err(DataplaneError::map("writing", "LISTEN_ADDRESSES"))?;
            let value = Service {
                slot: slot.index,
                pool: *pool,
                backend_port: Port::new(service.backend_port),
                padding: 0,
                name: name_bytes(&service.name),
            };
            self.services
                .insert(ServiceKey::from(service.listen), value, 0)
                .map_err(DataplaneError::map("writing", "SERVICES"))?;
        }
        self.retire_pools(slots)?;
        let stale: Vec<u32> = self
            .listen_addresses
            .keys()
            .filter_map(Result::ok)
            .filter(|address| {
                !wanted
                    .iter()
                    .any(|(service, ..)| u32::from_ne_bytes(service.listen.ip().octets()) == *address)
            })
            .collect();
        for address in stale {
            self.listen_addresses
                .remove(&address)
                .map_err(DataplaneError::map("removing from", "LISTEN_ADDRESSES"))?;
        }
        Ok(())
    }

    /// What a pool's word says: the backend that its new flows go to, by slot, and what the controller keeps with it.
    pub fn active(&self, pool: u16) -> ActiveWord {
        ActiveWord(self.active.load(pool.into()))
    }

    /// Sends a pool's new flows to a backend: one store.
    pub fn set_active(&self, pool: u16, word: ActiveWord) {
        self.active.store(pool.into(), word.0);
    }

    /// The way to a backend: our address towards it, then the word that makes the way usable. `None`: there is none.
    pub fn set_way(&mut self, backend: u16, way: Option<(Ipv4Addr, NextHop)>) -> Result<(), DataplaneError> {
        let Some((source, hop)) = way else {
            self.next_hops.store(backend.into(), 0);
            return Ok(());
        };
        let mut value =
            self.backends.get(&backend.into(), 0).map_err(DataplaneError::map("reading", "BACKENDS"))?;
        if value.snat_address != Address::from(source) {
            value.snat_address = source.into();
            self.write_backend(backend, &value)?;
        }
        self.next_hops.store(backend.into(), hop.to_word());
        Ok(())
    }

    /// An interface's facts, and the kernel's device in the same slot.
    pub fn set_interface(&mut self, slot: u16, interface: Interface) -> Result<(), DataplaneError> {
        self.interfaces
            .set(slot.into(), interface, 0)
            .map_err(DataplaneError::map("writing", "INTERFACES"))?;
        self.devices.set(slot.into(), interface.ifindex, None, 0).map_err(|error| match error {
            XdpMapError::MapError(error) => DataplaneError::map("writing", "DEVICES")(error),
            XdpMapError::ChainedProgramNotSupported => DataplaneError::ObjectLacks("DEVICES"),
        })
    }

    /// The slot that flows know this interface by, or a free one: never used, or its device is gone.
    pub fn interface_slot(&self, ifindex: u32) -> Result<u16, DataplaneError> {
        let mut free = None;
        for slot in (1..MAX_INTERFACES as u16).rev() {
            let interface =
                self.interfaces.get(&slot.into(), 0).map_err(DataplaneError::map("reading", "INTERFACES"))?;
            // The kernel empties a device's slot when the device goes.
            let gone = self.devices.get(slot.into(), 0).is_err();
            if interface.ifindex == ifindex && !gone {
                return Ok(slot);
            }
            if interface.ifindex == 0 || gone {
                free = Some(slot);
            }
        }
        free.ok_or(DataplaneError::NoSlot { what: "an interface", limit: MAX_INTERFACES - 1 })
    }

    /// Drops by reason, zero included.
    pub fn drops(&self) -> Result<Vec<(Reason, u64)>, DataplaneError> {
        let count = |reason: &Reason| {
            let values =
                self.drops.get(&(*reason as u32), 0).map_err(DataplaneError::map("reading", "DROPS"))?;
            Ok((*reason, values.iter().sum()))
        };
        Reason::ALL.iter().map(count).collect()
    }

    /// A service's traffic.
    pub fn service_traffic(&self, slot: u16) -> Result<Traffic, DataplaneError> {
        sum(&self.service_traffic, "SERVICE_TRAFFIC", slot)
    }

    /// A backend's traffic.
    pub fn backend_traffic(&self, slot: u16) -> Result<Traffic, DataplaneError> {
        sum(&self.backend_traffic, "BACKEND_TRAFFIC", slot)
    }

    /// Frees the slots of pools that no service leads to any more.
    fn retire_pools(&mut self, kept: &[PoolSlots]) -> Result<(), DataplaneError> {
        for slot in 0..MAX_POOLS as u16 {
            let pool = self.pools.get(&slot.into(), 0).map_err(DataplaneError::map("reading", "POOLS"))?;
            if pool.snat_range_count > 0 && kept.iter().all(|kept| kept.pool.index != slot) {
                self.active.store(slot.into(), 0);
                let none = Pool { snat_range_count: 0, snat_port_count: 0, ..pool };
                self.pools.set(slot.into(), none, 0).map_err(DataplaneError::map("writing", "POOLS"))?;
            }
        }
        Ok(())
    }

    fn write_pool(&mut self, pool: &PoolPlan, slots: &PoolSlots) -> Result<(), DataplaneError> {
        let (snat_ports, snat_range_count, snat_port_count) = ports::pack(&pool.snat_ports)
            .ok_or(DataplaneError::NoSlot { what: "a range of SNAT ports", limit: MAX_PORT_RANGES })?;
        let value = Pool { snat_range_count, snat_port_count, snat_ports, name: name_bytes(&pool.name) };
        self.pools.set(slots.pool.index.into(), value, 0).map_err(DataplaneError::map("writing", "POOLS"))
    }

    fn write_backend(&mut self, slot: u16, value: &Backend) -> Result<(), DataplaneError> {
        self.backends.set(slot.into(), value, 0).map_err(DataplaneError::map("writing", "BACKENDS"))
    }
}

fn sum(
    map: &PerCpuArray<MapData, Traffic>,
    name: &'static str,
    slot: u16,
) -> Result<Traffic, DataplaneError> {
    let values = map.get(&slot.into(), 0).map_err(DataplaneError::map("reading", name))?;
    Ok(values.iter().fold(Traffic::default(), |sum, cpu| Traffic {
        new_flows: sum.new_flows + cpu.new_flows,
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
    }))
}

fn clear(
    map: &mut PerCpuArray<MapData, Traffic>,
    name: &'static str,
    slot: u16,
) -> Result<(), DataplaneError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(_, source)| DataplaneError::Io { what: "counting CPUs".into(), source })?;
    let zero = PerCpuValues::try_from(vec![Traffic::default(); cpus])
        .map_err(|source| DataplaneError::Io { what: format!("clearing {name}"), source })?;
    map.set(slot.into(), zero, 0).map_err(DataplaneError::map("writing", name))
}
