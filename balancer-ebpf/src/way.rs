//! The way that a client's packets come, which is the way of its answers, and how they follow a client that moves.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::NextHop;

use crate::direction::Direction;
use crate::family::Family;
use crate::memory::Tier;
use crate::parse::Packet;
use crate::service;
use crate::words::load;

/// The hardware address that the frame comes from, as a [`NextHop`]'s word without interface.
#[inline(always)]
pub(crate) fn sender<A: Family>(packet: &Packet<'_, A>) -> u64 {
    let (middle, last) = (load::<4, _>(packet.eth), load::<8, _>(packet.eth));
    u64::from(middle >> 16) | u64::from(last) << 16
}

/// Whether a client's packet came another way than its packets did.
#[inline(always)]
pub(crate) fn has_moved<A: Family, T: Tier>(
    ctx: &XdpContext,
    came_from: u64,
    client: &Direction<A, T>,
) -> bool {
    let hop = client.client();
    let known = NextHop { interface: 0, ..hop }.to_word();
    came_from != known || !service::came_through(ctx, hop.interface)
}

/// The client is where its packet came from, which is its own beyond doubt.
#[inline(always)]
pub(crate) fn follow<A: Family, T: Tier>(
    ctx: &XdpContext,
    came_from: u64,
    client: &Direction<A, T>,
    backend: &Direction<A, T>,
) {
    if let Some(interface) = service::ingress_slot(ctx) {
        let hop = NextHop { interface, ..NextHop::from_word(came_from) };
        backend.client_is_at(hop);
        client.client_is_at(hop);
    }
}
