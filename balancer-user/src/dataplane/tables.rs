//! The kernel's maps with types: the only writer of everything but flows and counters.
//!
//! Order is everything here: what a word or a key makes reachable is written before it, and taken away after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use balancer_common::abi::{
    ActiveWord, Address, Backend, FORWARDING_DNAT, FORWARDING_SNAT, Interface, NextHop, Pool, Port,
    RETRY_HELD, RETRY_INSTANT, RETRY_OFF, RETRY_REPEATED, Service, ServiceKey, Signals, Tally, Traffic,
    name_bytes, name_text,
};
use balancer_common::limits::{MAX_BACKENDS, MAX_POOLS, MAX_PORT_RANGES, MAX_SERVICES, MAX_SNAT_ADDRESSES};
use balancer_common::ports;
use balancer_common::verdict::Reason;

use super::DataplaneError;
use super::clock::Jiffies;
use super::exits::Exits;
use super::interfaces::InterfaceTables;
use super::maps::Maps;
use super::roles::{RolePlan, RoleTables};
use super::signals::SignalTables;
use super::slots::{Forwarding, Occupied, PoolPlan, PoolSlots, Retry, ServicePlan};
use super::words::MappedWords;

/// Handles on all maps but the flow tables.
pub struct Tables {
    services: HashMap<MapData, ServiceKey, Service>,
    roles: RoleTables,
    role_plan: RolePlan,
    /// Whoever has left the configuration and may have flows is still known by address and port.
    keeps_roles: bool,
    pools: Array<MapData, Pool>,
    active: MappedWords,
    backends: Array<MapData, Backend>,
    next_hops: MappedWords,
    interfaces: InterfaceTables,
    reasons: PerCpuArray<MapData, Tally>,
    service_traffic: PerCpuArray<MapData, Traffic>,
    backend_traffic: PerCpuArray<MapData, Traffic>,
    signals: SignalTables,
}

/// A map with its types.
pub(super) fn take<M: TryFrom<Map, Error = aya::maps::MapError>>(
    maps: &mut impl Maps,
    name: &'static str,
) -> Result<M, DataplaneError> {
    M::try_from(maps.take_map(name)?).map_err(DataplaneError::map("opening", name))
}

/// An array of so many words, mapped into memory.
pub(super) fn take_words(
    maps: &mut impl Maps,
    name: &'static str,
    length: usize,
) -> Result<MappedWords, DataplaneError> {
    let words = take_array(maps, name, 1)?;
    if words.len() < length { Err(DataplaneError::ObjectLacks(name)) } else { Ok(words) }
}

/// An array whose elements have so many words, mapped into memory.
pub(super) fn take_array(
    maps: &mut impl Maps,
    name: &'static str,
    words: usize,
) -> Result<MappedWords, DataplaneError> {
    match maps.take_map(name)? {
        Map::Array(map) => MappedWords::new(&map, name, words),
        _ => Err(DataplaneError::ObjectLacks(name)),
    }
}

