//! The last steps of a packet that goes on: way out, rewrite, frame addresses, counters, redirect.
//!
//! Nothing is written before everything is known to fit, so a packet that is dropped was not changed.

use aya_ebpf::bindings::xdp_action;
use balancer_common::abi::{FlowEntry, Interface, NextHop, SIDE_CLIENT};
use balancer_common::checksum;
use balancer_common::verdict::{Reason, Verdict};

use crate::flow_table::Direction;
use crate::maps::DEVICES;
use crate::parse::Packet;
use crate::{report, service};

/// Rewrites the packet as its flow says and counts it.
#[inline(always)]
pub(crate) fn translate(packet: &mut Packet<'_>, direction: &Direction) -> Verdict {
    let entry = direction.entry();
    let (hop, interface) = match exit(packet, way_out(&entry)) {
        Ok(exit) => exit,
        Err(reason) => return Verdict::Drop(reason),
    };
    direction.count(packet.frame_length);
    report::forwarded(&entry, packet.frame_length);
    rewrite(packet, &entry);
    frame(packet, &hop, interface);
    Verdict::Forward(hop.interface)
}

/// Where a packet leaves that goes this way, or why it can't. Whatever a packet changes apart from itself is changed only
/// when it can: one that is dropped never reached the other side.
#[inline(always)]
pub(crate) fn exit(
    packet: &Packet<'_>,
    hop: Option<NextHop>,
) -> Result<(NextHop, &'static Interface), Reason> {
    if packet.ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let hop = hop.ok_or(Reason::NoNextHop)?;
    let interface = service::interface(hop.interface).ok_or(Reason::RedirectFailed)?;
    if u32::from(u16::from_be_bytes(packet.ip.tot_len)) > interface.mtu {
        return Err(Reason::TooBig);
    }
    if DEVICES.get_ifindex(u32::from(hop.interface)).is_none() {
        return Err(Reason::RedirectFailed);
    }
    Ok((hop, interface))
}

/// Towards a backend: its next hop, which the controller keeps. Towards a client: the way that its packets came.
#[inline(always)]
pub(crate) fn way_out(entry: &FlowEntry) -> Option<NextHop> {
    if entry.side == SIDE_CLIENT {
        service::next_hop(entry.backend)
    } else {
        Some(NextHop { mac: entry.mac, interface: entry.interface })
    }
}

#[inline(always)]
fn rewrite(packet: &mut Packet<'_>, entry: &FlowEntry) {
    packet.ip.ttl -= 1;
    packet.ip.check = checksum::apply(packet.ip.check, entry.ip_delta);
    packet.ip.src_addr = entry.becomes.source.to_wire();
    packet.ip.dst_addr = entry.becomes.destination.to_wire();
    packet.tcp.check = checksum::apply(packet.tcp.check, entry.tcp_delta);
    packet.tcp.source = entry.becomes.source_port.to_wire();
    packet.tcp.dest = entry.becomes.destination_port.to_wire();
}

#[inline(always)]
fn frame(packet: &mut Packet<'_>, hop: &NextHop, interface: &Interface) {
    packet.eth.dst_addr = hop.mac;
    packet.eth.src_addr = interface.mac;
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
