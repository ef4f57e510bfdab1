//! Fields of frames and headers as the words that they are to the kernel.
//!
//! Frames begin at even addresses and IP addresses lie two bytes off a multiple of four, so to the compiler a word there is
//! two halves or four bytes. To the kernel it is a word: where the machine can't load such a one, drivers begin frames two
//! bytes later, and the verifier counts that in.
#![expect(unsafe_code, reason = "instructions that the compiler doesn't use by itself")]

use core::ptr::{from_mut, from_ref};

/// The unsigned integer that stands so many bytes behind a pointer. Unsafe: it has to be there; whether it is aligned, the
/// verifier asks where it matters.
macro_rules! load_from {
    ($integer:ident, $base:expr, $offset:expr) => {{
        let base: *const u8 = $base.cast();
        #[cfg(target_arch = "bpf")]
        {
            let value: u64;
            core::arch::asm!(
                concat!("{value} = *(", stringify!($integer), " *)({base} + {offset})"),
                value = out(reg) value,
                base = in(reg) base,
                offset = const $offset,
                options(pure, readonly, nostack, preserves_flags),
            );
            // The compiler doesn't know what the instruction does, and would make sure of it with two more.
            core::hint::assert_unchecked(value <= <$integer>::MAX as u64);
            value as $integer
        }
        #[cfg(not(target_arch = "bpf"))]
        base.add($offset).cast::<$integer>().read_unaligned()
    }};
}

/// Stores an unsigned integer so many bytes behind a pointer. Unsafe: they have to be there.
macro_rules! store_to {
    ($integer:ident, $base:expr, $offset:expr, $value:expr) => {{
        let (base, value): (*mut u8, $integer) = ($base.cast(), $value);
        #[cfg(target_arch = "bpf")]
        core::arch::asm!(
            concat!("*(", stringify!($integer), " *)({base} + {offset}) = {value}"),
            value = in(reg) value as u64,
            base = in(reg) base,
            offset = const $offset,
            options(nostack, preserves_flags),
        );
        #[cfg(not(target_arch = "bpf"))]
        base.add($offset).cast::<$integer>().write_unaligned(value);
    }};
}

pub(crate) use {load_from, store_to};

/// The word at this offset of a header, as it stands in memory.
#[inline(always)]
pub(crate) fn load<const OFFSET: usize, T>(header: &T) -> u32 {
    const { assert!(OFFSET + size_of::<u32>() <= size_of::<T>()) };
    // SAFETY: within the header.
    unsafe { load_from!(u32, from_ref(header), OFFSET) }
}

/// Stores a word at this offset of a header.
#[inline(always)]
pub(crate) fn store<const OFFSET: usize, T>(header: &mut T, word: u32) {
    const { assert!(OFFSET + size_of::<u32>() <= size_of::<T>()) };
    // SAFETY: within the header.
    unsafe { store_to!(u32, from_mut(header), OFFSET, word) }
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
            core::arch::asm!(
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
