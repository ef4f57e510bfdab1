//! A packet of a flow whose handshake is complete.

use aya_ebpf::programs::XdpContext;
use balancer_common::flow::{self, Kind, Stage};
use balancer_common::limits::QUIET_BEFORE_RESELECT_NS;
use balancer_common::table::NOT_LOOKED_FOR;
use balancer_common::verdict::{self, Reason, Verdict};

use crate::clock::{now, ticks};
use crate::direction::Direction;
use crate::family::Family;
use crate::flow_table;
use crate::forward::translate;
use crate::memory::Established;
use crate::parse::Packet;
use crate::{service, way};

/// What becomes of it; next: its flow has just ended, or it opens a new one and the old one is forgotten.
#[inline(never)]
pub(crate) fn established<A: Family>(ctx: &XdpContext, line: u32) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let packet = &mut packet;
    let Some(direction) = flow_table::direction_at(line, &packet.key()) else {
        return Verdict::next(verdict::Stage::Unknown(NOT_LOOKED_FOR));
    };
    let kind = packet.kind();
    match kind {
        Kind::Ack | Kind::SynAck => {}
        Kind::Syn if opens_anew(packet, direction) => {
            flow_table::forget(direction);
            return Verdict::next(verdict::Stage::Unknown(NOT_LOOKED_FOR));
        }
        Kind::Syn | Kind::Fin | Kind::Rst => {}
        Kind::BareFin | Kind::Impossible => return Verdict::drop(Reason::BadFlags),
    }
    let came_from = way::sender(packet);
    let verdict = translate(packet, &direction);
    if !verdict.is_forward() {
        return verdict;
    }
    match kind {
        Kind::Ack | Kind::Fin => {
            if is_its_own(ctx, packet.sequence(), came_from, &direction) {
                direction.acknowledged(packet.acknowledgement());
            }
            if matches!(kind, Kind::Fin) {
                finished(packet.end_of_data(), direction);
            }
        }
        Kind::Rst => reset(packet.sequence(), direction),
        _ => {}
    }
    verdict
}

/// Whether the segment is its direction's beyond doubt: it came the way that its packets come, or its sender knows the
/// connection. What it acknowledges is believed only then: blind hosts elsewhere could steal a client's answers otherwise, or end
/// its flow.
#[inline(always)]
fn is_its_own<A: Family>(
    ctx: &XdpContext,
    sequence: u32,
    came_from: u64,
    direction: &Direction<A, Established>,
) -> bool {
    let is_usual = if direction.seen().is_from_client() {
        !way::has_moved(ctx, came_from, direction)
    } else {
        service::came_from(ctx, direction.backend())
    };
    is_usual || knows(ctx, sequence, came_from, *direction)
}

/// The same of a segment that came another way. A client that knows the connection gets its answers there from now on.
#[inline(never)]
fn knows<A: Family>(
    ctx: &XdpContext,
    sequence: u32,
    came_from: u64,
    direction: Direction<A, Established>,
) -> bool {
    let Some(twin) = direction.twin() else { return false };
    let is_known = twin.progress().is_some_and(|twin| flow::is_known(sequence, twin.acknowledged));
    if is_known && direction.seen().is_from_client() {
        way::follow(ctx, came_from, &direction, &twin);
    }
    is_known
}

/// A FIN, of whomever: it is remembered where it ends its direction, which counts once the other one has acknowledged it. A
/// subprogram, for its stack.
#[inline(never)]
fn finished<A: Family>(end_of_data: u32, direction: Direction<A, Established>) {
    direction.finished(end_of_data.wrapping_add(1));
}

/// A RST, which is remembered for what it may be believed to be. A subprogram, for its stack.
#[inline(never)]
fn reset<A: Family>(sequence: u32, direction: Direction<A, Established>) {
    if let Some(twin) = direction.twin().and_then(|twin| twin.progress())
        && flow::in_window(sequence, twin.acknowledged)
    {
        direction.reset(twin.packets);
    }
}

/// Whether a SYN on the tuple of an established flow is a new connection: the flow is over, or its backend isn't the
/// active one any more and it has been silent for a while. Otherwise the backend gets the SYN: a repeated one it ignores,
/// a forged one it challenges, and a client that has forgotten its flow answers that with a RST and tries again.
#[inline(never)]
fn opens_anew<A: Family>(packet: &Packet<'_, A>, client: Direction<A, Established>) -> bool {
    if !client.seen().is_from_client() || client.first_sequence() == Some(packet.sequence()) {
        return false;
    }
    let Some(backend) = client.twin() else { return true };
    let (Some(forth), Some(back)) = (client.progress(), backend.progress()) else { return true };
    if matches!(Stage::of(&forth, &back), Stage::Closed) {
        return true;
    }
    let now = now();
    let silent = client.silent(now).min(backend.silent(now));
    !service::is_active(client.backend()) && silent > ticks(QUIET_BEFORE_RESELECT_NS)
}
