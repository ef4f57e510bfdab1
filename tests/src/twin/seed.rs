//! Randomness that a number repeats exactly: splitmix64, which needs no more state than the number.

/// A source of choices; the same seed makes the same ones.
#[derive(Debug, Clone)]
pub(super) struct Seed(u64);

impl Seed {
    /// The choices of one of many under a common seed.
    pub(super) fn of(seed: u64, index: u64) -> Self {
        let mut mixed = Self(seed);
        Self(mixed.word() ^ index)
    }

    /// Any number.
    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Any byte.
    pub(super) fn byte(&mut self) -> u8 {
        self.word() as u8
    }

    /// Any two bytes.
    pub(super) fn short(&mut self) -> u16 {
        self.word() as u16
    }

    /// Any four bytes.
    pub(super) fn long(&mut self) -> u32 {
        self.word() as u32
    }

    /// Less than `limit`, which isn't 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit as u64) as usize
    }

    /// True once in so many times.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(super) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// So many of any bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}
