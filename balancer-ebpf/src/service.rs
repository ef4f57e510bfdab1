//! What the controller has told: services, pools, backends, and the way to them. Read only.
#![expect(unsafe_code, reason = "entries of hash maps are read in place")]

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{
    ActiveWord, Address, Backend, FlowKey, Interface, NextHop, Pool, Service, ServiceKey,
};
use balancer_common::limits::MAX_INTERFACES;

use crate::maps::{ACTIVE, BACKENDS, INTERFACES, LISTEN_ADDRESSES, NEXT_HOPS, POOLS, SERVICES};

/// The service that a packet with this tuple is for.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<&'static Service> {
    let key = ServiceKey { address: key.destination, port: key.destination_port, padding: 0 };
    // SAFETY: any value of its integers is sound. The kernel replaces a value by linking a new element, so it is never
    // half old and half new.
    unsafe { SERVICES.get(key) }
}

/// Whether any service listens on this address.
#[inline(always)]
pub(crate) fn is_listen_address(address: Address) -> bool {
    LISTEN_ADDRESSES.get_ptr(address).is_some()
}

#[inline(always)]
pub(crate) fn pool(slot: u16) -> Option<&'static Pool> {
    POOLS.get(u32::from(slot))
}

/// The slot of the backend that the pool's new flows go to.
#[inline(always)]
pub(crate) fn active_backend(pool: u16) -> Option<u16> {
    ACTIVE.get(u32::from(pool)).and_then(|word| ActiveWord(*word).backend())
}

/// Whether new flows of its pool go to this backend.
#[inline(always)]
pub(crate) fn is_active(slot: u16) -> bool {
    let pool = backend(slot).map(|backend| backend.pool as u16);
    pool.and_then(active_backend) == Some(slot)
}

#[inline(always)]
pub(crate) fn backend(slot: u16) -> Option<&'static Backend> {
    BACKENDS.get(u32::from(slot))
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

/// The slot of the interface that the packet came in through: a walk over all, so for new flows only.
#[inline(always)]
pub(crate) fn ingress_slot(ctx: &XdpContext) -> Option<u16> {
    let ingress = ctx.ingress_ifindex() as u32;
    (1..MAX_INTERFACES as u16)
        .find(|slot| interface(*slot).is_some_and(|interface| interface.ifindex == ingress))
}
