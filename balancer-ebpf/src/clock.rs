//! The time of flows: the kernel's jiffies, which cost a load, in units that 32 bits have room for.
#![expect(unsafe_code, reason = "helpers that take nothing and return an integer, and a word of a map")]

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use balancer_common::abi::Clock;
use balancer_common::limits::JIFFIES_PER_TICK;

use crate::features;
use crate::maps::CLOCK;

/// Ticks: of the kernel's jiffies, whose beginning is its own business.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: takes nothing, returns an integer (kernel 5.6).
    (unsafe { bpf_jiffies64() } / JIFFIES_PER_TICK) as u32
}

/// So much time in ticks.
#[inline(always)]
pub(crate) fn ticks(ns: u64) -> u32 {
    (ns / features::tick_ns().max(1)) as u32
}

/// The least ticks that are so much time, but for the one that has begun.
#[inline(always)]
pub(crate) fn ticks_up(ns: u64) -> u32 {
    ticks(ns + features::tick_ns() - 1)
}

/// Writes down both clocks' time, for the controller.
#[inline(always)]
pub(crate) fn tell() {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: the map's only element, which is written when the controller asks for it.
        unsafe { clock.write(Clock { jiffies: bpf_jiffies64(), monotonic_ns: bpf_ktime_get_ns() }) }
    }
}
