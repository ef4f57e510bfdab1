//! Counters, one set a CPU: nothing here is shared, so nothing waits.
#![expect(unsafe_code, reason = "per-CPU elements are written in place")]

use balancer_common::abi::{FlowEntry, Traffic};
use balancer_common::verdict::Reason;

use crate::maps::{BACKEND_TRAFFIC, DROPS, SERVICE_TRAFFIC};

/// A packet of a service was dropped.
#[inline(always)]
pub(crate) fn dropped(reason: Reason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
        unsafe { *count += 1 }
    }
}

/// A packet was forwarded.
#[inline(always)]
pub(crate) fn forwarded(entry: &FlowEntry, bytes: u64) {
    for_both(entry, |traffic| {
        traffic.packets += 1;
        traffic.bytes += bytes;
    });
}

/// A handshake was completed.
#[inline(always)]
pub(crate) fn new_flow(entry: &FlowEntry) {
    for_both(entry, |traffic| traffic.new_flows += 1);
}

#[inline(always)]
fn for_both(entry: &FlowEntry, add: impl Fn(&mut Traffic)) {
    if let Some(traffic) = SERVICE_TRAFFIC.get_ptr_mut(u32::from(entry.service)) {
        // SAFETY: as in `dropped`.
        add(unsafe { &mut *traffic });
    }
    if let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(u32::from(entry.backend)) {
        // SAFETY: as in `dropped`.
        add(unsafe { &mut *traffic });
    }
}
