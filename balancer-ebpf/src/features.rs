//! What the controller switches on or off when it loads the program: read-only data, so the verifier leaves out what is
//! off, and a kernel that lacks a helper never sees its call.
#![expect(
    unsafe_code,
    reason = "the loader finds the switches by their symbols, and writes them before the program runs"
)]

use core::ptr::read_volatile;

/// Whether there are IPv6 services; without, IPv6 passes.
#[unsafe(no_mangle)]
static IPV6: u8 = 1;

/// Whether frames may lie in several buffers (kernel 5.18).
#[unsafe(no_mangle)]
static FRAGS: u8 = 1;

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
