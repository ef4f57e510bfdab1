//! A packet of a flow whose handshake is complete.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{FlowKey, NextHop, SIDE_CLIENT};
use balancer_common::flow::{self, Kind, Stage};
use balancer_common::limits::QUIET_BEFORE_RESELECT_NS;
use balancer_common::verdict::{self, Reason, Verdict};

use crate::family::Family;
use crate::flow_table::{self, Direction};
use crate::forward::translate;
use crate::halves::{load, store_mac};
use crate::parse::Packet;
use crate::service;

/// What becomes of it; next: it opens a new flow, and the old one is forgotten.
#[inline(always)]
pub(crate) fn established<A: Family>(
    ctx: &XdpContext,
    packet: &mut Packet<'_, A>,
    key: &FlowKey<A>,
    direction: Direction<A>,
) -> Verdict {
    let kind = packet.kind();
    match kind {
        Kind::Ack | Kind::SynAck => {}
        Kind::Syn if opens_anew(packet, direction) => {
            flow_table::release_established(key, &direction.entry().becomes.reversed());
            return Verdict::next(verdict::Stage::Unknown);
        }
        Kind::Syn => {}
        Kind::Fin | Kind::Rst => return closing(packet, direction, kind),
        Kind::Impossible => return Verdict::drop(Reason::BadFlags),
    }
    let came_from: [u16; 3] = load(&packet.eth.src_addr);
    let verdict = translate(packet, &direction);
    if verdict.is_forward() && matches!(kind, Kind::Ack) {
        direction.acknowledged(packet.acknowledgement());
        let entry = direction.entry();
        if entry.side == SIDE_CLIENT
            && (came_from != load(&entry.client.mac) || !service::came_through(ctx, entry.client.interface))
        {
            relearn(ctx, packet.sequence(), &came_from, direction);
        }
    }
    verdict
}

/// The client's packets come another way than before: so do the answers from now on, if the packet shows that its sender
/// knows the connection. Otherwise a blind host beside the client's could steal them.
#[inline(never)]
fn relearn<A: Family>(ctx: &XdpContext, sequence: u32, mac: &[u16; 3], client: Direction<A>) {
    let Some(backend) = flow_table::established_twin(&client.entry()) else { return };
    if !flow::in_window(sequence, backend.entry().acknowledged) {
        return;
    }
    let Some(interface) = service::ingress_slot(ctx) else { return };
    let mut hop = NextHop { mac: [0; 6], interface };
    store_mac(&mut hop.mac, *mac);
    backend.client_is_at(hop);
    client.client_is_at(hop);
}

/// A FIN or a RST: goes on like any packet, and is remembered for what it may be believed to be. A subprogram, for its
/// stack.
#[inline(never)]
fn closing<A: Family>(packet: &mut Packet<'_, A>, direction: Direction<A>, kind: Kind) -> Verdict {
    let verdict = translate(packet, &direction);
    if !verdict.is_forward() {
        return verdict;
    }
    if matches!(kind, Kind::Fin) {
        direction.acknowledged(packet.acknowledgement());
        direction.finished(packet.end_of_data().wrapping_add(1));
    } else if let Some(twin) = flow_table::established_twin(&direction.entry()) {
        let twin = twin.entry();
        if flow::in_window(packet.sequence(), twin.acknowledged) {
            direction.reset(twin.packets);
        }
    }
    verdict
}

/// Whether a SYN on the tuple of an established flow is a new connection: the flow is over, or its backend isn't the
/// active one any more and it has been silent for a while. Otherwise the backend gets the SYN: a repeated one it ignores,
/// a forged one it challenges, and a client that has forgotten its flow answers that with a RST and tries again.
#[inline(never)]
fn opens_anew<A: Family>(packet: &Packet<'_, A>, direction: Direction<A>) -> bool {
    let client = &direction.entry();
    if client.side != SIDE_CLIENT || packet.sequence() == client.first_sequence {
        return false;
    }
    let Some(backend) = flow_table::established_twin(client) else { return true };
    let backend = backend.entry();
    if matches!(Stage::of(client, &backend), Stage::Closed) {
        return true;
    }
    let last_seen_ns = client.last_seen_ns.max(backend.last_seen_ns);
    !service::is_active(client.backend)
        && flow_table::now_ns().saturating_sub(last_seen_ns) > QUIET_BEFORE_RESELECT_NS
}
