//! What the controller switches on or off, and the numbers that it sets, when it loads the program: read-only data, so the verifier leaves out what is
//! off, and a kernel that lacks a helper never sees its call.
#![expect(
    unsafe_code,
    reason = "the loader finds the switches by their symbols, and writes them before the program runs"
)]

use core::ptr::read_volatile;

use balancer_common::abi::{SEED_WORDS, Seed};
use balancer_common::limits::JIFFIES_PER_TICK;

/// Whether there are IPv6 services; without, IPv6 passes.
#[unsafe(no_mangle)]
static IPV6: u8 = 1;

/// Whether frames may lie in several buffers (kernel 5.18).
#[unsafe(no_mangle)]
static FRAGS: u8 = 1;

/// Established flows that there may be, of each family.
#[unsafe(no_mangle)]
static MAX_FLOWS: u32 = 1;

/// Handshakes under way that there may be, of each family.
#[unsafe(no_mangle)]
static MAX_HALF_OPEN: u32 = 1;

/// How long a tick of the flows' clock is; what stands here is for a kernel that ticks 250 times a second.
#[unsafe(no_mangle)]
static TICK_NS: u64 = 4_000_000 * JIFFIES_PER_TICK;

/// What flows are hashed with; the same for as long as their tables live.
#[unsafe(no_mangle)]
static FLOW_SEED: Seed = Seed([0; SEED_WORDS]);

#[inline(always)]
pub(crate) fn seed() -> &'static Seed {
    let seed = &raw const FLOW_SEED;
    #[cfg(target_arch = "bpf")]
    let seed = {
        let mut hidden = seed;
        // SAFETY: no instruction. Hidden from the compiler, which would compute with the zeros that stand here.
        unsafe {
            core::arch::asm!("/* {} */", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags))
        };
        hidden
    };
    // SAFETY: always there, and never written while the program runs.
    unsafe { &*seed }
}

#[inline(always)]
pub(crate) fn max_flows() -> u32 {
    // SAFETY: a word that is always there; volatile, as its value isn't the one that the compiler sees.
    unsafe { read_volatile(&raw const MAX_FLOWS) }
}

#[inline(always)]
pub(crate) fn max_half_open() -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const MAX_HALF_OPEN) }
}

#[inline(always)]
pub(crate) fn tick_ns() -> u64 {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const TICK_NS) }
}

#[inline(always)]
pub(crate) fn ipv6() -> bool {
    // SAFETY: a byte that is always there; volatile, as its value isn't the one that the compiler sees.
    unsafe { read_volatile(&raw const IPV6) != 0 }
}

#[inline(always)]
pub(crate) fn frags() -> bool {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const FRAGS) != 0 }
}
