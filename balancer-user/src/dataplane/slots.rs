//! Who lives where in the kernel's tables: pure, from what the tables hold and what the configuration wants.
//!
//! A slot is an identity that flows and counters refer to, so whoever is known keeps theirs across restarts: a pool by
//! its name, a backend by pool, name and address, a service by its listen address, its port on the backends and its pool.
//! A slot that live flows still refer to is not given to anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use balancer_common::abi::tried_bit;
use balancer_common::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES};

use super::DataplaneError;

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// Pools by slot: their names.
    pub pools: BTreeMap<u16, String>,
    /// Services by listen address: pool's slot, own slot and the port on the backends.
    pub services: BTreeMap<SocketAddr, (u16, u16, u16)>,
    /// Backends by slot: pool's slot, name, address.
    pub backends: BTreeMap<u16, (u16, String, IpAddr)>,
    /// Slots of backends that new flows go to.
    pub active: BTreeSet<u16>,
}

/// Slots that live flows refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// Of services.
    pub services: BTreeSet<u16>,
    /// Of backends.
    pub backends: BTreeSet<u16>,
}

/// What backends see of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// An address of the gateway.
    Snat,
    /// The client's own address.
    Dnat,
}

/// What becomes of connection attempts that a backend does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Their clients see it.
    Off,
    /// They go on to the next backend at once.
    Instant,
    /// They go on to the next backend when their clients repeat them.
    Repeated,
    /// They stay where they are until their pool has changed.
    Held,
}

/// A pool as the data plane has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Its name.
    pub name: String,
    /// What backends see of clients.
    pub forwarding: Forwarding,
    /// Addresses for the gateway's side of flows to backends; none: what the kernel would use towards each.
    pub snat_addresses: Vec<IpAddr>,
    /// Ports for the gateway's side of flows to backends.
    pub snat_ports: Vec<RangeInclusive<u16>>,
    /// What becomes of connection attempts that a backend does not take.
    pub retry: Retry,
    /// For how long a SYN may be unanswered before its backend is taken not to have taken it.
    pub connect_timeout: Duration,
    /// Its services, in the order of the configuration.
    pub services: Vec<ServicePlan>,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendPlan>,
}

/// A service as the data plane has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Its name.
    pub name: String,
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// The port on the backends.
    pub backend_port: u16,
}

/// A backend as the data plane has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPlan {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
}

/// A slot, and whether its holder is new there (then its counters start from zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index in the tables.
    pub index: u16,
    /// Nobody, or somebody else, had it before.
    pub fresh: bool,
}

/// The slots of one pool, its services and its backends, each in the order of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSlots {
    /// The pool's own.
    pub pool: Slot,
    /// Its services'.
    pub services: Vec<Slot>,
    /// Its backends'.
    pub backends: Vec<Slot>,
}

impl PoolSlots {
    /// Everybody has been written, and is new nowhere any more.
    pub fn settle(&mut self) {
        let slots = self.services.iter_mut().chain(&mut self.backends).chain([&mut self.pool]);
        slots.for_each(|slot| slot.fresh = false);
    }
}

