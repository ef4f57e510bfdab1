//! Internet checksums by difference (RFC 1624): what a rewrite adds to a checksum depends only on the words that
//! change, so a flow computes it once.
//!
//! Words are taken in the byte order of the machine on both sides of every sum, which one's complement arithmetic
//! allows (RFC 1071, section 2 B); no value here is a number on the wire.

/// Adds up 16-bit words that change: each old one leaves, each new one comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u32);

impl Delta {
    /// Nothing changes.
    pub const NONE: Self = Self(0);

    /// One 16-bit word changes.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u32 + new as u32)
    }

    /// Two neighbouring words change.
    #[inline(always)]
    #[must_use]
    pub const fn long(self, old: u32, new: u32) -> Self {
        self.word(old as u16, new as u16).word((old >> 16) as u16, (new >> 16) as u16)
    }

    /// And these words too.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The TTL goes down by one; it is the first byte of its word.
    #[inline(always)]
    #[must_use]
    pub const fn ttl_decremented(self) -> Self {
        Self(self.0 + !u16::from_ne_bytes([1, 0]) as u32)
    }

    /// The sum as one word, as flows keep it.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        // Nothing changes more than 64 words, each by less than 0x20000: the first fold leaves at most 0x1007f, so two
        // always suffice.
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }
}

/// Adds up the words of a header that is made from scratch.
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Sum {
    /// On top of a sum that need not be folded.
    #[inline(always)]
    pub const fn from(sum: u32) -> Self {
        Self(sum as u64)
    }

    /// A 16-bit word as it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// A number, as the wire has it.
    #[inline(always)]
    #[must_use]
    pub const fn number(self, number: u16) -> Self {
        self.word(number.to_be())
    }

    /// And what another sum has.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum as one word.
    #[inline(always)]
    pub const fn folded(self) -> [u8; 2] {
        // Less than 2^16 words of 32 bits were added: two folds leave 17 bits, the third one 16.
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let twice = (once & 0xffff) + ((once >> 16) & 0xffff) + (once >> 32);
        let thrice = (twice & 0xffff) + (twice >> 16);
        (((thrice & 0xffff) + (thrice >> 16)) as u16).to_ne_bytes()
    }

    /// The checksum: the sum's complement.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }
}

/// The checksum field after a change that adds up to `delta`: RFC 1624, equation 3. A field that a sender computed
/// (never 0xffff, as no sum is zero) becomes what that sender would have computed for the changed packet.
#[inline(always)]
pub const fn apply(field: [u8; 2], delta: u16) -> [u8; 2] {
    apply_word(u16::from_ne_bytes(field), delta).to_ne_bytes()
}

/// The same for a field that is there as a word.
#[inline(always)]
pub const fn apply_word(field: u16, delta: u16) -> u16 {
    let sum = !field as u32 + delta as u32;
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The definition: one's complement of the one's complement sum of all words.
    fn from_scratch(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u64 = bytes
            .chunks(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_delta_equals_a_sum_from_scratch(
            mut bytes in prop::collection::vec(any::<u8>(), 20..64),
            new in any::<[u8; 4]>(),
            at in 0_usize..8,
        ) {
            // A header is never all zero: its first byte is the version.
            bytes[19] |= 1;
            let before = from_scratch(&bytes);
            let at = at * 2;
            let old = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            let word = |bytes: [u8; 4], at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            let delta = Delta::NONE.word(word(old, 0), word(new, 0)).word(word(old, 2), word(new, 2)).folded();
            bytes[at..at + 4].copy_from_slice(&new);
            bytes[19] |= 1;
            prop_assert_eq!(apply(before, delta), from_scratch(&bytes));
        }

        #[test]
        fn a_header_from_scratch_sums_as_the_definition_says(bytes in any::<[u8; 40]>(), start in any::<u32>()) {
            let all = [&start.to_ne_bytes()[..], &bytes[..]].concat();
            let sum = bytes.as_chunks::<2>().0.iter().fold(Sum::from(start), |sum, word| {
                sum.word(u16::from_ne_bytes(*word))
            });
            prop_assert_eq!(sum.checksum(), from_scratch(&all));
        }

        #[test]
        fn a_lower_ttl_equals_a_sum_from_scratch(mut bytes in any::<[u8; 20]>(), ttl in 1_u8..) {
            bytes[0] = 0x45;
            bytes[8] = ttl;
            bytes[10] = 0;
            bytes[11] = 0;
            let before = from_scratch(&bytes);
            bytes[8] -= 1;
            prop_assert_eq!(apply(before, Delta::NONE.ttl_decremented().folded()), from_scratch(&bytes));
        }
    }

    #[test]
    fn the_corner_where_naive_subtraction_fails() {
        // RFC 1624, section 4: checksum 0xdd2f, word 0x5555 becomes 0x3285; equation 2 gives 0xffff, the truth is 0.
        let delta =
            Delta::NONE.word(u16::from_ne_bytes([0x55, 0x55]), u16::from_ne_bytes([0x32, 0x85])).folded();
        assert_eq!(apply([0xdd, 0x2f], delta), [0x00, 0x00]);
    }

    #[test]
    fn every_field_survives_no_change() {
        let fields: Vec<u16> = (0..0xffff).collect();
        for field in fields {
            let same = Delta::NONE.word(0x1234, 0x1234).folded();
            assert_eq!(apply(field.to_ne_bytes(), same), field.to_ne_bytes());
        }
    }
}
