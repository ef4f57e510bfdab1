//! Packets that somebody wants to see: each as it came, and what became of it.
//!
//! A packet is looked at before anything is done to it, and once more when its fate is known. Both are calls that the
//! program makes only while somebody traces; else it asks a variable. Told is as much as people can read: where more comes,
//! established flows' segments that simply go on make room for all others. Deliberately absent: sentences about it, which are
//! the controller's.
#![expect(
    unsafe_code,
    reason = "the controller's variable, helpers, and a per-CPU element that is written in place"
)]

use core::ptr::from_ref;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_ringbuf_output};
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{
    Address, Address4, Address6, Ends, Port, TraceBudget, TraceFilter, TraceState, Traced, Tracing,
};
use balancer_common::flow::flags;
use balancer_common::limits::{MAX_TRACES, TRACE_MOMENT_NS, TRACED_UNUSUAL, TRACED_USUAL};
use balancer_common::verdict::{Outcome, Reason, Verdict};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::craft::Craft;
use crate::family::Family;
use crate::maps::{TRACE_STATE, TRACES};
use crate::parse::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, header, is_fragment};
use crate::service;

/// Whether anybody wants to see anything, and what.
#[unsafe(no_mangle)]
static mut TRACING: Tracing = Tracing {
    is_on: 0,
    filters: [TraceFilter { until_ns: 0, client: Address::NONE, service: 0 }; MAX_TRACES],
};

/// Whether anybody wants to see packets.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    // SAFETY: an aligned word that is always there; volatile, as its value isn't the one that the compiler sees.
    unsafe { (&raw const TRACING.is_on).read_volatile() != 0 }
}

/// A packet has come.
#[inline(always)]
pub(crate) fn came(ctx: &XdpContext) {
    let Some(state) = state() else { return };
    state.has_come = 1;
    let packet = &mut state.packet;
    // SAFETY: takes nothing, returns an integer.
    packet.at_ns = unsafe { bpf_ktime_get_ns() };
    packet.ifindex = ctx.ingress_ifindex() as u32;
    (packet.sequence, packet.acknowledgement, packet.flags) = (0, 0, 0);
    let network = network(ctx, &mut packet.before);
    packet.protocol = network.protocol;
    packet.length = network.length;
    packet.is_fragment = network.is_fragment.into();
    if network.protocol == PROTOCOL_TCP
        && !network.is_fragment
        && let Some([_, _, _, _, a, b, c, d, e, f, g, h, _, flags]) = header::<[u8; 14]>(ctx, network.at)
    {
        packet.sequence = u32::from_be_bytes([*a, *b, *c, *d]);
        packet.acknowledgement = u32::from_be_bytes([*e, *f, *g, *h]);
        packet.flags = *flags;
    }
}

/// The packet that came has met its fate, and this is what the kernel is told.
#[inline(always)]
pub(crate) fn went(ctx: &XdpContext, verdict: Verdict, action: u32) {
    let Some(state) = state() else { return };
    if core::mem::take(&mut state.has_come) == 0 {
        return;
    }
    let (fate, reason) = fate(verdict, action);
    (state.packet.fate, state.packet.reason) = (fate, reason);
    let _ = network(ctx, &mut state.packet.after);
    state.packet.service = service_of(&state.packet.before, &state.packet.after);
    state.packet.filters = 0;
    // SAFETY: takes nothing, returns an integer (kernel 5.11).
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let mut is_any_left = false;
    for index in 0..MAX_TRACES {
        // SAFETY: always there.
        let filter = unsafe { &raw const TRACING.filters[index] };
        if !lasts(filter, now) {
            continue;
        }
        is_any_left = true;
        if wants(filter, &state.packet) && has_room(&mut state.budgets[index], &state.packet, now) {
            state.packet.filters |= 1 << index;
        }
    }
    if !is_any_left {
        // Whoever wanted something has gone without a word.
        // SAFETY: an aligned word that is always there.
        unsafe { (&raw mut TRACING.is_on).write_volatile(0) }
    }
    if state.packet.filters != 0 {
        tell(state);
    }
}

#[inline(always)]
fn state() -> Option<&'static mut TraceState> {
    let state = TRACE_STATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
    Some(unsafe { &mut *state })
}

/// What an IP header says.
#[derive(Clone, Copy)]
struct Network {
    /// 0: there is none.
    protocol: u8,
    is_fragment: bool,
    length: u32,
    /// Where what it carries begins.
    at: usize,
}

/// Reads the ends of the packet that is in the frame now.
#[inline(always)]
fn network(ctx: &XdpContext, ends: &mut Ends) -> Network {
    const NONE: Network = Network { protocol: 0, is_fragment: false, length: 0, at: 0 };
    *ends = Ends::NONE;
    let network = match header::<EthHdr>(ctx, 0).map(|eth| eth.ether_type) {
        Some(Address4::ETHER_TYPE) => ipv4(ctx, ends),
        Some(Address6::ETHER_TYPE) => ipv6(ctx, ends),
        _ => None,
    };
    let network = network.unwrap_or(NONE);
    let has_ports = matches!(network.protocol, PROTOCOL_TCP | PROTOCOL_ICMP | PROTOCOL_ICMPV6);
    if has_ports
        && !network.is_fragment
        && let Some([a, b, c, d]) = header::<[u8; 4]>(ctx, network.at)
    {
        ends.source_port = Port::from_wire([*a, *b]);
        if network.protocol == PROTOCOL_TCP {
            ends.destination_port = Port::from_wire([*c, *d]);
        }
    }
    network
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, ends: &mut Ends) -> Option<Network> {
    let ip = header::<Ipv4Hdr>(ctx, EthHdr::LEN)?;
    (ends.source, ends.destination) = (Address4::source(ip).into(), Address4::destination(ip).into());
    Some(Network {
        protocol: ip.proto,
        is_fragment: is_fragment(ip),
        length: Address4::ip_length(ip) as u32,
        at: EthHdr::LEN + usize::from(ip.vihl & 0xf) * 4,
    })
}