/// Gives everybody in the plan a slot.
pub fn assign(plan: &[PoolPlan], occupied: &Occupied, busy: &Busy) -> Result<Vec<PoolSlots>, DataplaneError> {
    let mut pools = Allocator::new("a pool", 0..MAX_POOLS as u16);
    let mut services = Allocator::new("a service", 1..MAX_SERVICES as u16);
    let mut backends = Allocator::new("a backend", 1..MAX_BACKENDS as u16);
    services.taken.extend(&busy.services);
    backends.taken.extend(&busy.backends);
    // Traffic goes on while slots are given away: what it is led to now stays what it is.
    backends.taken.extend(&occupied.active);
    pools.taken.extend(occupied.services.values().map(|(pool, ..)| *pool));
    // Whoever is asked to end all flows of a pool finds them by the pool's slot.
    pools.taken.extend(busy.backends.iter().filter_map(|slot| Some(occupied.backends.get(slot)?.0)));

    // First everybody who is known, then the others into what is left.
    let known_pools: Vec<Option<u16>> = plan.iter().map(|pool| known_pool(pool, occupied)).collect();
    let known = |pool: Option<u16>, plan: &PoolPlan| Known {
        pool,
        services: plan.services.iter().map(|service| known_service(service, pool, occupied)).collect(),
        backends: plan.backends.iter().map(|backend| known_backend(backend, pool, occupied)).collect(),
    };
    let known: Vec<Known> = known_pools.into_iter().zip(plan).map(|(slot, pool)| known(slot, pool)).collect();
    for pool in &known {
        pools.taken.extend(pool.pool);
        services.taken.extend(pool.services.iter().flatten());
        backends.taken.extend(pool.backends.iter().flatten());
    }
    known
        .into_iter()
        .map(|known| {
            Ok(PoolSlots {
                pool: pools.keep_or_take(known.pool)?,
                services: keep_or_take_all(&mut services, known.services)?,
                backends: keep_or_take_apart(&mut backends, known.backends)?,
            })
        })
        .collect()
}

struct Known {
    pool: Option<u16>,
    services: Vec<Option<u16>>,
    backends: Vec<Option<u16>>,
}

fn known_pool(pool: &PoolPlan, occupied: &Occupied) -> Option<u16> {
    occupied.pools.iter().find_map(|(slot, name)| (*name == pool.name).then_some(*slot))
}

fn known_service(service: &ServicePlan, pool: Option<u16>, occupied: &Occupied) -> Option<u16> {
    let (held_by, slot, port) = occupied.services.get(&service.listen)?;
    (Some(*held_by) == pool && *port == service.backend_port).then_some(*slot)
}

fn known_backend(backend: &BackendPlan, pool: Option<u16>, occupied: &Occupied) -> Option<u16> {
    occupied.backends.iter().find_map(|(slot, (held_by, name, address))| {
        (Some(*held_by) == pool && *name == backend.name && *address == backend.address).then_some(*slot)
    })
}

fn keep_or_take_all(allocator: &mut Allocator, known: Vec<Option<u16>>) -> Result<Vec<Slot>, DataplaneError> {
    known.into_iter().map(|slot| allocator.keep_or_take(slot)).collect()
}

/// A connection attempt notes each backend that did not take it as one of so many bits ([`tried_bit`]): two backends of a pool
/// with the same bit would be tried as one, so they share one only where there are no others.
fn keep_or_take_apart(
    allocator: &mut Allocator,
    known: Vec<Option<u16>>,
) -> Result<Vec<Slot>, DataplaneError> {
    let mut used: u64 = known.iter().flatten().fold(0, |used, slot| used | tried_bit(*slot));
    let mut slots = Vec::new();
    for known in known {
        let slot = allocator.keep_or_take_best(known, |slot| used & tried_bit(slot) == 0)?;
        used |= tried_bit(slot.index);
        slots.push(slot);
    }
    Ok(slots)
}

struct Allocator {
    what: &'static str,
    range: std::ops::Range<u16>,
    taken: BTreeSet<u16>,
}

impl Allocator {
    fn new(what: &'static str, range: std::ops::Range<u16>) -> Self {
        Self { what, range, taken: BTreeSet::new() }
    }

    fn keep_or_take(&mut self, known: Option<u16>) -> Result<Slot, DataplaneError> {
        self.keep_or_take_best(known, |_| true)
    }

