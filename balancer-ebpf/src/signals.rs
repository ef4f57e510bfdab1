//! What clients' own connection attempts say about their backends: counters, and failures that the controller is told of
//! at once. Told of one backend are a few in a moment, so a flood of SYNs floods nobody; counted are all.
#![expect(unsafe_code, reason = "per-CPU elements and shared words are written in place")]

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use balancer_common::abi::{Failure, FlowKey, Signals};
use balancer_common::limits::{FAILURE_MOMENT_NS, FAILURES_PER_MOMENT};

use crate::family::Family;
use crate::maps::{FAILURES, SIGNALS, WATCHES};

/// How a backend refuses an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Why {
    Refused = Failure::REFUSED,
    Unreachable = Failure::UNREACHABLE,
}

/// A new flow's SYN was sent.
#[inline(always)]
pub(crate) fn syn_sent(backend: u16) {
    count(backend, |signals| signals.syns += 1);
}

/// The first answer to a flow's SYN came, perhaps after other backends had not taken it.
#[inline(always)]
pub(crate) fn answered(backend: u16, is_rescue: bool) {
    count(backend, |signals| {
        signals.syn_acks += 1;
        signals.rescued += u64::from(is_rescue);
    });
    if let Some(watch) = WATCHES.get_ptr_mut(u32::from(backend)) {
        // SAFETY: an aligned word of the map. The helper takes nothing and returns an integer (kernel 5.6).
        unsafe { (&raw mut (*watch).answered).write_volatile(bpf_jiffies64()) }
    }
}

/// An attempt went on to another backend, as this one refused it.
#[inline(always)]
pub(crate) fn went_on_refused(backend: u16) {
    count(backend, |signals| signals.retried_refused += 1);
}

/// An attempt went on to another backend, as this one said nothing.
#[inline(always)]
pub(crate) fn went_on_unanswered(backend: u16) {
    count(backend, |signals| signals.retried_unanswered += 1);
}

/// A client repeated its SYN, to which nothing had come for too long. Counted, and not told: only the controller, which
/// looks for such clients itself, knows whether it was a SYN that deserves an answer.
#[inline(always)]
pub(crate) fn unanswered(backend: u16) {
    count(backend, |signals| signals.unanswered += 1);
}

/// A backend refused an attempt of the client with this tuple.
#[inline(always)]
pub(crate) fn failed<A: Family>(client: &FlowKey<A>, service: u16, backend: u16, why: Why) {
    count(backend, |signals| match why {
        Why::Refused => signals.refused += 1,
        Why::Unreachable => signals.unreachable += 1,
    });
    tell(client.number(), service, backend, why);
}

/// A subprogram, as it is much to have in several places.
#[inline(never)]
fn tell(flow: u64, service: u16, backend: u16, why: Why) {
    let Some(watch) = WATCHES.get_ptr_mut(u32::from(backend)) else { return };
    // SAFETY: takes nothing, returns an integer (kernel 5.11).
    let moment = unsafe { bpf_ktime_get_coarse_ns() } / FAILURE_MOMENT_NS;
    // SAFETY: aligned words of the map. Two CPUs at once may tell one more, or count one less.
    unsafe {
        if (*watch).moment != moment {
            (*watch).moment = moment;
            (*watch).told = 0;
        }
        if (*watch).told >= FAILURES_PER_MOMENT {
            return;
        }
        (*watch).told += 1;
    }
    match FAILURES.reserve_untyped::<Failure>(0) {
        Some(mut entry) => {
            entry.write(Failure { flow, what: why as u32, service, backend });
            entry.submit(0);
        }
        // SAFETY: as above.
        None => unsafe { (*watch).lost += 1 },
    }
}

#[inline(always)]
fn count(backend: u16, add: impl Fn(&mut Signals)) {
    if let Some(signals) = SIGNALS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
        add(unsafe { &mut *signals });
    }
}