/// Behind extension headers nothing is looked for: such a packet is told by its first one's number.
#[inline(always)]
fn ipv6(ctx: &XdpContext, ends: &mut Ends) -> Option<Network> {
    let ip = header::<Ipv6Hdr>(ctx, EthHdr::LEN)?;
    (ends.source, ends.destination) = (Address6::source(ip).into(), Address6::destination(ip).into());
    Some(Network {
        protocol: ip.next_hdr,
        is_fragment: false,
        length: Address6::ip_length(ip) as u32,
        at: EthHdr::LEN + Ipv6Hdr::LEN,
    })
}

/// What became of the packet, and the number of the reason.
#[inline(always)]
fn fate(verdict: Verdict, action: u32) -> (u8, u8) {
    match verdict.outcome() {
        Outcome::Forward => (Traced::FORWARDED, 0),
        Outcome::Pass => (Traced::PASSED, 0),
        Outcome::PassCounted(reason) => (Traced::PASSED_COUNTED, reason as u8),
        Outcome::Drop(reason) => (Traced::DROPPED, reason as u8),
        Outcome::Answer(answer) if action == xdp_action::XDP_DROP => (Traced::DROPPED, answer.reason() as u8),
        Outcome::Answer(answer) => (Traced::ANSWERED, answer.reason() as u8),
        Outcome::Next(_) => (Traced::DROPPED, Reason::BadHandshake as u8),
    }
}

/// The service that a client's packet is for, or that a backend's has become one of.
#[inline(always)]
fn service_of(before: &Ends, after: &Ends) -> u16 {
    let for_it = service::at(before.destination, before.destination_port);
    let service = match for_it {
        Some(service) => Some(service),
        None => service::at(after.source, after.source_port),
    };
    service.map_or(0, |service| service.slot)
}

#[inline(always)]
fn lasts(filter: *const TraceFilter, now: u64) -> bool {
    // SAFETY: an aligned word of the variable; volatile as in `is_on`.
    unsafe { (&raw const (*filter).until_ns).read_volatile() > now }
}

#[inline(always)]
fn wants(filter: *const TraceFilter, packet: &Traced) -> bool {
    // SAFETY: as in `lasts`, aligned words.
    let (client, service) = unsafe {
        let client = (&raw const (*filter).client).cast::<u64>();
        (
            [client.read_volatile(), client.add(1).read_volatile()],
            (&raw const (*filter).service).read_volatile(),
        )
    };
    let is_of_all = client == [0, 0];
    let is_clients = is_of_all
        || is(&packet.before.source, client)
        || is(&packet.before.destination, client)
        || is(&packet.after.source, client)
        || is(&packet.after.destination, client);
    let is_services = service == 0 || service == u64::from(packet.service);
    let concerns_us = packet.fate != Traced::PASSED || packet.service != 0 || !is_of_all;
    is_clients && is_services && concerns_us
}

#[inline(always)]
fn is(address: &Address, words: [u64; 2]) -> bool {
    let address = from_ref(address).cast::<u64>();
    // SAFETY: an address is two aligned words.
    unsafe { (address.read() ^ words[0]) | (address.add(1).read() ^ words[1]) == 0 }
}

/// Whether one more may be told; if not, it is counted.
#[inline(always)]
fn has_room(budget: &mut TraceBudget, packet: &Traced, now: u64) -> bool {
    let moment = now / TRACE_MOMENT_NS;
    if budget.moment != moment {
        *budget = TraceBudget { moment, usual: 0, unusual: 0, missed: budget.missed };
    }
    let is_usual =
        packet.fate == Traced::FORWARDED && packet.flags & (flags::SYN | flags::FIN | flags::RST) == 0;
    let (told, most) =
        if is_usual { (&mut budget.usual, TRACED_USUAL) } else { (&mut budget.unusual, TRACED_UNUSUAL) };
    if *told >= most {
        budget.missed += 1;
        return false;
    }
    *told += 1;
    true
}

/// Tells the controller; what has no room there is counted for everybody who wanted it.
#[inline(always)]
fn tell(state: &mut TraceState) {
    let traces = (&raw const TRACES).cast_mut().cast();
    let packet = (&raw mut state.packet).cast();
    // SAFETY: a ring buffer, and as many bytes as are read.
    if unsafe { bpf_ringbuf_output(traces, packet, size_of::<Traced>() as u64, 0) } == 0 {
        return;
    }
    for index in 0..MAX_TRACES {
        if state.packet.filters >> index & 1 != 0 {
            state.budgets[index].missed += 1;
        }
    }
}
