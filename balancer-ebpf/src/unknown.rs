//! A packet of no flow. A client's SYN gets one, to the pool's active backend, or a reason why not. One that has to wait is
//! `hold`'s.
#![expect(unsafe_code, reason = "a helper that only returns an integer, and an element of a map")]

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Backend, FORWARDING_DNAT, FlowKey, NextHop, Pool, Port, Roles, Route};
use balancer_common::flow::Kind;
use balancer_common::limits::{MAX_SNAT_ADDRESSES, PORT_TRIES, PORT_TRIES_FOR_FREE};
use balancer_common::ports::{self, Place};
use balancer_common::verdict::{Answer, Reason, Stage, Verdict};

use crate::draft::{self, Draft};
use crate::family::Family;
use crate::flow_table::{self, Refused};
use crate::forward::{exit, source_of, translate_apart, translate_told};
use crate::memory::HalfOpen;
use crate::parse::Packet;
use crate::words::load;
use crate::{fetch, service, signals};

/// What becomes of it: for a service only a SYN may go on. From a backend a SYN is a connection of its own.
#[inline(never)]
pub(crate) fn unknown<A: Family>(ctx: &XdpContext) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let Some(draft) = draft::draft::<A>() else { return Verdict::drop(Reason::HalfOpenFull) };
    let (kind, tuple) = (packet.kind(), packet.key());
    // As a rule a SYN's is set since it was met; another one's may be if its flow was another's when it was drafted again.
    if !matches!(kind, Kind::Syn) || *draft.client() != tuple {
        draft.set_client(tuple, A::hash_of(&tuple));
    }
    let key = draft.client();
    let is_for_service = draft.has_service.get();
    if !is_for_service && !service::is_from_backend(key) {
        // What comes again was of a service: there is none any more.
        return if draft.is_again() { Verdict::drop(Reason::NoBackend) } else { Verdict::PASS };
    }
    match (kind, is_for_service) {
        (Kind::Syn, true) => {
            // What comes again may have come from elsewhere, and there nobody asked.
            let verdict = open(ctx, &mut packet, draft);
            if draft.is_again() { verdict.unanswered() } else { verdict }
        }
        (Kind::Syn, false) => Verdict::PASS,
        // Of a backend whose client was sent on to another: it is told that nobody waits any more.
        (Kind::SynAck, false) if flow_table::has_retried::<A>() && is_to_here(ctx, &packet, draft) => {
            Verdict::answer(Answer::Reset(packet.tcp_at as u32))
        }
        (Kind::SynAck, _) => Verdict::drop(Reason::StraySynAck),
        (Kind::Impossible, _) => Verdict::drop(Reason::BadFlags),
        (Kind::Rst, _) => Verdict::drop(Reason::NoFlow),
        // A gateway that stands by says nothing about connections of the one that works.
        (Kind::Ack | Kind::Fin | Kind::BareFin, _) if !is_to_here(ctx, &packet, draft) => {
            Verdict::drop(Reason::NoFlow)
        }
        // Nobody is told anything who can't have asked.
        (Kind::Ack | Kind::Fin | Kind::BareFin, true) if is_spoofed(ctx, key, draft.pool_slot.get()) => {
            Verdict::drop(Reason::SpoofedSource)
        }
        // Promoted by another CPU between two looks: its sender repeats it, rather than being told that it isn't known.
        (Kind::Ack | Kind::Fin | Kind::BareFin, _) if flow_table::is_established(key) => {
            Verdict::drop(Reason::BadHandshake)
        }
        // Its handshake may be one that had to make room: then its client is still in the right, and tries again.
        (Kind::Ack | Kind::Fin | Kind::BareFin, true) if flow_table::has_forgotten_handshakes::<A>() => {
            Verdict::drop(Reason::NoFlow)
        }
        (Kind::Ack | Kind::Fin | Kind::BareFin, _) => Verdict::answer(Answer::Reset(packet.tcp_at as u32)),
    }
}

