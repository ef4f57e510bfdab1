//! Counters, one set a CPU: nothing here is shared, so nothing waits.
#![expect(
    unsafe_code,
    reason = "per-CPU elements are written in place, and a helper that returns an integer"
)]

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use balancer_common::abi::{Budget, Tally, Traffic};
use balancer_common::limits::{ANSWER_MOMENT_NS, ANSWERS_PER_MOMENT, SEARCHES_PER_MOMENT};
use balancer_common::verdict::Reason;

use crate::maps::{ANSWERS, BACKEND_TRAFFIC, REASONS, SEARCHES, SERVICE_TRAFFIC};

/// A packet of a service was dropped.
#[inline(always)]
pub(crate) fn dropped(reason: Reason) {
    tally(reason, |tally| tally.dropped += 1);
}

/// A packet of a service was sent back as an answer.
#[inline(always)]
pub(crate) fn answered(reason: Reason) {
    tally(reason, |tally| tally.answered += 1);
}

/// A packet that isn't for a service passes, and is worth a number.
#[inline(always)]
pub(crate) fn passed(reason: Reason) {
    tally(reason, |tally| tally.passed += 1);
}

#[inline(always)]
fn tally(reason: Reason, add: impl Fn(&mut Tally)) {
    if let Some(tally) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
        add(unsafe { &mut *tally });
    }
}

/// Whether one more answer may be sent now.
#[inline(always)]
pub(crate) fn may_answer() -> bool {
    has_left(ANSWERS.get_ptr_mut(0), ANSWERS_PER_MOMENT)
}

/// Whether one more search for room may be made now.
#[inline(always)]
pub(crate) fn may_search() -> bool {
    has_left(SEARCHES.get_ptr_mut(0), SEARCHES_PER_MOMENT)
}

/// Whether there is some left of this budget, of which one is spent.
#[inline(always)]
fn has_left(budget: Option<*mut Budget>, most: u64) -> bool {
    let Some(budget) = budget else { return false };
    // SAFETY: as in `tally`.
    let budget = unsafe { &mut *budget };
    // SAFETY: takes nothing, returns an integer (kernel 5.11).
    let moment = unsafe { bpf_ktime_get_coarse_ns() } / ANSWER_MOMENT_NS;
    if budget.moment != moment {
        budget.moment = moment;
        budget.spent = 0;
    }
    budget.spent += 1;
    budget.spent <= most
}

/// A packet was forwarded.
#[inline(always)]
pub(crate) fn forwarded(service: u16, backend: u16, bytes: u64) {
    for_both(service, backend, |traffic| {
        traffic.packets += 1;
        traffic.bytes += bytes;
    });
}

/// A handshake was completed.
#[inline(always)]
pub(crate) fn new_flow(service: u16, backend: u16) {
    for_both(service, backend, |traffic| traffic.new_flows += 1);
}

#[inline(always)]
fn for_both(service: u16, backend: u16, add: impl Fn(&mut Traffic)) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(u32::from(service)) {
        // SAFETY: as in `tally`.
        add(unsafe { &mut *traffic });
    }
    if let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(u32::from(backend)) {
        // SAFETY: as in `tally`.
        add(unsafe { &mut *traffic });
    }
}
