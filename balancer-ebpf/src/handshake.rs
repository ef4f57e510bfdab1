//! A packet of a flow whose handshake is under way.

use aya_ebpf::programs::XdpContext;
use balancer_common::flow::{self, Kind, Seen, flags};
use balancer_common::table::NOT_LOOKED_FOR;
use balancer_common::verdict::{Reason, Stage, Verdict};

use crate::direction::Direction;
use crate::family::Family;
use crate::flow_table::{self, Refused};
use crate::forward::{exit, translate_apart, way_out};
use crate::memory::HalfOpen;
use crate::parse::Packet;
use crate::signals::{self, Why};
use crate::{draft, promotion, report, retry, room, service, way};

/// What becomes of it; next: it belongs to an established flow now, or opens a new one and the old one is forgotten.
#[inline(never)]
pub(crate) fn handshake<A: Family>(ctx: &XdpContext, line: u32) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let packet = &mut packet;
    if matches!(packet.kind(), Kind::Ack) {
        A::fetch_promotion(line);
    }
    let key = packet.key();
    // Completed or ended by another CPU in this very moment; either way it may be an established flow's now.
    let Some(direction) = flow_table::direction_at(line, &key) else { return Verdict::next(Stage::Flow) };
    let Some(twin) = direction.twin() else {
        // A client whose SYN is held, or half a flow, which somebody was taking out: its SYN begins it anew. So what is
        // held is always the last one that came, with what it says and the way that it came.
        if direction.seen().is_from_client() && matches!(packet.kind(), Kind::Syn) {
            flow_table::forget(direction);
            return Verdict::next(Stage::Unknown(NOT_LOOKED_FOR));
        }
        return Verdict::drop(Reason::BadHandshake);
    };
    if direction.seen().is_from_client() {
        from_client(ctx, packet, direction, twin)
    } else {
        from_backend(ctx, packet, direction, twin)
    }
}

#[inline(always)]
fn from_client<A: Family>(
    ctx: &XdpContext,
    packet: &mut Packet<'_, A>,
    client: Direction<A, HalfOpen>,
    backend: Direction<A, HalfOpen>,
) -> Verdict {
    let first_sequence = client.first_sequence();
    match packet.kind() {
        Kind::Syn if packet.sequence() == first_sequence => {
            let came_from = way::sender(packet);
            if way::has_moved(ctx, came_from, &client) {
                way::follow(ctx, came_from, &client, &backend);
            }
            retry::repeated(&client, &backend).unwrap_or_else(|| {
                // Whichever of its lines is met: it is as old as its client's last word.
                backend.touch();
                translate_apart(packet, &client)
            })
        }
        Kind::Syn => {
            flow_table::forget(client);
            Verdict::next(Stage::Unknown(NOT_LOOKED_FOR))
        }
        Kind::Rst => {
            let verdict = translate_apart(packet, &client);
            // Only the client knows where its sequence began; anybody else's RST ends nothing here.
            if verdict.is_forward() && packet.sequence().wrapping_sub(first_sequence) <= 1 {
                flow_table::forget(client);
            }
            verdict
        }
        Kind::Ack | Kind::Fin => complete(packet, client, backend),
        Kind::SynAck => Verdict::drop(Reason::StraySynAck),
        Kind::BareFin | Kind::Impossible => Verdict::drop(Reason::BadFlags),
    }
}

/// The client's acknowledgement of the SYN-ACK makes the flow an established one.
#[inline(always)]
fn complete<A: Family>(
    packet: &mut Packet<'_, A>,
    client: Direction<A, HalfOpen>,
    backend: Direction<A, HalfOpen>,
) -> Verdict {
    let opened = backend.first_sequence();
    if !backend.seen().has(Seen::OPENED) || !flow::answers(packet.acknowledgement(), opened) {
        return Verdict::drop(Reason::BadHandshake);
    }
    let Some(recipe) = client.recipe() else { return Verdict::next(Stage::Flow) };
    if let Err(verdict) = exit::<A>(packet.ip, way_out(&recipe)) {
        return verdict;
    }
    let mut promoted = promotion::promote(client, backend);
    if promoted == Err(Refused::Full) && room::was_made::<A>() {
        promoted = promotion::promote(client, backend);
    }
    match promoted {
        Ok(line) => {
            report::new_flow(recipe.service, recipe.backend);
            Verdict::next(Stage::Established(line))
        }
        Err(Refused::Taken) => Verdict::next(Stage::Flow),
        Err(Refused::Full) => Verdict::drop(Reason::FlowTableFull),
        Err(Refused::Contended) => Verdict::drop(Reason::Contended),
    }
}

#[inline(always)]
fn from_backend<A: Family>(
    ctx: &XdpContext,
    packet: &mut Packet<'_, A>,
    backend: Direction<A, HalfOpen>,
    client: Direction<A, HalfOpen>,
) -> Verdict {
    let answers = flow::answers(packet.acknowledgement(), client.first_sequence());
    match packet.kind() {
        Kind::SynAck if answers && packet.has_partial_checksum(ctx) => Verdict::drop(Reason::PartialChecksum),
        Kind::SynAck if answers => {
            // Read at once, as it may be far.
            let tried = draft::tried(&client);
            let verdict = translate_apart(packet, &backend);
            if verdict.is_forward() {
                if !backend.seen().has(Seen::OPENED) {
                    signals::answered(backend.backend(), tried != 0);
                }
                backend.opened(packet.sequence(), packet.acknowledgement());
            }
            verdict
        }
        Kind::Rst if answers => {
            if is_refusal(packet, &client)
                && service::came_from(ctx, backend.backend())
                && let Some(verdict) = retry::refused(&client, &backend, Why::Refused)
            {
                return verdict;
            }
            let verdict = translate_apart(packet, &backend);
            if verdict.is_forward() {
                flow_table::forget(backend);
            }
            verdict
        }
        Kind::SynAck | Kind::Rst => Verdict::drop(Reason::BadHandshake),
        // Data before the handshake is complete (TCP fast open), or the challenge of a backend that still knows an
        // older connection of this tuple: the client must see it, its RST clears the way.
        Kind::Ack | Kind::Fin => translate_apart(packet, &backend),
        Kind::Syn | Kind::BareFin | Kind::Impossible => Verdict::drop(Reason::BadFlags),
    }
}

/// Whether a RST that a client would believe says that nobody listens: it acknowledges the SYN and nothing else, but for data
/// that came with it.
#[inline(always)]
fn is_refusal<A: Family>(packet: &Packet<'_, A>, client: &Direction<A, HalfOpen>) -> bool {
    let expected = client.first_sequence().wrapping_add(1);
    packet.flags() & flags::ACK != 0 && (packet.acknowledgement() == expected || draft::had_data(client))
}
