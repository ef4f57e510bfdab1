//! A packet of a flow whose handshake is under way.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{FlowKey, SIDE_CLIENT};
use balancer_common::flow::{self, Kind, Seen};
use balancer_common::verdict::{Reason, Stage, Verdict};

use crate::family::Family;
use crate::flow_table::{self, Direction, Found, Refused};
use crate::forward::{exit, translate_apart, way_out};
use crate::parse::Packet;
use crate::report;

/// What becomes of it; next: it belongs to an established flow now, or opens a new one and the old one is forgotten.
#[inline(never)]
pub(crate) fn handshake<A: Family>(ctx: &XdpContext) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let packet = &mut packet;
    let key = packet.key();
    // Completed or ended by another CPU in this very moment; either way its sender repeats it.
    let Found::HalfOpen(direction) = flow_table::find(&key) else {
        return Verdict::drop(Reason::BadHandshake);
    };
    let entry = direction.entry();
    let Some(twin) = flow_table::half_open_twin(&entry) else { return Verdict::drop(Reason::BadHandshake) };
    if entry.side == SIDE_CLIENT {
        from_client(packet, &key, direction, twin)
    } else {
        from_backend(ctx, packet, &key, direction, twin)
    }
}

#[inline(always)]
fn from_client<A: Family>(
    packet: &mut Packet<'_, A>,
    key: &FlowKey<A>,
    client: Direction<A>,
    backend: Direction<A>,
) -> Verdict {
    let entry = client.entry();
    match packet.kind() {
        Kind::Syn if packet.sequence() == entry.first_sequence => translate_apart(packet, client),
        Kind::Syn => {
            flow_table::release_half_open(key, &entry.becomes.reversed());
            Verdict::next(Stage::Unknown)
        }
        Kind::Rst => {
            let verdict = translate_apart(packet, client);
            // Only the client knows where its sequence began; anybody else's RST ends nothing here.
            if verdict.is_forward() && packet.sequence().wrapping_sub(entry.first_sequence) <= 1 {
                flow_table::release_half_open(key, &entry.becomes.reversed());
            }
            verdict
        }
        Kind::Ack | Kind::Fin => complete(packet, key, client, backend),
        Kind::SynAck => Verdict::drop(Reason::StraySynAck),
        Kind::Impossible => Verdict::drop(Reason::BadFlags),
    }
}

/// The client's acknowledgement of the SYN-ACK makes the flow an established one.
#[inline(always)]
fn complete<A: Family>(
    packet: &mut Packet<'_, A>,
    key: &FlowKey<A>,
    client: Direction<A>,
    backend: Direction<A>,
) -> Verdict {
    let opened = backend.entry();
    if !Seen(opened.seen).has(Seen::OPENED) || !flow::answers(packet.acknowledgement(), opened.first_sequence)
    {
        return Verdict::drop(Reason::BadHandshake);
    }
    let entry = client.entry();
    if let Err(verdict) = exit::<A>(packet.ip, way_out(&entry)) {
        return verdict;
    }
    match flow_table::promote(key, client, backend) {
        Ok(()) => report::new_flow(entry.service, entry.backend),
        Err(Refused::Taken) => {}
        Err(Refused::Full) => return Verdict::drop(Reason::FlowTableFull),
    }
    Verdict::next(Stage::Established)
}

#[inline(always)]
fn from_backend<A: Family>(
    ctx: &XdpContext,
    packet: &mut Packet<'_, A>,
    key: &FlowKey<A>,
    backend: Direction<A>,
    client: Direction<A>,
) -> Verdict {
    let answers = flow::answers(packet.acknowledgement(), client.entry().first_sequence);
    match packet.kind() {
        Kind::SynAck if answers && packet.has_partial_checksum(ctx) => Verdict::drop(Reason::PartialChecksum),
        Kind::SynAck if answers => {
            let verdict = translate_apart(packet, backend);
            if verdict.is_forward() {
                backend.opened(packet.sequence());
                backend.acknowledged(packet.acknowledgement());
            }
            verdict
        }
        Kind::Rst if answers => {
            let verdict = translate_apart(packet, backend);
            if verdict.is_forward() {
                flow_table::release_half_open(key, &backend.entry().becomes.reversed());
            }
            verdict
        }
        Kind::SynAck | Kind::Rst => Verdict::drop(Reason::BadHandshake),
        // Data before the handshake is complete (TCP fast open), or the challenge of a backend that still knows an
        // older connection of this tuple: the client must see it, its RST clears the way.
        Kind::Ack | Kind::Fin => translate_apart(packet, backend),
        Kind::Syn | Kind::Impossible => Verdict::drop(Reason::BadFlags),
    }
}
