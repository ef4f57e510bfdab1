//! The last steps of a packet that goes on: way out, rewrite, frame addresses, counters, redirect.
//!
//! Nothing is written before everything is known to fit, so a packet that is dropped was not changed.
#![expect(unsafe_code, reason = "a helper of the kernel, and the words of a map's element")]

use core::mem::offset_of;
use core::ptr::from_ref;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::bpf_redirect_map;
use balancer_common::abi::{Interface, NextHop};
use balancer_common::checksum;
use balancer_common::table::NOT_LOOKED_FOR;
use balancer_common::verdict::{Answer, Reason, Stage, Verdict};
use network_types::eth::EthHdr;

use crate::direction::{Direction, Recipe};
use crate::family::Family;
use crate::maps::DEVICES;
use crate::memory::Tier;
use crate::parse::Packet;
use crate::words::store;
use crate::{report, service};

/// Rewrites the packet as its flow says and counts it. Next: the flow has just ended.
#[inline(always)]
pub(crate) fn translate<A: Family, T: Tier>(
    packet: &mut Packet<'_, A>,
    direction: &Direction<A, T>,
) -> Verdict {
    let Some(recipe) = direction.recipe() else { return Verdict::next(Stage::Unknown(NOT_LOOKED_FOR)) };
    match exit::<A>(packet.ip, way_out(&recipe)) {
        Ok((hop, interface)) => leave(packet, direction, &recipe, hop, interface),
        Err(verdict) => verdict,
    }
}

/// The same for a packet of which [`exit`] has told the kernel already.
#[inline(always)]
pub(crate) fn translate_told<A: Family, T: Tier>(
    packet: &mut Packet<'_, A>,
    direction: &Direction<A, T>,
) -> Verdict {
    let Some(recipe) = direction.recipe() else { return Verdict::next(Stage::Unknown(NOT_LOOKED_FOR)) };
    let hop = way_out(&recipe);
    match hop.and_then(|hop| Some((hop, service::interface(hop.interface)?))) {
        Some((hop, interface)) => leave(packet, direction, &recipe, hop, interface),
        None => Verdict::drop(Reason::NoNextHop),
    }
}

#[inline(always)]
fn leave<A: Family, T: Tier>(
    packet: &mut Packet<'_, A>,
    direction: &Direction<A, T>,
    recipe: &Recipe<A>,
    hop: NextHop,
    interface: &Interface,
) -> Verdict {
    direction.count(packet.kind(), packet.frame_length);
    report::forwarded(recipe.service, recipe.backend, packet.frame_length);
    A::forward(packet.ip, recipe.becomes.source, recipe.becomes.destination, recipe.ip_delta);
    packet.tcp.check = checksum::apply(packet.tcp.check, recipe.tcp_delta);
    store::<0, _>(packet.tcp, recipe.becomes.ports());
    address_frame(packet.eth, hop, interface);
    Verdict::FORWARD
}

/// The same as a subprogram, for who isn't in such a hurry.
#[inline(never)]
pub(crate) fn translate_apart<A: Family, T: Tier>(
    packet: &mut Packet<'_, A>,
    direction: &Direction<A, T>,
) -> Verdict {
    translate(packet, direction)
}

/// Where a packet leaves that goes this way, or what becomes of it if it can't; the kernel is told of the device, and sends
/// the packet there if that is its fate. Whatever a packet changes apart from itself is changed only when it can leave: one
/// that is dropped never reached the other side.
///
/// Out of the interface that the packet came in through as well: `XDP_TX` would need a program at the far end of a veth, a
/// redirect doesn't.
#[inline(always)]
pub(crate) fn exit<A: Family>(
    ip: &A::Header,
    hop: Option<NextHop>,
) -> Result<(NextHop, &'static Interface), Verdict> {
    if A::hops_left(ip) <= 1 {
        return Err(Verdict::answer(Answer::TimeExceeded));
    }
    let hop = hop.ok_or(Verdict::drop(Reason::NoNextHop))?;
    let interface = service::interface(hop.interface).ok_or(Verdict::drop(Reason::RedirectFailed))?;
    if A::ip_length(ip) > interface.mtu as usize {
        return Err(if A::may_be_fragmented(ip) {
            Verdict::drop(Reason::TooBig)
        } else {
            Verdict::answer(Answer::TooBig(interface.mtu))
        });
    }
    if !redirect(hop.interface) {
        return Err(Verdict::drop(Reason::RedirectFailed));
    }
    Ok((hop, interface))
}

/// Towards a backend: its next hop, which the controller keeps. Towards a client: the way that its packets came.
#[inline(always)]
pub(crate) fn way_out<A: Family>(recipe: &Recipe<A>) -> Option<NextHop> {
    if recipe.is_from_client { service::next_hop(recipe.backend) } else { Some(recipe.client) }
}

/// Hardware addresses for the next hop: six bytes each, in three words.
#[inline(always)]
pub(crate) fn address_frame(eth: &mut EthHdr, hop: NextHop, interface: &Interface) {
    let (destination, source) = (NextHop { interface: 0, ..hop }.to_word(), source_of(interface));
    store::<0, _>(eth, destination as u32);
    store::<4, _>(eth, (destination >> 32 | source << 16) as u32);
    store::<8, _>(eth, (source >> 16) as u32);
}

/// Source address of frames that leave there, in the lower six bytes of a word, with nothing above.
#[inline(always)]
pub(crate) fn source_of(interface: &Interface) -> u64 {
    const AT: usize = offset_of!(Interface, mac) / size_of::<u64>();
    // SAFETY: the interface's second word, of which it is the first part and zero the rest.
    unsafe { from_ref(interface).cast::<u64>().add(AT).read() }
}

/// Tells the kernel that the packet leaves through its device in this slot, if that is its fate; `false`: it has none.
#[inline(always)]
pub(crate) fn redirect(interface: u16) -> bool {
    let devices = (&raw const DEVICES).cast_mut().cast();
    // SAFETY: a map of devices; takes integers besides, and returns one.
    let action = unsafe { bpf_redirect_map(devices, interface.into(), xdp_action::XDP_DROP.into()) };
    action == i64::from(xdp_action::XDP_REDIRECT)
}
