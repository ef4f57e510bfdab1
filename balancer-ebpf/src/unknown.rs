//! A packet of no flow. A client's SYN gets one, to the pool's active backend, or a reason why not.
#![expect(unsafe_code, reason = "a helper that only returns an integer, and a word of a map")]

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{
    Backend, FORWARDING_DNAT, FlowEntry, FlowKey, NextHop, Pool, Port, Roles, SIDE_BACKEND, SIDE_CLIENT,
    Service,
};
use balancer_common::flow::{Kind, Seen, Stage};
use balancer_common::limits::{MAX_SNAT_ADDRESSES, PORT_TRIES, PORT_TRIES_FOR_FREE};
use balancer_common::nat::Rewrite;
use balancer_common::ports::{self, Place};
use balancer_common::verdict::{Answer, Reason, Verdict};

use crate::family::Family;
use crate::flow_table::{self, Found, Refused};
use crate::forward::{exit, translate_apart};
use crate::parse::Packet;
use crate::service;

/// What becomes of it: for a service only a SYN may go on. From a backend a SYN is a connection of its own.
#[inline(never)]
pub(crate) fn unknown<A: Family>(ctx: &XdpContext) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let key = packet.key();
    let service = service::find(&key);
    if service.is_none() && !service::is_from_backend(&key) {
        return Verdict::PASS;
    }
    match (packet.kind(), service) {
        (Kind::Syn, Some(service)) => open(ctx, &mut packet, &key, service),
        (Kind::Syn, None) => Verdict::PASS,
        (Kind::SynAck, _) => Verdict::drop(Reason::StraySynAck),
        (Kind::Impossible, _) => Verdict::drop(Reason::BadFlags),
        (Kind::Rst, _) => Verdict::drop(Reason::NoFlow),
        // Nobody is told anything who can't have asked.
        (Kind::Ack | Kind::Fin, Some(service)) if is_spoofed(ctx, &key, service.pool) => {
            Verdict::drop(Reason::SpoofedSource)
        }
        (Kind::Ack | Kind::Fin, _) => Verdict::answer(Answer::Reset(packet.tcp_at as u32)),
    }
}

/// A new flow to the pool's active backend.
#[inline(always)]
fn open<A: Family>(
    ctx: &XdpContext,
    packet: &mut Packet<'_, A>,
    key: &FlowKey<A>,
    service: &Service,
) -> Verdict {
    let Some(pool) = service::pool(service.pool) else { return Verdict::drop(Reason::NoBackend) };
    if is_spoofed(ctx, key, service.pool) {
        return Verdict::drop(Reason::SpoofedSource);
    }
    if packet.has_partial_checksum(ctx) {
        return Verdict::drop(Reason::PartialChecksum);
    }
    let Some(slot) = service::active_backend(service.pool) else { return Verdict::drop(Reason::NoBackend) };
    let Some(backend) = service::backend(slot) else { return Verdict::drop(Reason::NoBackend) };
    if let Err(verdict) = exit::<A>(packet.ip, service::next_hop(slot)) {
        return verdict;
    }
    let Some(interface) = service::ingress_slot(ctx) else { return Verdict::drop(Reason::NoNextHop) };
    let Some(draft) = draft::<A>() else { return Verdict::drop(Reason::HalfOpenFull) };
    let now_ns = flow_table::now_ns();
    // Field by field: the stack has no room for a whole one.
    let entry = &mut draft.entry;
    entry.becomes = key.reversed();
    entry.client = NextHop { mac: packet.eth.src_addr, interface };
    entry.side = SIDE_BACKEND;
    entry.seen = 0;
    entry.service = service.slot;
    entry.backend = slot;
    entry.padding = 0;
    entry.first_sequence = 0;
    entry.acknowledged = 0;
    entry.fin_end = 0;
    entry.packets_at_reset = 0;
    entry.began_ns = now_ns;
    entry.last_seen_ns = now_ns;
    entry.packets = 0;
    entry.bytes = 0;
    let source = Source { pool, backend, slot, port: service.backend_port };
    if let Err(reason) = source.claim(key, draft) {
        return Verdict::drop(reason);
    }
    publish(packet, key, draft)
}