    /// If there are any of those, one that suits.
    fn keep_or_take_best(
        &mut self,
        known: Option<u16>,
        suits: impl Fn(u16) -> bool,
    ) -> Result<Slot, DataplaneError> {
        if let Some(index) = known {
            return Ok(Slot { index, fresh: false });
        }
        let free = || self.range.clone().filter(|slot| !self.taken.contains(slot));
        let index = free()
            .find(|slot| suits(*slot))
            .or_else(|| free().next())
            .ok_or(DataplaneError::NoSlot { what: self.what, limit: self.range.len() })?;
        self.taken.insert(index);
        Ok(Slot { index, fresh: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, ports: &[u16], backends: &[(&str, u8)]) -> PoolPlan {
        PoolPlan {
            name: name.into(),
            forwarding: Forwarding::Snat,
            snat_addresses: Vec::new(),
            snat_ports: vec![1024..=2047],
            retry: Retry::Instant,
            connect_timeout: Duration::from_millis(300),
            services: ports
                .iter()
                .map(|port| ServicePlan {
                    name: format!("port{port}"),
                    listen: SocketAddr::from(([203, 0, 113, 10], *port)),
                    backend_port: *port,
                })
                .collect(),
            backends: backends
                .iter()
                .map(|(name, last)| BackendPlan {
                    name: (*name).into(),
                    address: IpAddr::from([10, 0, 2, *last]),
                })
                .collect(),
        }
    }

    /// What the tables hold once `plan` has been written to these slots.
    fn written(plan: &[PoolPlan], slots: &[PoolSlots]) -> Occupied {
        let mut occupied = Occupied::default();
        for (pool, slots) in plan.iter().zip(slots) {
            occupied.pools.insert(slots.pool.index, pool.name.clone());
            for (service, slot) in pool.services.iter().zip(&slots.services) {
                occupied
                    .services
                    .insert(service.listen, (slots.pool.index, slot.index, service.backend_port));
            }
            for (backend, slot) in pool.backends.iter().zip(&slots.backends) {
                let held = (slots.pool.index, backend.name.clone(), backend.address);
                occupied.backends.insert(slot.index, held);
            }
        }
        occupied
    }

    fn indexes(slots: &[Slot]) -> Vec<u16> {
        slots.iter().map(|slot| slot.index).collect()
    }

    #[test]
    fn a_restart_with_the_same_configuration_changes_nothing() {
        let plan = [pool("a", &[443, 8877], &[("one", 11), ("two", 12)]), pool("b", &[80], &[("one", 21)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let again = assign(&plan, &written(&plan, &first), &Busy::default()).unwrap();
        assert_eq!(again.len(), 2);
        for (before, after) in first.iter().zip(&again) {
            assert_eq!(before.pool.index, after.pool.index);
            assert_eq!(indexes(&before.services), indexes(&after.services));
            assert_eq!(indexes(&before.backends), indexes(&after.backends));
            assert!(!after.pool.fresh && after.backends.iter().all(|slot| !slot.fresh));
        }
    }

    #[test]
    fn backends_of_a_pool_have_slots_that_a_connection_attempt_tells_apart() {
        let names: Vec<String> = (0..62).map(|name| name.to_string()).collect();
        let many: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 100)).collect();
        let first = [pool("a", &[443], &many), pool("b", &[80], &[("one", 11)])];
        let slots = assign(&first, &Occupied::default(), &Busy::default()).unwrap();
        let wider = [
            pool("a", &[443], &many),
            pool("b", &[80], &[("one", 11), ("two", 12), ("three", 13), ("four", 14)]),
        ];
        let after = assign(&wider, &written(&first, &slots), &Busy::default()).unwrap();
        let bits: BTreeSet<u64> = after[1].backends.iter().map(|slot| tried_bit(slot.index)).collect();
        assert_eq!(bits.len(), 4, "{after:?}");
        let crowd: Vec<String> = (0..100).map(|name| name.to_string()).collect();
        let crowd: Vec<(&str, u8)> = crowd.iter().map(|name| (name.as_str(), 100)).collect();
        let slots = assign(&[pool("a", &[443], &crowd)], &Occupied::default(), &Busy::default()).unwrap();
        assert_eq!(slots[0].backends.len(), 100, "more than there are bits");
    }

    #[test]
    fn slot_zero_is_no_backend_and_no_service() {
        let plan = [pool("a", &[443], &[("one", 11)])];
        let slots = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        assert_eq!((slots[0].services[0].index, slots[0].backends[0].index), (1, 1));
    }

    #[test]
    fn reordering_moves_nobody() {
        let plan = [pool("a", &[443], &[("one", 11), ("two", 12)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let turned = [pool("a", &[443], &[("two", 12), ("one", 11)])];
        let after = assign(&turned, &written(&plan, &first), &Busy::default()).unwrap();
        assert_eq!(indexes(&after[0].backends), [2, 1]);
    }

    #[test]
    fn a_new_address_is_a_new_backend() {
        let plan = [pool("a", &[443], &[("one", 11)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let busy = Busy { backends: [1].into(), ..Busy::default() };
        let moved = [pool("a", &[443], &[("one", 99)])];
        let after = assign(&moved, &written(&plan, &first), &busy).unwrap();
        assert_eq!(after[0].backends, [Slot { index: 2, fresh: true }], "slot 1 has flows");
        let idle = assign(&moved, &written(&plan, &first), &Busy::default()).unwrap();
        assert_eq!(idle[0].backends, [Slot { index: 1, fresh: true }], "slot 1 is free again");
    }

    #[test]
    fn whom_traffic_is_led_to_keeps_the_slot_without_flows_too() {
        let plan = [pool("a", &[443], &[("one", 11), ("two", 12)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let occupied = Occupied { active: [1].into(), ..written(&plan, &first) };
        let without_one = [pool("a", &[443], &[("two", 12), ("three", 13)])];
        let after = assign(&without_one, &occupied, &Busy::default()).unwrap();
        assert_eq!(indexes(&after[0].backends), [2, 3]);
        let renamed = [pool("b", &[443], &[("two", 12)])];
        assert_eq!(assign(&renamed, &occupied, &Busy::default()).unwrap()[0].pool.index, 1);
    }

    #[test]
    fn a_listen_address_that_moves_to_another_pool_gets_other_counters() {
        let plan = [pool("a", &[443], &[("one", 11)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let moved = [pool("b", &[443], &[("one", 11)])];
        let busy = Busy { services: [1].into(), ..Busy::default() };
        let after = assign(&moved, &written(&plan, &first), &busy).unwrap();
        assert_eq!(after[0].services, [Slot { index: 2, fresh: true }]);
    }

    #[test]
    fn another_port_on_the_backends_is_another_service() {
        let plan = [pool("a", &[443], &[("one", 11)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let mut moved = plan.clone();
        moved[0].services[0].backend_port = 444;
        let busy = Busy { services: [1].into(), ..Busy::default() };
        let after = assign(&moved, &written(&plan, &first), &busy).unwrap();
        assert_eq!(after[0].services, [Slot { index: 2, fresh: true }], "the flows of slot 1 are another's");
        assert_eq!(after[0].backends, [Slot { index: 1, fresh: false }]);
    }

    #[test]
    fn a_new_pool_is_not_where_flows_of_an_earlier_one_would_be_taken_for_its_own() {
        let plan = [pool("a", &[443], &[("one", 11)])];
        let first = assign(&plan, &Occupied::default(), &Busy::default()).unwrap();
        let occupied = Occupied { services: BTreeMap::new(), ..written(&plan, &first) };
        let busy = Busy { backends: [1].into(), ..Busy::default() };
        let other = [pool("b", &[80], &[("two", 12)])];
        assert_eq!(assign(&other, &occupied, &busy).unwrap()[0].pool.index, 1);
        assert_eq!(assign(&other, &occupied, &Busy::default()).unwrap()[0].pool.index, 0);
    }

    #[test]
    fn too_many_pools_are_refused_by_name() {
        let plan: Vec<PoolPlan> = (0..=MAX_POOLS).map(|index| pool(&index.to_string(), &[], &[])).collect();
        let error = assign(&plan, &Occupied::default(), &Busy::default()).unwrap_err();
        assert_eq!(error.to_string(), "no free slot for a pool: at most 256 are possible");
    }
}
