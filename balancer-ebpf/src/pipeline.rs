//! The packet path: parse -> flow -> (service -> backend -> new flow) -> forward.
//!
//! An established flow's packet takes one lookup and leaves. Only a SYN that belongs to no flow asks for a service.
//! The iron rule: what is for a service is translated or dropped with a reason, and never reaches the kernel's own
//! stack; everything else passes byte-identical.
#![expect(unsafe_code, reason = "a helper that only returns an integer")]

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address, Backend, FlowEntry, FlowKey, Port, SIDE_BACKEND, SIDE_CLIENT, Service};
use balancer_common::flow::{self, Kind, Seen, Stage};
use balancer_common::limits::{PORT_TRIES, QUIET_BEFORE_RESELECT_NS};
use balancer_common::nat::Rewrite;
use balancer_common::ports;
use balancer_common::verdict::{Reason, Verdict};

use crate::flow_table::{self, Direction, Found, Refused};
use crate::forward::{exit, translate, way_out};
use crate::parse::{Packet, Parsed, parse};
use crate::{report, service};

/// A packet's fate.
#[inline(always)]
pub(crate) fn decide(ctx: &XdpContext) -> Verdict {
    let mut packet = match parse(ctx) {
        Parsed::Tcp(packet) => packet,
        Parsed::Other => return Verdict::Pass,
        Parsed::Unreadable { destination, reason } if service::is_listen_address(destination) => {
            return Verdict::Drop(reason);
        }
        Parsed::Unreadable { .. } => return Verdict::Pass,
    };
    let key = packet.key();
    let of_flow = match flow_table::find(&key) {
        Found::Established(direction) => established(&mut packet, &key, direction),
        Found::HalfOpen(direction) => half_open(&mut packet, &key, direction),
        Found::Nothing => None,
    };
    match of_flow {
        Some(verdict) => verdict,
        None => unknown(ctx, &mut packet, &key),
    }
}

/// A packet of a flow whose handshake is complete; `None`: it opens a new one, and the old one is forgotten.
#[inline(always)]
fn established(packet: &mut Packet<'_>, key: &FlowKey, direction: Direction) -> Option<Verdict> {
    let kind = packet.kind();
    match kind {
        Kind::Ack | Kind::SynAck => {}
        Kind::Syn if opens_anew(packet, &direction.entry()) => {
            flow_table::release_established(key, &direction.entry().becomes.reversed());
            return None;
        }
        Kind::Syn => {}
        Kind::Fin | Kind::Rst => return Some(closing(packet, &direction, kind)),
        Kind::Impossible => return Some(Verdict::Drop(Reason::BadFlags)),
    }
    let verdict = translate(packet, &direction);
    if is_forwarded(verdict) && matches!(kind, Kind::Ack) {
        direction.acknowledged(packet.acknowledgement());
    }
    Some(verdict)
}

#[inline(always)]
fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward(_))
}

/// A FIN or a RST: goes on like any packet, and is remembered for what it may be believed to be.
#[inline(always)]
fn closing(packet: &mut Packet<'_>, direction: &Direction, kind: Kind) -> Verdict {
    let verdict = translate(packet, direction);
    if !is_forwarded(verdict) {
        return verdict;
    }
    if matches!(kind, Kind::Fin) {
        direction.acknowledged(packet.acknowledgement());
        direction.finished(packet.end_of_data().wrapping_add(1));
    } else if let Some(twin) = flow_table::established_twin(&direction.entry()) {
        let twin = twin.entry();
        if flow::may_reset(packet.sequence(), twin.acknowledged) {
            direction.reset(twin.packets);
        }
    }
    verdict
}

