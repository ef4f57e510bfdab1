//! What addresses and ports are, for packets that belong to no flow: derived from pools and ways, written by difference.
//!
//! Two steps, as everywhere: what is new is known before anything leads to it ([`RoleTables::widen`]), and what is not
//! wanted any more goes after nothing does ([`RoleTables::set`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use aya::maps::{HashMap, MapData};
use balancer_common::abi::{Address, Roles, address_bits, port_roles};

use super::DataplaneError;
use super::maps::Maps;
use super::slots::{Forwarding, PoolPlan, PoolSlots};
use super::tables::{take, take_words};
use super::words::MappedWords;

/// What the plan says of addresses and ports; which addresses the gateway has towards backends comes from their ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RolePlan {
    roles: BTreeMap<IpAddr, Roles>,
    ports: BTreeMap<u16, u64>,
    /// What the gateway's own address towards a backend is, by the backend's slot.
    by_way: BTreeMap<u16, u16>,
}

impl RolePlan {
    pub(super) fn new(plan: &[PoolPlan], slots: &[PoolSlots]) -> Self {
        let mut roles = Self::default();
        for (pool, slots) in plan.iter().zip(slots) {
            for service in &pool.services {
                add(&mut roles.roles, service.listen.ip(), Roles::LISTEN);
                *roles.ports.entry(service.backend_port).or_default() |= port_roles::BACKEND;
            }
            for (backend, slot) in pool.backends.iter().zip(&slots.backends) {
                add(&mut roles.roles, backend.address, Roles::BACKEND).backend = slot.index;
                let is_used = pool.forwarding == Forwarding::Snat && pool.snat_addresses.is_empty();
                let role = if is_used { Roles::GATEWAY | Roles::SNAT } else { Roles::GATEWAY };
                roles.by_way.insert(slot.index, role);
            }
            if pool.forwarding == Forwarding::Dnat {
                continue;
            }
            for address in &pool.snat_addresses {
                add(&mut roles.roles, *address, Roles::SNAT);
            }
            for port in pool.snat_ports.iter().cloned().flatten() {
                *roles.ports.entry(port).or_default() |= port_roles::SNAT;
            }
        }
        roles
    }

    /// With the gateway's addresses towards backends, by backend's slot.
    fn with_sources(&self, sources: &BTreeMap<u16, IpAddr>) -> BTreeMap<IpAddr, Roles> {
        let mut all = self.roles.clone();
        for (slot, address) in sources {
            if let Some(role) = self.by_way.get(slot) {
                add(&mut all, *address, *role);
            }
        }
        all
    }
}

fn add(all: &mut BTreeMap<IpAddr, Roles>, address: IpAddr, role: u16) -> &mut Roles {
    let roles = all.entry(address).or_default();
    roles.bits |= role;
    roles
}

/// The maps that hold it.
pub(super) struct RoleTables {
    addresses: HashMap<MapData, Address, Roles>,
    /// Which addresses have roles. Never too few: set before they are there, and cleared after they are gone. Without one no
    /// service is looked for, either.
    address_bits: MappedWords,
    ports: MappedWords,
}

impl RoleTables {
    pub(super) fn take(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        Ok(Self {
            addresses: take(maps, "ADDRESSES")?,
            address_bits: take_words(maps, "ADDRESS_BITS", address_bits::WORDS)?,
            ports: take_words(maps, "PORTS", port_roles::WORDS)?,
        })
    }

    /// Adds what is wanted to what is there.
    pub(super) fn widen(
        &mut self,
        plan: &RolePlan,
        sources: &BTreeMap<u16, IpAddr>,
    ) -> Result<(), DataplaneError> {
        let all = plan.with_sources(sources);
        widen(&self.address_bits, address_words(&all));
        for (address, wanted) in all {
            let there = match self.addresses.get(&address.into(), 0) {
                Ok(roles) => roles,
                Err(aya::maps::MapError::KeyNotFound) => Roles::default(),
                Err(error) => return Err(DataplaneError::map("reading", "ADDRESSES")(error)),
            };
            let backend = if wanted.is(Roles::BACKEND) { wanted.backend } else { there.backend };
            self.write(address, Roles { bits: there.bits | wanted.bits, backend })?;
        }
        widen(&self.ports, port_words(plan));
        Ok(())
    }

    /// Makes what is there what is wanted. Addresses where services are still published (`listening`) stay known as that,
    /// whatever the plan says.
    pub(super) fn set(
        &mut self,
        plan: &RolePlan,
        sources: &BTreeMap<u16, IpAddr>,
        listening: &BTreeSet<IpAddr>,
    ) -> Result<(), DataplaneError> {
        let mut wanted = plan.with_sources(sources);
        for address in listening {
            add(&mut wanted, *address, Roles::LISTEN);
        }
        widen(&self.address_bits, address_words(&wanted));
        for (address, roles) in &wanted {
            self.write(*address, *roles)?;
        }
        let stale: Vec<Address> = self
            .addresses
            .keys()
            .filter_map(Result::ok)
            .filter(|address| !wanted.contains_key(&IpAddr::from(*address)))
            .collect();
        for address in stale {
            self.addresses.remove(&address).map_err(DataplaneError::map("removing from", "ADDRESSES"))?;
        }
        set(&self.address_bits, address_words(&wanted));
        set(&self.ports, port_words(plan));
        Ok(())
    }