/// The backend's side is claimed; makes the client's side, and sends the packet on.
#[inline(never)]
fn publish<A: Family>(packet: &mut Packet<'_, A>, key: &FlowKey<A>, draft: &mut Draft<A>) -> Verdict {
    turn_to_client(key, draft);
    let entry = &mut draft.entry;
    entry.first_sequence = packet.sequence();
    // If it is there already, another CPU made this flow from another copy of the SYN: what it made is as good.
    let inserted = flow_table::insert_half_open(key, entry);
    if inserted.is_err() {
        flow_table::release_half_open(&draft.tuple, &draft.tuple);
    }
    match (inserted, flow_table::find(key)) {
        (Ok(()) | Err(Refused::Taken), Found::HalfOpen(direction)) => translate_apart(packet, direction),
        _ => Verdict::drop(Reason::HalfOpenFull),
    }
}

/// The draft of the backend's side becomes one of the client's.
#[inline(never)]
fn turn_to_client<A: Family>(key: &FlowKey<A>, draft: &mut Draft<A>) {
    let entry = &mut draft.entry;
    entry.becomes = draft.tuple.reversed();
    let forth = Rewrite::new(key, &entry.becomes);
    entry.ip_delta = forth.ip_delta;
    entry.tcp_delta = forth.tcp_delta;
    entry.side = SIDE_CLIENT;
    entry.seen = Seen::OPENED.0;
}

/// A flow in the making, outside of the stack, which has no room for it.
#[repr(C)]
pub(crate) struct Draft<A> {
    /// One side of it, first the backend's, then the client's.
    entry: FlowEntry<A>,
    /// Where in the cycle of SNAT addresses and ports to try next, as a word. Not in a variable, of which the verifier
    /// would follow every value.
    place: u64,
    /// Where a closed flow was met, as a word; 0: nowhere.
    closed: u64,
    /// What the backend's packets look like.
    tuple: FlowKey<A>,
}

#[inline(always)]
fn draft<A: Family>() -> Option<&'static mut Draft<A>> {
    // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU; asked for once a run.
    A::drafts().get_ptr_mut(0).map(|draft| unsafe { &mut *draft })
}

/// Sources that no client of this pool can have: nobody's, the gateway's own, and a backend's in the wrong place. A
/// backend may be a client where the gateway's address hides it from itself, and through its own interface.
#[inline(never)]
fn is_spoofed<A: Family>(ctx: &XdpContext, key: &FlowKey<A>, pool: u16) -> bool {
    let source = key.source;
    if source.is_no_hosts() {
        return true;
    }
    let roles = service::roles(source.into());
    if roles.is(Roles::LISTEN | Roles::SNAT | Roles::GATEWAY) {
        return true;
    }
    let is_dnat = service::pool(pool).is_some_and(|pool| pool.forwarding == FORWARDING_DNAT);
    let is_elsewhere = |hop: NextHop| !service::came_through(ctx, hop.interface);
    roles.is(Roles::BACKEND) && (is_dnat || service::next_hop(roles.backend).is_some_and(is_elsewhere))
}

/// Where flows to a backend come from, as it sees them.
struct Source<'a> {
    pool: &'a Pool,
    backend: &'a Backend,
    /// The backend's.
    slot: u16,
    /// The backend's.
    port: Port,
}

