//! A SYN for a pool that is on hold: nobody gets it now, and it isn't lost. It is kept in a line of the client's side
//! alone, among the handshakes and within their limit, until the pool has a backend again: then the controller sends it
//! once more, or the client does.
//!
//! The word that says so may change between the look at it and the line: then the line is found by what comes next, the
//! controller's look at all that is held or the client's repetition.

use aya_ebpf::programs::XdpContext;
use balancer_common::verdict::{Answer, Reason, Verdict};

use crate::draft::{self, Draft};
use crate::family::Family;
use crate::flow_table;
use crate::memory::HalfOpen;
use crate::parse::Packet;
use crate::unknown::reason_of;

/// No line has this index.
const NOWHERE: u32 = u32::MAX;

/// Keeps the SYN that `unknown` has found to be one, in this CPU's draft.
#[inline(never)]
pub(crate) fn hold<A: Family>(ctx: &XdpContext) -> Verdict {
    let Some(packet) = Packet::<A>::read(ctx) else { return Verdict::drop(Reason::BadLength) };
    let Some(draft) = draft::draft::<A>() else { return Verdict::drop(Reason::HalfOpenFull) };
    if A::hops_left(packet.ip) <= 1 {
        return Verdict::answer(Answer::TimeExceeded);
    }
    draft.first_sequence.set(packet.sequence());
    without_backend(draft);
    if !draft::reserve_half_open::<A>() {
        return Verdict::drop(Reason::HalfOpenFull);
    }
    draft::save_syn(ctx, &packet, draft);
    if let Err(refused) = draft::complete(draft) {
        flow_table::give_back::<A, HalfOpen>();
        // What another CPU has made of another copy of the SYN is as good.
        if refused != flow_table::Refused::Taken {
            return Verdict::drop(reason_of(refused));
        }
    }
    Verdict::drop(Reason::Held)
}

/// Nothing is behind the client's side, and its packets become what they are.
#[inline(always)]
fn without_backend<A: Family>(draft: &Draft<A>) {
    let client = draft.client();
    draft.set_backend(&client.destination, client.destination_port, &client.source, client.source_port);
    draft.deltas.set(A::deltas());
    draft.backend_slot.set(0);
    draft.backend_line.set(NOWHERE);
}