impl Tables {
    /// From a loaded object, or from pins.
    pub fn take(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        Ok(Self {
            services: take(maps, "SERVICES")?,
            roles: RoleTables::take(maps)?,
            role_plan: RolePlan::default(),
            keeps_roles: false,
            pools: take(maps, "POOLS")?,
            active: take_words(maps, "ACTIVE", MAX_POOLS)?,
            backends: take(maps, "BACKENDS")?,
            next_hops: take_words(maps, "NEXT_HOPS", MAX_BACKENDS)?,
            interfaces: InterfaceTables::take(maps)?,
            reasons: take(maps, "REASONS")?,
            service_traffic: take(maps, "SERVICE_TRAFFIC")?,
            backend_traffic: take(maps, "BACKEND_TRAFFIC")?,
            signals: SignalTables::take(maps)?,
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
            occupied.services.insert(key.into(), (service.pool, service.slot, service.backend_port.number()));
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

    /// Services by slot: their names.
    pub fn service_names(&self) -> Result<BTreeMap<u16, String>, DataplaneError> {
        let name = |entry: Result<(ServiceKey, Service), _>| {
            let (_, service) = entry.map_err(DataplaneError::map("reading", "SERVICES"))?;
            Ok((service.slot, name_text(&service.name).to_owned()))
        };
        self.services.iter().map(name).collect()
    }

    /// Whoever is a backend of the pool in this slot, or was one and may have flows: slots and names.
    pub fn backends_of(&self, pool: u16) -> Result<Vec<(u16, String)>, DataplaneError> {
        let mut backends = Vec::new();
        for (slot, backend) in self.backends.iter().enumerate() {
            let backend = backend.map_err(DataplaneError::map("reading", "BACKENDS"))?;
            if backend.address != Address::default() && backend.pool == u64::from(pool) {
                backends.push((slot as u16, name_text(&backend.name).to_owned()));
            }
        }
        Ok(backends)
    }

    /// Writes pools and backends; nothing reaches them before their pool has an active backend and its services are
    /// published. Whoever is new in a slot starts with counters at zero and no way to it.
    pub fn write_pools(&mut self, plan: &[PoolPlan], slots: &[PoolSlots]) -> Result<(), DataplaneError> {
        // Traffic goes on meanwhile, and must not go on to somebody else who has their place now.
        let new = slots.iter().flat_map(|pool| &pool.backends).filter(|slot| slot.fresh);
        self.signals.forget_successors(&new.map(|slot| slot.index).collect());
        (0..MAX_SERVICES as u16).for_each(|service| self.set_trial(service, 0));
        for (pool, slots) in plan.iter().zip(slots) {
            for (backend, slot) in pool.backends.iter().zip(&slots.backends) {
                if !slot.fresh {
                    continue;
                }
                self.next_hops.store(slot.index.into(), 0);
                clear(&mut self.backend_traffic, "BACKEND_TRAFFIC", slot.index)?;
                self.signals.begin_anew(slot.index)?;
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
                self.signals.set_successors(slots.pool.index, &[]);
            }
            self.write_pool(pool, slots)?;
        }
        self.role_plan = RolePlan::new(plan, slots);
        self.roles.widen(&self.role_plan, &self.source_addresses()?)
    }

    /// The gateway's addresses towards backends, by backend's slot.
    fn source_addresses(&self) -> Result<BTreeMap<u16, IpAddr>, DataplaneError> {
        let mut sources = BTreeMap::new();
        for (slot, backend) in self.backends.iter().enumerate() {
            let backend = backend.map_err(DataplaneError::map("reading", "BACKENDS"))?;
            if backend.snat_address != Address::default() {
                sources.insert(slot as u16, backend.snat_address.into());
            }
        }
        Ok(sources)
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
            .filter(|key| !wanted.iter().any(|(service, ..)| SocketAddr::from(*key) == service.listen))
            .collect();
        for key in stale {
            self.services.remove(&key).map_err(DataplaneError::map("removing from", "SERVICES"))?;
        }
        for (service, pool, slot) in &wanted {
            if slot.fresh {
                clear(&mut self.service_traffic, "SERVICE_TRAFFIC", slot.index)?;
            }
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
        self.write_roles()
    }

    /// Whether addresses and ports of an earlier plan still mean what they meant: what comes late for flows that are gone is
    /// not for the gateway's own stack.
    pub fn keep_roles(&mut self, keep: bool) -> Result<(), DataplaneError> {
        let was_kept = std::mem::replace(&mut self.keeps_roles, keep);
        if was_kept && !keep { self.write_roles() } else { Ok(()) }
    }

    /// The ports that flows leave from, of whatever pool, those of an earlier plan included as long as they are kept.
    pub fn flow_ports(&self) -> Vec<RangeInclusive<u16>> {
        self.roles.flow_ports()
    }

    fn write_roles(&mut self) -> Result<(), DataplaneError> {
        let sources = self.source_addresses()?;
        if self.keeps_roles {
            self.roles.widen(&self.role_plan, &sources)
        } else {
            let services = self.services.keys().filter_map(Result::ok);
            let listening = services.map(|service| SocketAddr::from(service).ip()).collect();
            self.roles.set(&self.role_plan, &sources, &listening)
        }
    }

    /// What a pool's word says: the backend that its new flows go to, by slot, and what the controller keeps with it.
    pub fn active(&self, pool: u16) -> ActiveWord {
        ActiveWord(self.active.load(pool.into()))
    }

    /// Sends a pool's new flows to a backend, has them wait or refuses them: one store.
    pub fn set_active(&self, pool: u16, word: ActiveWord) {
        self.active.store(pool.into(), word.0);
    }

    /// Where connection attempts go on that a backend of this pool did not take: backends by slot, those first that come
    /// first. More than there is room for are left out.
    pub fn set_successors(&self, pool: u16, backends: &[u16]) {
        self.signals.set_successors(pool, backends);
    }

    /// The next connection of the service in this slot tries this backend, by slot, before the active one; with 0 none does.
    pub fn set_trial(&self, service: u16, backend: u16) {
        self.signals.set_trial(service, backend);
    }

    /// Whether no connection has been taken for it yet.
    pub fn awaits_trial(&self, service: u16) -> bool {
        self.signals.awaits_trial(service)
    }

    /// The way to a backend: our address towards it, then the word that makes the way usable. `None`: there is none.
    pub fn set_way(&mut self, backend: u16, way: Option<(IpAddr, NextHop)>) -> Result<(), DataplaneError> {
        let Some((source, hop)) = way else {
            self.next_hops.store(backend.into(), 0);
            return Ok(());
        };
        let mut value =
            self.backends.get(&backend.into(), 0).map_err(DataplaneError::map("reading", "BACKENDS"))?;
        if value.snat_address != Address::from(source) {
            // An address that packets come back to is known before the first one leaves with it.
            self.roles.widen(&self.role_plan, &BTreeMap::from([(backend, source)]))?;
            value.snat_address = source.into();
            self.write_backend(backend, &value)?;
        }
        self.next_hops.store(backend.into(), hop.to_word());
        Ok(())
    }

    /// An interface's facts, and the kernel's device in the same slot.
    pub fn set_interface(&mut self, slot: u16, interface: Interface) -> Result<(), DataplaneError> {
        self.interfaces.set(slot, interface)
    }

    /// Nothing leaves through the interface in this slot any more, and the slot is free.
    pub fn release_interface(&mut self, slot: u16) -> Result<(), DataplaneError> {
        self.interfaces.release(slot)
    }

    /// What frames of our own leave by: interfaces, and the way to this backend as it is now.
    pub fn exits(&self, backend: u16) -> Result<Exits, DataplaneError> {
        Ok(Exits {
            interfaces: self.interfaces.all()?,
            backend: NextHop::from_word(self.next_hops.load(backend.into())),
        })
    }

    /// The way to a backend, if there is one.
    pub fn way(&self, backend: u16) -> Option<NextHop> {
        let way = NextHop::from_word(self.next_hops.load(backend.into()));
        (way.interface != 0).then_some(way)
    }

    /// The slot that flows know this interface by: its device's own, or else that of one which is gone and had the same
    /// hardware address; or a free one. `taken`: slots that wait for the return of somebody else.
    pub fn interface_slot(
        &self,
        interface: &Interface,
        taken: &BTreeSet<u16>,
    ) -> Result<u16, DataplaneError> {
        self.interfaces.slot(interface, taken)
    }

    /// What became of packets that were neither forwarded nor simply passed, by reason, zero included.
    pub fn tallies(&self) -> Result<Vec<(Reason, Tally)>, DataplaneError> {
        Reason::ALL.iter().map(|reason| Ok((*reason, self.tally(*reason)?))).collect()
    }

    /// The same of one of them.
    pub fn tally(&self, reason: Reason) -> Result<Tally, DataplaneError> {
        let values =
            self.reasons.get(&(reason as u32), 0).map_err(DataplaneError::map("reading", "REASONS"))?;
        Ok(values.iter().fold(Tally::default(), |sum, cpu| Tally {
            dropped: sum.dropped + cpu.dropped,
            answered: sum.answered + cpu.answered,
            passed: sum.passed + cpu.passed,
        }))
    }

    /// A service's traffic.
    pub fn service_traffic(&self, slot: u16) -> Result<Traffic, DataplaneError> {
        sum(&self.service_traffic, "SERVICE_TRAFFIC", slot)
    }

    /// A backend's traffic.
    pub fn backend_traffic(&self, slot: u16) -> Result<Traffic, DataplaneError> {
        sum(&self.backend_traffic, "BACKEND_TRAFFIC", slot)
    }

    /// What became of connection attempts at a backend.
    pub fn signals(&self, slot: u16) -> Result<Signals, DataplaneError> {
        self.signals.of(slot)
    }

    /// When a backend last answered a SYN.
    pub fn answered(&self, slot: u16) -> Option<Jiffies> {
        self.signals.answered(slot)
    }

    /// How many failed attempts at a backend could not be told.
    pub fn failures_lost(&self, slot: u16) -> u64 {
        self.signals.lost(slot)
    }

    /// Frees the slots of pools that no service leads to any more.
    fn retire_pools(&mut self, kept: &[PoolSlots]) -> Result<(), DataplaneError> {
        for slot in 0..MAX_POOLS as u16 {
            let pool = self.pools.get(&slot.into(), 0).map_err(DataplaneError::map("reading", "POOLS"))?;
            if pool.snat_range_count > 0 && kept.iter().all(|kept| kept.pool.index != slot) {
                self.active.store(slot.into(), 0);
                self.signals.set_successors(slot, &[]);
                let none = Pool { snat_range_count: 0, snat_port_count: 0, ..pool };
                self.pools.set(slot.into(), none, 0).map_err(DataplaneError::map("writing", "POOLS"))?;
            }
        }
        Ok(())
    }

    fn write_pool(&mut self, pool: &PoolPlan, slots: &PoolSlots) -> Result<(), DataplaneError> {
        let (snat_ports, snat_range_count, snat_port_count) = ports::pack(&pool.snat_ports)
            .ok_or(DataplaneError::NoSlot { what: "a range of SNAT ports", limit: MAX_PORT_RANGES })?;
        let mut snat_addresses = [Address::default(); MAX_SNAT_ADDRESSES];
        if pool.snat_addresses.len() > MAX_SNAT_ADDRESSES {
            return Err(DataplaneError::NoSlot { what: "a SNAT address", limit: MAX_SNAT_ADDRESSES });
        }
        for (to, from) in snat_addresses.iter_mut().zip(&pool.snat_addresses) {
            *to = (*from).into();
        }
        let value = Pool {
            forwarding: match pool.forwarding {
                Forwarding::Snat => FORWARDING_SNAT,
                Forwarding::Dnat => FORWARDING_DNAT,
            },
            snat_address_count: pool.snat_addresses.len() as u32,
            snat_range_count,
            snat_port_count,
            retry: match pool.retry {
                Retry::Off => RETRY_OFF,
                Retry::Instant => RETRY_INSTANT,
                Retry::Repeated => RETRY_REPEATED,
                Retry::Held => RETRY_HELD,
            },
            connect_timeout_ms: u32::try_from(pool.connect_timeout.as_millis()).unwrap_or(u32::MAX),
            snat_addresses,
            snat_ports,
            name: name_bytes(&pool.name),
        };
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

/// Makes what all CPUs have counted in this slot nothing.
pub(super) fn clear<T: Pod + Default>(
    map: &mut PerCpuArray<MapData, T>,
    name: &'static str,
    slot: u16,
) -> Result<(), DataplaneError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(_, source)| DataplaneError::Io { what: "counting CPUs".into(), source })?;
    let zero = PerCpuValues::try_from(vec![T::default(); cpus])
        .map_err(|source| DataplaneError::Io { what: format!("clearing {name}"), source })?;
    map.set(slot.into(), zero, 0).map_err(DataplaneError::map("writing", name))
}
