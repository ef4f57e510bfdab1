//! Headers word by word.
//!
//! Frames begin at even addresses and IP addresses lie two bytes off a multiple of four, so to the compiler a word there is
//! two halves or four bytes. To the kernel it is a word: where the machine can't load such a one, drivers begin frames two
//! bytes later, and the verifier counts that in.
#![expect(unsafe_code, reason = "instructions that the compiler doesn't use by itself")]

#[cfg(target_arch = "bpf")]
use core::arch::asm;
use core::ptr::{from_mut, from_ref};

/// The word at this offset of a header, as it stands in memory.
#[inline(always)]
pub(crate) fn load<const OFFSET: usize, T>(header: &T) -> u32 {
    const { assert!(OFFSET + size_of::<u32>() <= size_of::<T>()) };
    let base = from_ref(header);
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: a load from within the header.
        unsafe {
            asm!(
                "{word} = *(u32 *)({base} + {offset})",
                word = out(reg) word,
                base = in(reg) base,
                offset = const OFFSET,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        word as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        base.cast::<u8>().add(OFFSET).cast::<u32>().read_unaligned()
    }
}

/// Stores a word at this offset of a header.
#[inline(always)]
pub(crate) fn store<const OFFSET: usize, T>(header: &mut T, word: u32) {
    const { assert!(OFFSET + size_of::<u32>() <= size_of::<T>()) };
    let base = from_mut(header);
    #[cfg(target_arch = "bpf")]
    // SAFETY: a store into the header.
    unsafe {
        asm!(
            "*(u32 *)({base} + {offset}) = {word}",
            word = in(reg) u64::from(word),
            base = in(reg) base,
            offset = const OFFSET,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        base.cast::<u8>().add(OFFSET).cast::<u32>().write_unaligned(word)
    }
}

/// An address that the kernel keeps in a word of this context: to the compiler a number, which it would do arithmetic of
/// 32 bits with; to the verifier a pointer, of which that makes a number.
#[inline(always)]
pub(crate) fn load_address<const OFFSET: usize, T>(context: &T) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let address: u64;
        // SAFETY: a load from within the context.
        unsafe {
            asm!(
                "{address} = *(u32 *)({base} + {offset})",
                address = out(reg) address,
                base = in(reg) from_ref(context),
                offset = const OFFSET,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        address as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        load::<OFFSET, T>(context) as usize
    }
}
