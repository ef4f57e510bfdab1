//! What the controller has told: services, pools, backends, and the way to them. Read only, but for the place in a cycle
//! of SNAT ports.
#![expect(unsafe_code, reason = "entries of hash maps are read in place")]

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{
    ActiveWord, Address, Backend, FlowKey, Interface, NextHop, Pool, Port, RETRY_INSTANT, RETRY_REPEATED,
    Roles, Route, Service, ServiceKey, Successors, address_bits, port_roles, tried_bit,
};

use crate::atomics::compare_exchange;
use crate::family::Family;
use crate::maps::{
    ACTIVE, ADDRESS_BITS, ADDRESSES, BACKENDS, INTERFACE_SLOTS, INTERFACES, NEXT_HOPS, POOLS, PORTS,
    SERVICES, SNAT_CYCLES, SUCCESSORS, TRIALS,
};

/// The service that a packet with this tuple is for.
#[inline(always)]
pub(crate) fn find<A: Family>(key: &FlowKey<A>) -> Option<&'static Service> {
    at(key.destination.into(), key.destination_port)
}

/// The service that listens there.
#[inline(always)]
pub(crate) fn at(address: Address, port: Port) -> Option<&'static Service> {
    if !is_known(address) {
        return None;
    }
    let key = ServiceKey::new(address, port);
    // SAFETY: any value of its integers is sound. The kernel replaces a value by linking a new element, so it is never
    // half old and half new.
    unsafe { SERVICES.get(key) }
}

/// Whether an address may be anything here; of most the answer is no, and costs a load.
#[inline(always)]
pub(crate) fn is_known(address: Address) -> bool {
    let (word, shift) = address_bits::place(address);
    ADDRESS_BITS.get(word as u32).is_some_and(|word| *word >> shift & 1 != 0)
}

/// What an address is.
#[inline(always)]
pub(crate) fn roles(address: Address) -> Roles {
    if !is_known(address) {
        return Roles::default();
    }
    // SAFETY: as in `at`.
    unsafe { ADDRESSES.get(address) }.copied().unwrap_or_default()
}

/// Whether a packet between these addresses, of which nothing more is known, may belong to a service: it is for a listen
/// address, or from a backend to where flows to backends come from.
#[inline(always)]
pub(crate) fn may_be_ours(source: Address, destination: Address) -> bool {
    let destination = roles(destination);
    destination.is(Roles::LISTEN) || (destination.is(Roles::SNAT) && roles(source).is(Roles::BACKEND))
}

/// Whether a packet with this tuple answers one that flows to backends may have sent.
#[inline(never)]
pub(crate) fn is_from_backend<A: Family>(key: &FlowKey<A>) -> bool {
    has_role(key.destination_port, port_roles::SNAT)
        && has_role(key.source_port, port_roles::BACKEND)
        && roles(key.destination.into()).is(Roles::SNAT)
        && roles(key.source.into()).is(Roles::BACKEND)
}

/// Whether a packet with this tuple belongs to a service, one way or the other.
#[inline(always)]
pub(crate) fn is_ours<A: Family>(key: &FlowKey<A>) -> bool {
    find(key).is_some() || is_from_backend(key)
}

#[inline(always)]
fn has_role(port: Port, role: u64) -> bool {
    let (word, shift) = port_roles::place(port.number());
    PORTS.get(word as u32).is_some_and(|word| *word >> shift & role != 0)
}

#[inline(always)]
pub(crate) fn pool(slot: u16) -> Option<&'static Pool> {
    POOLS.get(u32::from(slot))
}

/// What becomes of the pool's new flows.
#[inline(always)]
pub(crate) fn route(pool: u16) -> Route {
    ACTIVE.get(u32::from(pool)).map_or(Route::Nobody, |word| ActiveWord(*word).route())
}

/// The backend that a SYN goes to which nobody has been asked to take yet: the active one, but for one connection that is
/// another's trial. Without a way to the active one it need not wait, if it might go on from there.
#[inline(always)]
pub(crate) fn first(service: u16, pool: u16, active: u16) -> u16 {
    let is_ordinary = TRIALS.get(u32::from(service)) == Some(&0) && next_hop(active).is_some();
    if is_ordinary { active } else { first_apart(service, pool, active) }
}

