//! Addresses in packets, half word by half word.
//!
//! Frames begin at even addresses and headers have their addresses at even places.
#![expect(unsafe_code, reason = "bytes that lie at even addresses are read and written in half words")]

use core::ptr::{from_mut, from_ref};

#[inline(always)]
pub(crate) fn load<const BYTES: usize, const HALVES: usize>(bytes: &[u8; BYTES]) -> [u16; HALVES] {
    const { assert!(BYTES == 2 * HALVES) };
    // SAFETY: as many bytes; aligned, see above.
    unsafe { from_ref(bytes).cast::<[u16; HALVES]>().read() }
}

#[inline(always)]
pub(crate) fn store<const BYTES: usize, const HALVES: usize>(bytes: &mut [u8; BYTES], halves: [u16; HALVES]) {
    const { assert!(BYTES == 2 * HALVES) };
    // SAFETY: as in `load`.
    unsafe { from_mut(bytes).cast::<[u16; HALVES]>().write(halves) }
}

/// A hardware address. Volatile, because the compiler makes a call of memmove out of six bytes, which goes byte by byte.
#[inline(always)]
pub(crate) fn store_mac(bytes: &mut [u8; 6], halves: [u16; 3]) {
    let first = from_mut(bytes).cast::<u16>();
    for (half, value) in halves.into_iter().enumerate() {
        // SAFETY: within `bytes`; aligned, see above.
        unsafe { first.add(half).write_volatile(value) }
    }
}
