//! Tags, looked at eight at a time by arithmetic.

/// Eight tags, each of them this one.
#[inline(always)]
pub(super) const fn repeated(tag: u8) -> u64 {
    tag as u64 * 0x0101_0101_0101_0101
}

/// The highest bit of each of eight tags that is zero.
#[inline(always)]
pub(super) const fn zeros(tags: u64) -> u64 {
    const LOW: u64 = repeated(0x7f);
    !((tags & LOW).wrapping_add(LOW) | tags | LOW)
}

/// Of words of eight tags, one over the other: whether a tag is zero in any of them, see [`has_zero`].
#[inline(always)]
pub(super) const fn below_zero(tags: u64) -> u64 {
    tags.wrapping_sub(repeated(1)) & !tags
}

/// Whether one of the tags is zero whose [`below_zero`] this is.
#[inline(always)]
pub(super) const fn has_zero(below: u64) -> bool {
    below & repeated(0x80) != 0
}

/// Which of eight tags the lowest of these bits is in.
#[inline(always)]
pub(super) const fn lowest(bits: u64) -> u32 {
    // One bit of eight is left, at a multiple of 8; the product has its number on top.
    let bit = (bits & bits.wrapping_neg()) >> 7;
    (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32 & 7
}

/// The first of a word's eight lines that has this tag.
#[inline(always)]
pub const fn first_with(tags: u64, tag: u8) -> Option<u32> {
    let matches = zeros(tags ^ repeated(tag));
    if matches == 0 { None } else { Some(lowest(matches)) }
}