impl Source<'_> {
    /// Finds an address and port whose backend-side tuple is free, and claims it by making the backend's side of the
    /// flow: the client's own port first, then those of the pool's cycle. A closed flow's, if nothing free is near.
    #[inline(never)]
    fn claim<A: Family>(&self, key: &FlowKey<A>, draft: &mut Draft<A>) -> Result<(), Reason> {
        if self.own(key, draft) {
            match try_claim(key, draft) {
                Tried::Claimed => return Ok(()),
                Tried::Full => return Err(Reason::HalfOpenFull),
                Tried::Taken => {}
            }
        }
        if self.pool.snat_range_count == 0 {
            return Err(Reason::SnatExhausted);
        }
        draft.place = match service::snat_cycle(self.slot) {
            Some(begun) => begun,
            None => Place::random(self.pool, random()).to_word(),
        };
        draft.closed = 0;
        for attempt in 0..PORT_TRIES {
            match self.try_next(key, attempt, draft) {
                Tried::Claimed => return Ok(()),
                Tried::Full => return Err(Reason::HalfOpenFull),
                Tried::Taken if attempt + 1 >= PORT_TRIES_FOR_FREE && draft.closed != 0 => break,
                Tried::Taken => {}
            }
        }
        self.take_over(key, draft)
    }

    /// One more try.
    #[inline(never)]
    fn try_next<A: Family>(&self, key: &FlowKey<A>, attempt: u32, draft: &mut Draft<A>) -> Tried {
        let Some(place) = Place::from_word(draft.place) else { return Tried::Full };
        self.at(key, place, draft);
        let tried = try_claim(key, draft);
        let is_claimed = matches!(tried, Tried::Claimed);
        let steps = if is_claimed { 1 } else { ports::steps_after(attempt, random()) };
        let next = place.further(self.pool, self.addresses(), steps).to_word();
        service::set_snat_cycle(self.slot, next);
        if matches!(tried, Tried::Taken) && draft.closed == 0 && is_closed(&draft.tuple) {
            draft.closed = draft.place;
        }
        draft.place = next;
        tried
    }

    /// The place of a closed flow, if one was met.
    #[inline(never)]
    fn take_over<A: Family>(&self, key: &FlowKey<A>, draft: &mut Draft<A>) -> Result<(), Reason> {
        let place = Place::from_word(draft.closed).ok_or(Reason::SnatExhausted)?;
        self.at(key, place, draft);
        if release_closed(&draft.tuple) && matches!(try_claim(key, draft), Tried::Claimed) {
            return Ok(());
        }
        Err(Reason::SnatExhausted)
    }

    /// Addresses to choose from.
    #[inline(always)]
    fn addresses(&self) -> u8 {
        if self.pool.forwarding == FORWARDING_DNAT { 1 } else { (self.pool.snat_address_count as u8).max(1) }
    }

    /// With the client's own port, if that may be used.
    #[inline(never)]
    fn own<A: Family>(&self, key: &FlowKey<A>, draft: &mut Draft<A>) -> bool {
        let address = (key.source.low_bits() % u32::from(self.addresses())) as u8;
        draft.tuple = self.tuple(key, address, key.source_port);
        self.pool.forwarding == FORWARDING_DNAT || ports::allows(self.pool, key.source_port)
    }

    /// With what is at this place of the cycle.
    #[inline(always)]
    fn at<A: Family>(&self, key: &FlowKey<A>, place: Place, draft: &mut Draft<A>) {
        let (address, port) = place.pair(self.pool, self.addresses());
        draft.tuple = self.tuple(key, address, port);
    }

    /// What the backend's packets look like in a flow that comes from there.
    #[inline(always)]
    fn tuple<A: Family>(&self, key: &FlowKey<A>, address: u8, port: Port) -> FlowKey<A> {
        let seen_by_backend: A = if self.pool.forwarding == FORWARDING_DNAT {
            key.source
        } else if self.pool.snat_address_count == 0 {
            A::from(self.backend.snat_address)
        } else {
            // There are no more than that; said so that the verifier sees it too.
            const { assert!(MAX_SNAT_ADDRESSES.is_power_of_two()) };
            A::from(self.pool.snat_addresses[address as usize & (MAX_SNAT_ADDRESSES - 1)])
        };
        FlowKey {
            source: A::from(self.backend.address),
            destination: seen_by_backend,
            source_port: self.port,
            destination_port: port,
        }
    }
}

/// What became of an attempt to claim a tuple.
#[derive(Clone, Copy)]
enum Tried {
    Claimed,
    Taken,
    Full,
}

/// A subprogram, as others here, for its stack and so that several uses don't make several copies.
#[inline(never)]
fn try_claim<A: Family>(client: &FlowKey<A>, draft: &mut Draft<A>) -> Tried {
    let back = Rewrite::new(&draft.tuple, &client.reversed());
    draft.entry.ip_delta = back.ip_delta;
    draft.entry.tcp_delta = back.tcp_delta;
    match flow_table::claim(&draft.tuple, &draft.entry) {
        Ok(()) => Tried::Claimed,
        Err(Refused::Taken) => Tried::Taken,
        Err(Refused::Full) => Tried::Full,
    }
}

/// Whether the flow with this tuple is over, and only kept for its last retransmissions.
#[inline(never)]
fn is_closed<A: Family>(tuple: &FlowKey<A>) -> bool {
    flow_table::established_flow(tuple)
        .is_some_and(|(backend, client)| matches!(Stage::of(&client, &backend), Stage::Closed))
}

/// Forgets the flow with this tuple, if it is over; false if it isn't, or isn't there.
#[inline(never)]
fn release_closed<A: Family>(tuple: &FlowKey<A>) -> bool {
    let Some((backend, client)) = flow_table::established_flow(tuple) else { return false };
    let is_closed = matches!(Stage::of(&client, &backend), Stage::Closed);
    if is_closed {
        flow_table::release_established(&backend.becomes.reversed(), tuple);
    }
    is_closed
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: takes nothing, returns an integer.
    unsafe { bpf_get_prandom_u32() }
}