    /// The ports that flows leave from, as the packet path knows them.
    pub(super) fn flow_ports(&self) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in 0..=u16::MAX {
            let (word, shift) = port_roles::place(port);
            if self.ports.load(word) >> shift & port_roles::SNAT == 0 {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end() + 1 == port => *last = *last.start()..=port,
                _ => ranges.push(port..=port),
            }
        }
        ranges
    }

    fn write(&mut self, address: IpAddr, roles: Roles) -> Result<(), DataplaneError> {
        self.addresses
            .insert(Address::from(address), roles, 0)
            .map_err(DataplaneError::map("writing", "ADDRESSES"))
    }
}

/// Adds bits to those that are there.
fn widen(words: &MappedWords, wanted: Vec<u64>) {
    for (index, word) in wanted.into_iter().enumerate() {
        words.store(index, words.load(index) | word);
    }
}

fn set(words: &MappedWords, wanted: Vec<u64>) {
    for (index, word) in wanted.into_iter().enumerate() {
        words.store(index, word);
    }
}

fn address_words(roles: &BTreeMap<IpAddr, Roles>) -> Vec<u64> {
    let mut words = vec![0; address_bits::WORDS];
    for address in roles.keys() {
        let (word, shift) = address_bits::place((*address).into());
        words[word] |= 1 << shift;
    }
    words
}

fn port_words(plan: &RolePlan) -> Vec<u64> {
    let mut words = vec![0; port_roles::WORDS];
    for (port, roles) in &plan.ports {
        let (word, shift) = port_roles::place(*port);
        words[word] |= roles << shift;
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dataplane::slots::{BackendPlan, Busy, Occupied, Retry, ServicePlan, assign};

    fn pool(forwarding: Forwarding, snat_addresses: &[[u8; 4]]) -> PoolPlan {
        PoolPlan {
            name: "passwords".into(),
            forwarding,
            snat_addresses: snat_addresses.iter().map(|address| IpAddr::from(*address)).collect(),
            snat_ports: vec![1024..=1025],
            retry: Retry::Instant,
            connect_timeout: Duration::from_millis(300),
            services: vec![ServicePlan {
                name: "web".into(),
                listen: ([203, 0, 113, 10], 443).into(),
                backend_port: 10001,
            }],
            backends: vec![BackendPlan { name: "one".into(), address: [10, 0, 2, 11].into() }],
        }
    }

    fn roles(pool: PoolPlan) -> (BTreeMap<IpAddr, Roles>, BTreeMap<u16, u64>) {
        let plan = [pool];
        let slots = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let roles = RolePlan::new(&plan, &slots);
        let sources = BTreeMap::from([(1, IpAddr::from(GATEWAY))]);
        (roles.with_sources(&sources), roles.ports)
    }

    const VIP: [u8; 4] = [203, 0, 113, 10];
    const GATEWAY: [u8; 4] = [10, 0, 2, 1];
    const BACKEND: ([u8; 4], Roles) = ([10, 0, 2, 11], Roles { bits: Roles::BACKEND, backend: 1 });

    fn expected(others: &[([u8; 4], Roles)]) -> BTreeMap<IpAddr, Roles> {
        others.iter().map(|(address, roles)| (IpAddr::from(*address), *roles)).collect()
    }

    const fn only(bits: u16) -> Roles {
        Roles { bits, backend: 0 }
    }

    #[test]
    fn snat_uses_the_gateways_address_towards_the_backend() {
        let (addresses, ports) = roles(pool(Forwarding::Snat, &[]));
        let gateway = (GATEWAY, only(Roles::GATEWAY | Roles::SNAT));
        assert_eq!(addresses, expected(&[(VIP, only(Roles::LISTEN)), BACKEND, gateway]));
        let expected = [(1024, port_roles::SNAT), (1025, port_roles::SNAT), (10001, port_roles::BACKEND)];
        assert_eq!(ports, BTreeMap::from(expected));
    }

    #[test]
    fn chosen_addresses_take_its_place_and_may_be_listened_on() {
        let (addresses, _) = roles(pool(Forwarding::Snat, &[VIP, [10, 0, 2, 9]]));
        let both = (VIP, only(Roles::LISTEN | Roles::SNAT));
        let chosen = ([10, 0, 2, 9], only(Roles::SNAT));
        assert_eq!(addresses, expected(&[both, BACKEND, chosen, (GATEWAY, only(Roles::GATEWAY))]));
    }

    #[test]
    fn dnat_has_none() {
        let (addresses, ports) = roles(pool(Forwarding::Dnat, &[]));
        assert_eq!(
            addresses,
            expected(&[(VIP, only(Roles::LISTEN)), BACKEND, (GATEWAY, only(Roles::GATEWAY))])
        );
        assert_eq!(ports, BTreeMap::from([(10001, port_roles::BACKEND)]));
    }
}