/// A new flow to the pool's active backend, or to one behind it, if the draft says that others did not take it.
#[inline(always)]
fn open<A: Family>(ctx: &XdpContext, packet: &mut Packet<'_, A>, draft: &Draft<A>) -> Verdict {
    let (service, pool) = (draft.service_slot.get(), draft.pool_slot.get());
    if !draft.is_again() {
        if is_spoofed(ctx, draft.client(), pool) {
            return Verdict::drop(Reason::SpoofedSource);
        }
        if packet.has_partial_checksum(ctx) {
            return Verdict::drop(Reason::PartialChecksum);
        }
    }
    let slot = match service::route(pool) {
        Route::Backend(active) if draft.is_again() => service::successor(pool, active, draft.tried.get()),
        Route::Backend(active) => service::first(service, pool, active),
        Route::Hold if draft.is_again() || learn_client(ctx, packet, draft) => {
            return Verdict::next(Stage::Hold);
        }
        Route::Hold => return Verdict::drop(Reason::NoNextHop),
        Route::Reject if draft.is_again() => return Verdict::answer(Answer::Refusal(packet.tcp_at as u32)),
        Route::Reject if !is_to_here(ctx, packet, draft) => return Verdict::drop(Reason::AllDown),
        Route::Reject => match service::trial(service) {
            0 => return Verdict::answer(Answer::Refusal(packet.tcp_at as u32)),
            backend => backend,
        },
        Route::Nobody => return Verdict::drop(Reason::NoBackend),
    };
    if let Err(verdict) = exit::<A>(packet.ip, service::next_hop(slot)) {
        return verdict;
    }
    if !draft.is_again() && !learn_client(ctx, packet, draft) {
        return Verdict::drop(Reason::NoNextHop);
    }
    draft.backend_slot.set(slot);
    draft.first_sequence.set(packet.sequence());
    if !draft::reserve_half_open::<A>() {
        return Verdict::drop(Reason::HalfOpenFull);
    }
    draft::save_syn(ctx, packet, draft);
    Verdict::next(Stage::Open)
}

/// The flow of the draft begins, and its SYN goes on.
#[inline(always)]
pub(crate) fn opened<A: Family>(ctx: &XdpContext) -> Verdict {
    match Verdict::from_word(A::make()) {
        Some(verdict) => verdict,
        None => first::<A>(ctx),
    }
}

