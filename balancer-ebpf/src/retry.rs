//! A connection attempt that its backend did not take goes on to the next one, and its client need not know.
//!
//! The client's SYN is always at hand: it stands with its flow's handshake. A refusal's own frame becomes that SYN once
//! more; what then happens to it is what happens to any SYN of no flow, but that the backends which did not take it are
//! passed over, and that where its client is was learned before. A SYN that was not answered goes on when it is repeated,
//! by its client or by the controller in the client's name: to the packet path these are the same.
#![expect(unsafe_code, reason = "a helper that moves the packet's beginning")]

use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{FlowKey, Pool, RETRY_HELD, RETRY_INSTANT, RETRY_REPEATED, Route, tried_bit};
use balancer_common::flow::Seen;
use balancer_common::verdict::{Reason, Stage, Verdict};
use network_types::eth::EthHdr;

use crate::clock::{now, ticks_up};
use crate::craft::{Craft, TCP_BYTES, sum};
use crate::direction::Direction;
use crate::draft::{self, Draft};
use crate::family::Family;
use crate::flow_table;
use crate::memory::HalfOpen;
use crate::parse::{PROTOCOL_TCP, data, data_end, frame_length, header};
use crate::service;
use crate::signals::{self, Why};

/// An attempt that is under way.
struct Attempt {
    pool: &'static Pool,
    pool_slot: u16,
    backend: u16,
    /// The backends that have not taken it, this one included.
    tried: u64,
}

impl Attempt {
    #[inline(always)]
    fn of<A: Family>(client: &Direction<A, HalfOpen>) -> Option<Self> {
        let backend = client.backend();
        let pool_slot = service::backend(backend)?.pool as u16;
        let pool = service::pool(pool_slot)?;
        let tried = draft::tried(client) | tried_bit(backend);
        Some(Self { pool, pool_slot, backend, tried })
    }

    /// Whether the pool has moved since: now the attempt would be with another one.
    #[inline(always)]
    fn is_left_behind(&self) -> bool {
        let before = self.tried & !tried_bit(self.backend);
        match service::route(self.pool_slot) {
            Route::Backend(active) => service::successor(self.pool_slot, active, before) != self.backend,
            Route::Hold | Route::Reject | Route::Nobody => true,
        }
    }

    /// Whether there is somebody behind this backend who may take it, now or when the pool is not on hold any more.
    #[inline(always)]
    fn can_go_on(&self) -> bool {
        match service::route(self.pool_slot) {
            Route::Backend(active) => service::successor(self.pool_slot, active, self.tried) != 0,
            Route::Hold => true,
            Route::Reject | Route::Nobody => false,
        }
    }
}

/// A backend refuses the attempt. `None`: that is news for its client.
#[inline(never)]
pub(crate) fn refused<A: Family>(
    client: &Direction<A, HalfOpen>,
    backend: &Direction<A, HalfOpen>,
    why: Why,
) -> Option<Verdict> {
    if backend.seen().has(Seen::OPENED) {
        return None;
    }
    let attempt = Attempt::of(client)?;
    signals::failed(client.key(), client.service(), attempt.backend, why);
    if !attempt.can_go_on() {
        return None;
    }
    match attempt.pool.retry {
        RETRY_INSTANT => {
            draft::again(client, attempt.tried)?;
            Some(Verdict::next(Stage::Retry))
        }
        RETRY_REPEATED => {
            backend.refused();
            Some(Verdict::drop(Reason::Refused))
        }
        RETRY_HELD => Some(Verdict::drop(Reason::Refused)),
        _ => None,
    }
}

/// The SYN of an attempt comes again. `None`: to the same backend.
#[inline(never)]
pub(crate) fn repeated<A: Family>(
    client: &Direction<A, HalfOpen>,
    backend: &Direction<A, HalfOpen>,
) -> Option<Verdict> {
    if backend.seen().has(Seen::OPENED) {
        return None;
    }
    let attempt = Attempt::of(client)?;
    let was_refused = backend.seen().has(Seen::RST);
    let is_late = client.age(now()) >= ticks_up(u64::from(attempt.pool.connect_timeout_ms) * 1_000_000);
    if is_late && !was_refused {
        signals::unanswered(attempt.backend);
    }
    let may_go_on = matches!(attempt.pool.retry, RETRY_INSTANT | RETRY_REPEATED)
        && (was_refused || is_late || attempt.is_left_behind());
    if !may_go_on || !attempt.can_go_on() {
        return None;
    }
    draft::again(client, attempt.tried)?;
    if !let_go(client) {
        return Some(Verdict::drop(Reason::BadHandshake));
    }
    if was_refused {
        signals::went_on_refused(attempt.backend);
    } else if is_late {
        signals::went_on_unanswered(attempt.backend);
    }
    Some(Verdict::next(Stage::Again))
}

