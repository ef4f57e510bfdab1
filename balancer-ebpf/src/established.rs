//! A packet of a flow whose handshake is complete.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::NextHop;
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
use crate::service;
use crate::words::load;

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
        Kind::Syn => {}
        Kind::Fin | Kind::Rst => return closing(packet, direction, kind),
        Kind::BareFin | Kind::Impossible => return Verdict::drop(Reason::BadFlags),
    }
    let came_from = sender(packet);
    let verdict = translate(packet, &direction);
    if verdict.is_forward() && matches!(kind, Kind::Ack) {
        direction.acknowledged(packet.acknowledgement());
        if direction.seen().is_from_client() && has_moved(ctx, came_from, &direction) {
            relearn(ctx, packet.sequence(), came_from, direction);
        }
    }
    verdict
}

/// The hardware address that the frame comes from, as a [`NextHop`]'s word without interface.
#[inline(always)]
fn sender<A: Family>(packet: &Packet<'_, A>) -> u64 {
    let (middle, last) = (load::<4, _>(packet.eth), load::<8, _>(packet.eth));
    u64::from(middle >> 16) | u64::from(last) << 16
}

/// Whether a client's packet came another way than its packets did.
#[inline(always)]
fn has_moved<A: Family>(ctx: &XdpContext, came_from: u64, client: &Direction<A, Established>) -> bool {
    let hop = client.client();
    let known = NextHop { interface: 0, ..hop }.to_word();
    came_from != known || !service::came_through(ctx, hop.interface)
}

/// The client's packets come another way than before: so do the answers from now on, if the packet shows that its sender
/// knows the connection. Otherwise a blind host beside the client's could steal them.
#[inline(never)]
fn relearn<A: Family>(ctx: &XdpContext, sequence: u32, came_from: u64, client: Direction<A, Established>) {
    let Some(backend) = client.twin() else { return };
    let is_in_window =
        backend.progress().is_some_and(|backend| flow::in_window(sequence, backend.acknowledged));
    let Some(interface) = service::ingress_slot(ctx) else { return };
    if is_in_window {
        let hop = NextHop { interface, ..NextHop::from_word(came_from) };
        backend.client_is_at(hop);
        client.client_is_at(hop);
    }
}

/// A FIN or a RST: goes on like any packet, and is remembered for what it may be believed to be. A subprogram, for its
/// stack.
#[inline(never)]
fn closing<A: Family>(
    packet: &mut Packet<'_, A>,
    direction: Direction<A, Established>,
    kind: Kind,
) -> Verdict {
    let verdict = translate(packet, &direction);
    if !verdict.is_forward() {
        return verdict;
    }
    if matches!(kind, Kind::Fin) {
        direction.acknowledged(packet.acknowledgement());
        direction.finished(packet.end_of_data().wrapping_add(1));
    } else if let Some(twin) = direction.twin().and_then(|twin| twin.progress())
        && flow::in_window(packet.sequence(), twin.acknowledged)
    {
        direction.reset(twin.packets);
    }
    verdict
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