/// The first packet of a flow that was just made, by its client's line.
#[inline(never)]
fn first<A: Family>(ctx: &XdpContext) -> Verdict {
    let Some(mut packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let Some(draft) = draft::draft::<A>() else { return Verdict::drop(Reason::HalfOpenFull) };
    signals::syn_sent(draft.backend_slot.get());
    if let Some(direction) = flow_table::direction_at::<A, HalfOpen>(draft.client_line.get(), draft.client())
        && direction.backend() == draft.backend_slot.get()
    {
        return translate_told(&mut packet, &direction);
    }
    // Made by another CPU, perhaps to another backend than the kernel was told of.
    match flow_table::direction::<A, HalfOpen>(draft.client()) {
        Some(direction) => {
            let verdict = translate_apart(&mut packet, &direction);
            if draft.is_again() { verdict.unanswered() } else { verdict }
        }
        None => Verdict::drop(Reason::HalfOpenFull),
    }
}

/// The slot of the interface that the packet came in through.
#[inline(always)]
fn ingress_slot<A: Family>(ctx: &XdpContext, draft: &Draft<A>) -> Option<u16> {
    // As a rule it is where the last new flow on this CPU came from, which is still in the draft.
    let last = NextHop::from_word(draft.hop.get()).interface;
    if service::came_through(ctx, last) { Some(last) } else { service::ingress_slot(ctx) }
}

/// Whether the frame is for this machine: for the interface that it came in through, or for a virtual router (VRRP), which may be
/// this one. Where a switch doesn't know somebody it sends his frames to everybody. Not more than a guess: other addresses may
/// be an interface's as well.
#[inline(always)]
fn is_to_here<A: Family>(ctx: &XdpContext, packet: &Packet<'_, A>, draft: &Draft<A>) -> bool {
    const VIRTUAL_ROUTER: u64 = u64::from_le_bytes([0, 0, 0x5e, 0, 0, 0, 0, 0]);
    const BUT_FAMILY_AND_NUMBER: u64 = 0xffff_ffff;
    let Some(interface) = ingress_slot(ctx, draft).and_then(service::interface) else { return true };
    let (first, last) = (load::<0, _>(packet.eth), load::<2, _>(packet.eth));
    let receiver = u64::from(first & 0xffff) | u64::from(last) << 16;
    receiver == source_of(interface) || receiver & BUT_FAMILY_AND_NUMBER == VIRTUAL_ROUTER
}

/// The way that the client's packets come is the way to it; `false`: through an interface that isn't known.
#[inline(always)]
fn learn_client<A: Family>(ctx: &XdpContext, packet: &Packet<'_, A>, draft: &Draft<A>) -> bool {
    let Some(interface) = ingress_slot(ctx, draft) else { return false };
    draft.hop.set(NextHop { mac: packet.eth.src_addr, interface }.to_word());
    true
}

/// Has what a flow of the draft's client needs fetched, if it is a new one to the active backend that keeps its port.
#[inline(always)]
pub(crate) fn foresee<A: Family>(draft: &Draft<A>) {
    if !draft.has_service.get() {
        return;
    }
    let Route::Backend(slot) = service::route(draft.pool_slot.get()) else { return };
    if let (Some(pool), Some(backend)) = (service::pool(draft.pool_slot.get()), service::backend(slot)) {
        Source { pool, backend, slot, port: draft.backend_port.get() }.own(draft);
        fetch::opening(draft);
    }
}

/// [`Family::make`]: both sides of the draft's flow; the word of what becomes of the SYN if there is no flow.
#[inline(always)]
pub(crate) fn try_make<A: Family>() -> u64 {
    let Some(draft) = draft::draft::<A>() else { return Verdict::drop(Reason::NoBackend).to_word() };
    let (slot, port) = (draft.backend_slot.get(), draft.backend_port.get());
    let made = match (service::pool(draft.pool_slot.get()), service::backend(slot)) {
        (Some(pool), Some(backend)) => make(&Source { pool, backend, slot, port }, draft),
        _ => Err(Some(Reason::NoBackend)),
    };
    let Err(refused) = made else { return 0 };
    flow_table::give_back::<A, HalfOpen>();
    // What another CPU has made of another copy of the SYN is as good.
    refused.map_or(0, |reason| Verdict::drop(reason).to_word())
}

/// Makes both sides of the flow; no reason: it is there already.
#[inline(always)]
fn make<A: Family>(source: &Source<'_>, draft: &Draft<A>) -> Result<(), Option<Reason>> {
    source.claim(draft).map_err(Some)?;
    draft::complete(draft).map_err(|refused| {
        draft::unclaim(draft);
        if refused == Refused::Taken { None } else { Some(reason_of(refused)) }
    })
}

/// Why a SYN is dropped.
#[inline(always)]
pub(crate) const fn reason_of(refused: Refused) -> Reason {
    match refused {
        Refused::Full | Refused::Taken => Reason::HalfOpenFull,
        Refused::Contended => Reason::Contended,
    }
}

/// Sources that no client of this pool can have: nobody's, the gateway's own, and a backend's in the wrong place. A
/// backend may be a client where the gateway's address hides it from itself, and through its own interface.
#[inline(always)]
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
    #[inline(always)]
    fn claim<A: Family>(&self, draft: &Draft<A>) -> Result<(), Reason> {
        let may_keep_port = self.own(draft);
        fetch::both_sides(draft);
        if may_keep_port {
            match draft::claim(draft) {
                Ok(()) => return Ok(()),
                Err(Refused::Taken) => {}
                Err(refused) => return Err(reason_of(refused)),
            }
        }
        if self.pool.snat_range_count == 0 {
            return Err(Reason::SnatExhausted);
        }
        draft.place.set(match service::snat_cycle(self.slot) {
            Some(begun) => begun,
            None => Place::random(self.pool, random()).to_word(),
        });
        draft.closed.set(0);
        for attempt in 0..PORT_TRIES {
            match self.try_next(attempt, draft) {
                Ok(()) => return Ok(()),
                Err(Refused::Taken) if attempt + 1 >= PORT_TRIES_FOR_FREE && draft.closed.get() != 0 => break,
                Err(Refused::Taken) => {}
                Err(refused) => return Err(reason_of(refused)),
            }
        }
        self.take_over(draft)
    }

    /// One more try.
    #[inline(never)]
    fn try_next<A: Family>(&self, attempt: u32, draft: &Draft<A>) -> Result<(), Refused> {
        let place = Place::from_word(draft.place.get()).ok_or(Refused::Full)?;
        self.at(place, draft);
        let tried = draft::claim(draft);
        let steps = if tried.is_ok() { 1 } else { ports::steps_after(attempt, random()) };
        let next = place.further(self.pool, self.addresses(), steps).to_word();
        service::set_snat_cycle(self.slot, next);
        if tried == Err(Refused::Taken) && draft.closed.get() == 0 && draft::closed::<A>().is_some() {
            draft.closed.set(draft.place.get());
        }
        draft.place.set(next);
        tried
    }

    /// The place of a closed flow, if one was met.
    #[inline(never)]
    fn take_over<A: Family>(&self, draft: &Draft<A>) -> Result<(), Reason> {
        let place = Place::from_word(draft.closed.get()).ok_or(Reason::SnatExhausted)?;
        self.at(place, draft);
        if let Some(flow) = draft::closed::<A>() {
            flow_table::forget(flow);
            return draft::claim(draft).map_err(|_| Reason::SnatExhausted);
        }
        Err(Reason::SnatExhausted)
    }

    /// Addresses to choose from.
    #[inline(always)]
    fn addresses(&self) -> u8 {
        if self.pool.forwarding == FORWARDING_DNAT { 1 } else { (self.pool.snat_address_count as u8).max(1) }
    }

    /// With the client's own port, if that may be used.
    #[inline(always)]
    fn own<A: Family>(&self, draft: &Draft<A>) -> bool {
        let address = (draft.client().source.low_bits() % u32::from(self.addresses())) as u8;
        self.seen_from(draft, address, draft.client().source_port);
        self.pool.forwarding == FORWARDING_DNAT || ports::allows(self.pool, draft.client().source_port)
    }

    /// With what is at this place of the cycle. A subprogram, for its stack.
    #[inline(never)]
    fn at<A: Family>(&self, place: Place, draft: &Draft<A>) {
        let (address, port) = place.pair(self.pool, self.addresses());
        self.seen_from(draft, address, port);
    }

    /// The draft's backend answers to there.
    #[inline(always)]
    fn seen_from<A: Family>(&self, draft: &Draft<A>, address: u8, port: Port) {
        let seen: A = if self.pool.forwarding == FORWARDING_DNAT {
            draft.client().source
        } else if self.pool.snat_address_count == 0 {
            A::from(self.backend.snat_address)
        } else {
            // There are no more than that; said so that the verifier sees it too.
            const { assert!(MAX_SNAT_ADDRESSES.is_power_of_two()) };
            A::from(self.pool.snat_addresses[address as usize & (MAX_SNAT_ADDRESSES - 1)])
        };
        draft.set_backend(&A::from(self.backend.address), self.port, &seen, port);
    }
}

#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: takes nothing, returns an integer.
    unsafe { bpf_get_prandom_u32() }
}
