//! A key's hash: which bucket the key may be in and where, what stands for it in the tags, and which lock it has.

use super::{LOCKS, WAYS};
use crate::abi::{FlowKey, Seed, WireAddress};

/// A key's hash, the same in all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    /// What [`Hash::to_word`] returned.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// On its way through a function that only takes integers.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Of a key. Multilinear: who doesn't know the seed can't find keys that come to the same sum more often than by
    /// chance; the multiplication behind it scatters what is left of order between keys.
    #[inline(always)]
    pub fn of<A: WireAddress>(key: &FlowKey<A>, seed: &Seed) -> Self {
        Self::new(
            seed,
            key.source.hashed(seed, 1).wrapping_add(key.destination.hashed(seed, 1 + A::WORDS)),
            2 * A::WORDS,
            key.ports(),
        )
    }

    #[inline(always)]
    fn new(seed: &Seed, addresses: u64, words: usize, ports: u32) -> Self {
        let ports = seed.0[1 + words].wrapping_mul(u64::from(ports));
        let sum = seed.0[0].wrapping_add(addresses).wrapping_add(ports);
        let scattered = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(scattered ^ scattered >> 32)
    }

    /// The bucket of so many in which the key may be.
    #[inline(always)]
    pub const fn bucket(self, buckets: u32) -> u32 {
        (((self.0 >> 32) * buckets as u64) >> 32) as u32
    }

    /// What stands for the key in its bucket's tags; never 0, which stands for no key. Of other bits than the bucket.
    #[inline(always)]
    pub const fn tag(self) -> u8 {
        let tag = (self.0 >> 8) as u8;
        if tag == 0 { 1 } else { tag }
    }

    /// Which line of its bucket the key would rather have: most have it.
    #[inline(always)]
    pub const fn way(self) -> u32 {
        self.0 as u32 % WAYS
    }

    /// Which lock the key has.
    #[inline(always)]
    pub const fn lock(self) -> u32 {
        (self.0 >> 20) as u32 % LOCKS
    }
}
