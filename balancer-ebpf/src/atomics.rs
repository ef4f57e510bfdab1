//! Compare-and-swap and fetch-and-add on words of maps (kernel 5.12), which the compiler doesn't offer for this target:
//! it knows of an instruction set without them. The instructions are the same in every one.
//!
//! On the host, where this crate is only checked, they are the host's.
#![expect(unsafe_code, reason = "instructions that the compiler doesn't know")]

#[cfg(target_arch = "bpf")]
use core::arch::asm;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

/// Stores `new` if the word is `old`; returns what it was. A full barrier.
///
/// # Safety
/// `at` points to an aligned word of a map.
#[inline(always)]
pub(crate) unsafe fn compare_exchange(at: *mut u64, old: u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let seen;
        // SAFETY: the caller's word; the instruction compares with r0 and leaves there what it saw.
        unsafe {
            asm!(
                ".byte 0xdb, 0x21, 0, 0, 0xf1, 0, 0, 0", // r0 = cmpxchg_64(r1 + 0, r0, r2)
                in("r1") at,
                inout("r0") old => seen,
                in("r2") new,
                options(nostack),
            );
        }
        seen
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's word.
    match unsafe { AtomicU64::from_ptr(at) }.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(seen) | Err(seen) => seen,
    }
}

/// Adds to the word; returns what it was. A full barrier.
///
/// # Safety
/// As [`compare_exchange`].
#[inline(always)]
pub(crate) unsafe fn fetch_add(at: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let seen;
        // SAFETY: the caller's word; the instruction adds r2 and leaves there what it saw.
        unsafe {
            asm!(
                ".byte 0xdb, 0x21, 0, 0, 0x01, 0, 0, 0", // r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)
                in("r1") at,
                inout("r2") value => seen,
                options(nostack),
            );
        }
        seen
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's word.
    unsafe { AtomicU64::from_ptr(at) }.fetch_add(value, Ordering::SeqCst)
}
