//! The last steps of a packet that goes on: way out, rewrite, frame addresses, counters, redirect.
//!
//! Nothing is written before everything is known to fit, so a packet that is dropped was not changed.

use aya_ebpf::bindings::xdp_action;
use balancer_common::abi::{FlowEntry, Interface, NextHop, SIDE_CLIENT};
use balancer_common::checksum;
use balancer_common::verdict::{Answer, Reason, Verdict};
use network_types::eth::EthHdr;

use crate::family::Family;
use crate::flow_table::Direction;
use crate::halves::{load, store_mac};
use crate::maps::DEVICES;
use crate::parse::Packet;
use crate::{report, service};

/// Rewrites the packet as its flow says and counts it.
#[inline(always)]
pub(crate) fn translate<A: Family>(packet: &mut Packet<'_, A>, direction: &Direction<A>) -> Verdict {
    let entry = direction.entry();
    let (hop, interface) = match exit::<A>(packet.ip, way_out(&entry)) {
        Ok(exit) => exit,
        Err(verdict) => return verdict,
    };
    direction.count(packet.frame_length);
    report::forwarded(entry.service, entry.backend, packet.frame_length);
    A::forward(packet.ip, entry.becomes.source, entry.becomes.destination, entry.ip_delta);
    packet.tcp.check = checksum::apply(packet.tcp.check, entry.tcp_delta);
    packet.tcp.source = entry.becomes.source_port.to_wire();
    packet.tcp.dest = entry.becomes.destination_port.to_wire();
    address_frame(packet.eth, &hop, interface);
    Verdict::forward(hop.interface)
}

/// The same as a subprogram, for who isn't in such a hurry.
#[inline(never)]
pub(crate) fn translate_apart<A: Family>(packet: &mut Packet<'_, A>, direction: Direction<A>) -> Verdict {
    translate(packet, &direction)
}

/// Where a packet leaves that goes this way, or what becomes of it if it can't. Whatever a packet changes apart from
/// itself is changed only when it can: one that is dropped never reached the other side.
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
    if DEVICES.get_ifindex(u32::from(hop.interface)).is_none() {
        return Err(Verdict::drop(Reason::RedirectFailed));
    }
    Ok((hop, interface))
}

/// Towards a backend: its next hop, which the controller keeps. Towards a client: the way that its packets came.
#[inline(always)]
pub(crate) fn way_out<A: Family>(entry: &FlowEntry<A>) -> Option<NextHop> {
    if entry.side == SIDE_CLIENT { service::next_hop(entry.backend) } else { Some(entry.client) }
}

#[inline(always)]
pub(crate) fn address_frame(eth: &mut EthHdr, hop: &NextHop, interface: &Interface) {
    store_mac(&mut eth.dst_addr, load(&hop.mac));
    store_mac(&mut eth.src_addr, load(&interface.mac));
}

/// Hands the packet to the kernel's device in this slot. Also back out of the interface that it came in through:
/// `XDP_TX` would need a program at the far end of a veth, a redirect doesn't.
#[inline(always)]
pub(crate) fn redirect(interface: u16) -> u32 {
    match DEVICES.redirect(u32::from(interface), u64::from(xdp_action::XDP_DROP)) {
        Ok(action) => action,
        Err(_) => {
            report::dropped(Reason::RedirectFailed);
            xdp_action::XDP_DROP
        }
    }
}
