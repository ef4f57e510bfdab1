//! The way of most packets: an acknowledgement, with or without data, of an established flow, in a frame with nothing
//! unusual about it, that leaves like the one before it. It is part of the program's entry and calls nothing but the
//! kernel: what a function keeps on the stack and gets back costs as much as all of what is done here to a packet.
//!
//! Whatever is anyhow else is left as it is, to the stages that know everything (`pipeline`). So nothing is decided here but
//! that a packet is a usual one, and nothing is written before that is certain, but for what the kernel is told about the
//! way out, which counts only if it is the packet's fate.
#![expect(unsafe_code, reason = "lines are read through the pointers that lookups return")]

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Interface, NextHop};
use balancer_common::checksum;
use balancer_common::flow::Kind;
use balancer_common::table::{self, Hash, Lines, Place, TAGS, Table, WAYS};
use balancer_common::verdict::{Reason, Verdict};

use crate::direction::Direction;
use crate::family::Family;
use crate::forward::{redirect, source_of};
use crate::frame::{Frame, frame_length};
use crate::memory::{Established, Maps, Tier, compiler_barrier, ports};
use crate::{report, service};

/// What becomes of a usual packet; `None`: it isn't one.
#[inline(always)]
pub(crate) fn express<A: Family>(ctx: &XdpContext) -> Option<Verdict> {
    let frame = Frame::<A>::plain(ctx)?;
    if frame.kind() != Kind::Ack || A::hops_left_of(&frame) <= 1 {
        return None;
    }
    let direction = met(&frame)?;
    let (hop, interface) = way_out(ctx, &frame, &direction)?;
    if !redirect(hop.interface) {
        return None;
    }
    Some(forward(ctx, &frame, &direction, hop, interface))
}

/// The direction that the frame's segment belongs to, if it is where the tags say first. Only its key is looked at again
/// afterwards; see [`forward`].
#[inline(always)]
fn met<A: Family>(frame: &Frame<A>) -> Option<Direction<A, Established>> {
    let table = Established::table::<A>();
    let index = likely(&table, A::hash_of(&frame.key()))?;
    let line = table.line(index)?;
    let state = table.state(line);
    // SAFETY: a whole, aligned line of the map; any value of its integers is sound.
    if state.kind() != table::Kind::Live || !frame.has_key(unsafe { &(*line).key }) {
        return None;
    }
    Some(Direction::met(Place { line, index, state }))
}

/// The index of the line that the key would rather have, if its tag says that it may be the key's, or of one of those beside
/// it.
#[inline(always)]
fn likely<A: Family>(table: &Maps<A, Established>, hash: Hash) -> Option<u32> {
    let bucket = hash.bucket(table.buckets());
    let tags = table.tags(bucket)?;
    // One load and no jump that depends on the key, which nobody could foresee.
    if table.tag(tags, hash.way()) == hash.tag() {
        return Some(bucket * WAYS + hash.way());
    }
    let word = hash.way() / TAGS;
    table::first_with(table.word(tags, word), hash.tag()).map(|way| bucket * WAYS + word * TAGS + way)
}

/// Where the packet leaves, if it has come the way that packets of its flow come, and fits.
#[inline(always)]
fn way_out<A: Family>(
    ctx: &XdpContext,
    frame: &Frame<A>,
    direction: &Direction<A, Established>,
) -> Option<(NextHop, &'static Interface)> {
    let client = direction.client();
    let towards_client = service::interface(client.interface)?;
    let (hop, interface) = if direction.seen().is_from_client() {
        if !client.has_mac(frame.sender()) || towards_client.ifindex != ctx.ingress_ifindex() as u32 {
            return None;
        }
        let hop = service::next_hop(direction.backend())?;
        (hop, service::interface(hop.interface)?)
    } else if service::came_from(ctx, direction.backend()) {
        (client, towards_client)
    } else {
        return None;
    };
    (A::ip_length_of(frame) <= interface.mtu as usize).then_some((hop, interface))
}

/// Rewrites and counts the packet. Another CPU may give the line to another flow meanwhile; then what was written is nobody's
/// packet, and its sender repeats it.
#[inline(always)]
fn forward<A: Family>(
    ctx: &XdpContext,
    frame: &Frame<A>,
    direction: &Direction<A, Established>,
    hop: NextHop,
    interface: &Interface,
) -> Verdict {
    // SAFETY: as in `met`.
    let line = unsafe { &*direction.place.line.cast_const() };
    A::forward_frame(frame, &line.becomes, line.ip_delta);
    frame.set_ports(ports(&line.becomes));
    frame.set_tcp_check(checksum::apply_word(frame.tcp_check(), line.tcp_delta));
    frame.set_addresses(hop.to_word(), source_of(interface));
    compiler_barrier();
    if !direction.is_alive() {
        return Verdict::drop(Reason::BadHandshake);
    }
    direction.acknowledged(frame.acknowledgement());
    let length = frame_length(ctx) as u64;
    direction.count(Kind::Ack, length);
    report::forwarded(direction.service(), direction.backend(), length);
    Verdict::FORWARD
}