/// Takes the attempt from its backend; `false`: somebody else has.
#[inline(always)]
fn let_go<A: Family>(client: &Direction<A, HalfOpen>) -> bool {
    let is_ours = flow_table::forget(*client);
    if is_ours {
        flow_table::note_retry::<A>();
    }
    is_ours
}

/// Turns the frame of a refusal into the SYN that it refuses, which is in this CPU's draft.
#[inline(never)]
pub(crate) fn retry<A: Craft>(ctx: &XdpContext) -> Verdict {
    let Some(draft) = draft::draft::<A>() else { return Verdict::drop(Reason::Refused) };
    let Some(client) = flow_table::direction::<A, HalfOpen>(draft.client()) else {
        return Verdict::drop(Reason::Refused);
    };
    let refused_by = client.backend();
    if draft.tried.get() & tried_bit(refused_by) == 0 {
        // Another CPU has sent it on meanwhile.
        return Verdict::drop(Reason::Refused);
    }
    let options = draft.syn().options_length as usize & !3;
    if !resize(ctx, EthHdr::LEN + A::BYTES + TCP_BYTES + options) {
        if let Some(backend) = client.twin() {
            backend.refused();
        }
        return Verdict::drop(Reason::NoHeadRoom);
    }
    if !let_go(&client) || write::<A>(ctx, draft, options).is_none() {
        return Verdict::drop(Reason::Refused);
    }
    signals::went_on_refused(refused_by);
    Verdict::next(Stage::Again)
}

/// Moves the frame's beginning so that it has this length. Its end can't be moved: native drivers have no room there.
#[inline(always)]
fn resize(ctx: &XdpContext, wanted: usize) -> bool {
    let linear = data_end(ctx) - data(ctx);
    if frame_length(ctx, linear + 1).is_some() {
        // It goes on in other buffers, which stay where they are.
        return false;
    }
    // SAFETY: the context is the program's own; all pointers into the packet are made anew from here on.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, linear as i32 - wanted as i32) == 0 }
}

/// Writes the whole frame, but for the frame's addresses, which it gets when it leaves.
#[inline(always)]
fn write<A: Craft>(ctx: &XdpContext, draft: &Draft<A>, options: usize) -> Option<()> {
    let syn = draft.syn();
    let key: &FlowKey<A> = draft.client();
    header::<EthHdr>(ctx, 0)?.ether_type = A::ETHER_TYPE;
    let ip = header::<A::Header>(ctx, EthHdr::LEN)?;
    A::fill(ip, PROTOCOL_TCP, TCP_BYTES + options);
    A::set_class(ip, syn.traffic_class, syn.hops);
    A::set_source(ip, key.source);
    A::set_destination(ip, key.destination);
    A::set_checksum(ctx);
    let at = EthHdr::LEN + A::BYTES;
    let ([a, b], [c, d]) = (key.source_port.to_wire(), key.destination_port.to_wire());
    let [e, f, g, h] = draft.first_sequence.get().to_be_bytes();
    let words = ((TCP_BYTES + options) as u8 / 4) << 4;
    let [i, j] = syn.window;
    let tcp = header::<[u8; TCP_BYTES]>(ctx, at)?;
    *tcp = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, words, syn.flags, i, j, 0, 0, 0, 0];
    let mut all = A::sum_addresses(ctx).number(PROTOCOL_TCP.into()).number((TCP_BYTES + options) as u16);
    all = all.and(sum::<{ TCP_BYTES / 2 }>(ctx, at));
    for (word, option) in syn.options.iter().enumerate() {
        if 4 * word < options {
            let [e, f, g, h] = option.to_ne_bytes();
            let (first, second) = (u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]));
            *header::<[u16; 2]>(ctx, at + TCP_BYTES + 4 * word)? = [first, second];
            all = all.word(first).word(second);
        }
    }
    [tcp[16], tcp[17]] = all.checksum();
    Some(())
}
