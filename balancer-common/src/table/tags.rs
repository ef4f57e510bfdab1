//! A bucket's tags: eight of sixteen bits, looked at four at a time by arithmetic.

use super::WAYS;

/// Four tags, each of them this one.
#[inline(always)]
pub(super) const fn repeated(tag: u16) -> u64 {
    tag as u64 * 0x0001_0001_0001_0001
}

/// The highest bit of each of four tags that is zero.
#[inline(always)]
pub(super) const fn zeros(tags: u64) -> u64 {
    const LOW: u64 = repeated(0x7fff);
    !((tags & LOW).wrapping_add(LOW) | tags | LOW)
}

/// Which of four tags the lowest of these bits is in.
#[inline(always)]
pub(super) const fn lowest(bits: u64) -> u32 {
    // One bit of four is left, at 0, 16, 32 or 48; the product has its number on top.
    let bit = (bits & bits.wrapping_neg()) >> 15;
    (bit.wrapping_mul(0x0000_0001_0002_0003) >> 48) as u32 & 3
}

/// Which line of a bucket has this tag: as a rule one or none does, of several the first.
#[inline(always)]
pub const fn way_of([low, high]: [u64; 2], tag: u16) -> Option<u32> {
    let tag = repeated(tag);
    let (low, high) = (zeros(low ^ tag), zeros(high ^ tag));
    if low != 0 {
        return Some(lowest(low));
    }
    if high != 0 { Some(WAYS / 2 + lowest(high)) } else { None }
}

/// How many of four bits of [`zeros`] are set.
#[inline(always)]
pub(super) const fn count(bits: u64) -> u32 {
    ((bits >> 15).wrapping_mul(repeated(1)) >> 48) as u32
}

/// The tag of one of a bucket's lines.
#[inline(always)]
pub(super) const fn tag_of([low, high]: [u64; 2], way: u32) -> u16 {
    let tags = if way < WAYS / 2 { low } else { high };
    (tags >> (16 * (way % (WAYS / 2)))) as u16
}

/// How many lines of a bucket have no tag.
#[inline(always)]
pub(super) const fn free_in([low, high]: [u64; 2]) -> u32 {
    count(zeros(low)) + count(zeros(high))
}