#[inline(never)]
fn first_apart(service: u16, pool: u16, active: u16) -> u16 {
    let trial = trial(service);
    if trial != 0 {
        return trial;
    }
    let may_go_on = |pool: &Pool| matches!(pool.retry, RETRY_INSTANT | RETRY_REPEATED);
    if next_hop(active).is_none() && self::pool(pool).is_some_and(may_go_on) {
        return successor(pool, active, 0);
    }
    active
}

/// Whom the service's next connection is to try; 0: nobody. Taken by one SYN alone.
#[inline(never)]
pub(crate) fn trial(service: u16) -> u16 {
    let Some(trial) = TRIALS.get_ptr_mut(u32::from(service)) else { return 0 };
    // SAFETY: an aligned word of the map.
    let backend = unsafe { trial.read_volatile() };
    if backend == 0 || next_hop(backend as u16).is_none() {
        return 0;
    }
    // SAFETY: as above.
    let is_taken = unsafe { compare_exchange(trial, backend, 0) } == backend;
    if is_taken { backend as u16 } else { 0 }
}

/// The backend that a SYN goes to which these did not take: the active one, or the first behind it to which there is a
/// way; 0: nobody is left.
#[inline(never)]
pub(crate) fn successor(pool: u16, active: u16, tried: u64) -> u16 {
    let may_take = |slot| tried & tried_bit(slot) == 0 && next_hop(slot).is_some();
    if may_take(active) {
        return active;
    }
    let Some(Successors(slots)) = SUCCESSORS.get(u32::from(pool)) else { return 0 };
    for slot in slots {
        // SAFETY: an aligned half word of the map, read once.
        let slot = unsafe { core::ptr::from_ref(slot).read_volatile() };
        if slot == 0 || may_take(slot) {
            return slot;
        }
    }
    0
}

/// Whether new flows of its pool go to this backend.
#[inline(always)]
pub(crate) fn is_active(slot: u16) -> bool {
    backend(slot).is_some_and(|backend| route(backend.pool as u16) == Route::Backend(slot))
}

#[inline(always)]
pub(crate) fn backend(slot: u16) -> Option<&'static Backend> {
    BACKENDS.get(u32::from(slot))
}

/// Where the backend is in its cycle of SNAT addresses and ports, as a `Place`'s word; `None`: it hasn't begun. Two CPUs may
/// read the same: then the second finds its port taken and goes on.
#[inline(always)]
pub(crate) fn snat_cycle(backend: u16) -> Option<u64> {
    SNAT_CYCLES.get(u32::from(backend)).copied().filter(|word| *word != 0)
}

#[inline(always)]
pub(crate) fn set_snat_cycle(backend: u16, word: u64) {
    if let Some(place) = SNAT_CYCLES.get_ptr_mut(u32::from(backend)) {
        // SAFETY: an aligned word of the map, whatever other CPUs make of it.
        unsafe { *place = word };
    }
}

/// The way to a backend, once it is resolved.
#[inline(always)]
pub(crate) fn next_hop(backend: u16) -> Option<NextHop> {
    let hop = NextHop::from_word(*NEXT_HOPS.get(u32::from(backend))?);
    if hop.interface == 0 { None } else { Some(hop) }
}

#[inline(always)]
pub(crate) fn interface(slot: u16) -> Option<&'static Interface> {
    INTERFACES.get(u32::from(slot))
}

/// Whether the packet came in through the interface in this slot.
#[inline(always)]
pub(crate) fn came_through(ctx: &XdpContext, slot: u16) -> bool {
    interface(slot).is_some_and(|interface| interface.ifindex == ctx.ingress_ifindex() as u32)
}

/// Whether the packet came in the way that packets to this backend go: what others say in its name isn't believed.
#[inline(always)]
pub(crate) fn came_from(ctx: &XdpContext, backend: u16) -> bool {
    next_hop(backend).is_some_and(|hop| came_through(ctx, hop.interface))
}

/// The slot of the interface that the packet came in through.
#[inline(always)]
pub(crate) fn ingress_slot(ctx: &XdpContext) -> Option<u16> {
    // SAFETY: as in `at`.
    unsafe { INTERFACE_SLOTS.get(ctx.ingress_ifindex() as u32) }.map(|slot| *slot as u16)
}