/// Whether a SYN on the tuple of an established flow is a new connection: the flow is over, or its backend isn't the
/// active one any more and it has been silent for a while. Otherwise the backend gets the SYN: a repeated one it ignores,
/// a forged one it challenges, and a client that has forgotten its flow answers that with a RST and tries again.
#[inline(always)]
fn opens_anew(packet: &Packet<'_>, client: &FlowEntry) -> bool {
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

/// A packet of a flow whose handshake is under way; `None` as above.
#[inline(always)]
fn half_open(packet: &mut Packet<'_>, key: &FlowKey, direction: Direction) -> Option<Verdict> {
    let entry = direction.entry();
    let Some(twin) = flow_table::half_open_twin(&entry) else {
        return Some(Verdict::Drop(Reason::BadHandshake));
    };
    if entry.side == SIDE_CLIENT {
        from_opening_client(packet, key, direction, twin)
    } else {
        Some(from_opening_backend(packet, key, direction, twin))
    }
}

#[inline(always)]
fn from_opening_client(
    packet: &mut Packet<'_>,
    key: &FlowKey,
    client: Direction,
    backend: Direction,
) -> Option<Verdict> {
    let entry = client.entry();
    let verdict = match packet.kind() {
        Kind::Syn if packet.sequence() == entry.first_sequence => translate(packet, &client),
        Kind::Syn => {
            flow_table::release_half_open(key, &entry.becomes.reversed());
            return None;
        }
        Kind::Rst => {
            let verdict = translate(packet, &client);
            // Only the client knows where its sequence began; anybody else's RST ends nothing here.
            if is_forwarded(verdict) && packet.sequence().wrapping_sub(entry.first_sequence) <= 1 {
                flow_table::release_half_open(key, &entry.becomes.reversed());
            }
            verdict
        }
        Kind::Ack | Kind::Fin => complete(packet, key, &client, &backend),
        Kind::SynAck => Verdict::Drop(Reason::StraySynAck),
        Kind::Impossible => Verdict::Drop(Reason::BadFlags),
    };
    Some(verdict)
}

/// The client's acknowledgement of the SYN-ACK makes the flow an established one.
#[inline(always)]
fn complete(packet: &mut Packet<'_>, key: &FlowKey, client: &Direction, backend: &Direction) -> Verdict {
    let backend = backend.entry();
    if !Seen(backend.seen).has(Seen::OPENED)
        || !flow::answers(packet.acknowledgement(), backend.first_sequence)
    {
        return Verdict::Drop(Reason::BadHandshake);
    }
    let client = client.entry();
    if let Err(reason) = exit(packet, way_out(&client)) {
        return Verdict::Drop(reason);
    }
    match flow_table::promote(key, &client, &backend) {
        Ok(()) => report::new_flow(&client),
        Err(Refused::Taken) => {}
        Err(Refused::Full) => return Verdict::Drop(Reason::FlowTableFull),
    }
    match flow_table::find(key) {
        Found::Established(direction) if matches!(packet.kind(), Kind::Fin) => {
            closing(packet, &direction, Kind::Fin)
        }
        Found::Established(direction) => {
            direction.acknowledged(packet.acknowledgement());
            translate(packet, &direction)
        }
        // Ended by another CPU in this very moment.
        Found::HalfOpen(_) | Found::Nothing => Verdict::Drop(Reason::NoFlow),
    }
}

#[inline(always)]
fn from_opening_backend(
    packet: &mut Packet<'_>,
    key: &FlowKey,
    backend: Direction,
    client: Direction,
) -> Verdict {
    let answers = flow::answers(packet.acknowledgement(), client.entry().first_sequence);
    match packet.kind() {
        Kind::SynAck if answers => {
            let verdict = translate(packet, &backend);
            if is_forwarded(verdict) {
                backend.opened(packet.sequence());
                backend.acknowledged(packet.acknowledgement());
            }
            verdict
        }
        Kind::Rst if answers => {
            let verdict = translate(packet, &backend);
            if is_forwarded(verdict) {
                flow_table::release_half_open(key, &backend.entry().becomes.reversed());
            }
            verdict
        }
        Kind::SynAck | Kind::Rst => Verdict::Drop(Reason::BadHandshake),
        // Data before the handshake is complete (TCP fast open), or the challenge of a backend that still knows an
        // older connection of this tuple: the client must see it, its RST clears the way.
        Kind::Ack | Kind::Fin => translate(packet, &backend),
        Kind::Syn | Kind::Impossible => Verdict::Drop(Reason::BadFlags),
    }
}

/// A packet of no flow: for a service only a SYN may go on.
#[inline(always)]
fn unknown(ctx: &XdpContext, packet: &mut Packet<'_>, key: &FlowKey) -> Verdict {
    let Some(service) = service::find(key) else { return Verdict::Pass };
    match packet.kind() {
        Kind::Syn if is_spoofed(key) => Verdict::Drop(Reason::SpoofedSource),
        Kind::Syn => open(ctx, packet, key, service),
        Kind::SynAck => Verdict::Drop(Reason::StraySynAck),
        Kind::Impossible => Verdict::Drop(Reason::BadFlags),
        Kind::Ack | Kind::Fin | Kind::Rst => Verdict::Drop(Reason::NoFlow),
    }
}

/// Sources that no client can have: this network, loopback, multicast and above, and our own listen addresses (the
/// destination is one of them).
#[inline(always)]
fn is_spoofed(key: &FlowKey) -> bool {
    let first = key.source.to_wire()[0];
    matches!(first, 0 | 127 | 224..) || service::is_listen_address(key.source)
}

/// A new flow to the pool's active backend.
#[inline(always)]
fn open(ctx: &XdpContext, packet: &mut Packet<'_>, key: &FlowKey, service: &Service) -> Verdict {
    let Some(slot) = service::active_backend(service.pool) else { return Verdict::Drop(Reason::NoBackend) };
    let Some(backend) = service::backend(slot) else { return Verdict::Drop(Reason::NoBackend) };
    if let Err(reason) = exit(packet, service::next_hop(slot)) {
        return Verdict::Drop(reason);
    }
    let Some(ingress) = service::ingress_slot(ctx) else { return Verdict::Drop(Reason::NoNextHop) };
    let now_ns = flow_table::now_ns();
    let mut entry = FlowEntry {
        becomes: key.reversed(),
        ip_delta: 0,
        tcp_delta: 0,
        side: SIDE_BACKEND,
        seen: 0,
        service: service.slot,
        backend: slot,
        interface: ingress,
        mac: packet.eth.src_addr,
        padding: 0,
        first_sequence: 0,
        acknowledged: 0,
        fin_end: 0,
        packets_at_reset: 0,
        began_ns: now_ns,
        last_seen_ns: now_ns,
        packets: 0,
        bytes: 0,
    };
    let backend_key = match claim_backend_side(key, service, backend, &mut entry) {
        Ok(backend_key) => backend_key,
        Err(reason) => return Verdict::Drop(reason),
    };
    let forth = Rewrite::new(key, &backend_key.reversed());
    entry.becomes = forth.becomes;
    entry.ip_delta = forth.ip_delta;
    entry.tcp_delta = forth.tcp_delta;
    entry.side = SIDE_CLIENT;
    entry.seen = Seen::OPENED.0;
    entry.first_sequence = packet.sequence();
    if let Err(refused) = flow_table::insert_half_open(key, &entry) {
        flow_table::release_half_open(&backend_key, &backend_key);
        // Another CPU made this flow from another copy of the SYN: what it made is as good.
        if let (Refused::Taken, Found::HalfOpen(direction)) = (refused, flow_table::find(key)) {
            return translate(packet, &direction);
        }
        return Verdict::Drop(Reason::HalfOpenFull);
    }
    match flow_table::find(key) {
        Found::HalfOpen(direction) => translate(packet, &direction),
        Found::Established(_) | Found::Nothing => Verdict::Drop(Reason::HalfOpenFull),
    }
}

/// Finds a SNAT port whose backend-side tuple is free and claims it by making the backend's side of the flow.
#[inline(always)]
fn claim_backend_side(
    key: &FlowKey,
    service: &Service,
    backend: &Backend,
    entry: &mut FlowEntry,
) -> Result<FlowKey, Reason> {
    let Some(pool) = service::pool(service.pool) else { return Err(Reason::NoBackend) };
    let mut port = key.source_port;
    if !ports::allows(pool, port) {
        port = random_port(pool).ok_or(Reason::SnatExhausted)?;
    }
    for _ in 0..PORT_TRIES {
        let backend_key = backend_side(backend.address, service.backend_port, backend.snat_address, port);
        let back = Rewrite::new(&backend_key, &key.reversed());
        entry.ip_delta = back.ip_delta;
        entry.tcp_delta = back.tcp_delta;
        match flow_table::claim(&backend_key, entry) {
            Ok(()) => return Ok(backend_key),
            Err(Refused::Full) => return Err(Reason::HalfOpenFull),
            Err(Refused::Taken) => port = random_port(pool).ok_or(Reason::SnatExhausted)?,
        }
    }
    Err(Reason::SnatExhausted)
}

#[inline(always)]
fn backend_side(source: Address, source_port: Port, destination: Address, destination_port: Port) -> FlowKey {
    FlowKey { source, destination, source_port, destination_port }
}

#[inline(always)]
fn random_port(pool: &balancer_common::abi::Pool) -> Option<Port> {
    // SAFETY: takes nothing, returns an integer.
    ports::at(pool, unsafe { bpf_get_prandom_u32() })
}
