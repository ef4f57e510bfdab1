//! A line's state word: what the line is, in which life, and when its flow had its last packet.

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody's.
    Free,
    /// The packet path fills or empties it.
    Claimed,
    /// A direction of a flow.
    Live,
    /// The controller empties it.
    Leaving,
}

/// A line's state word. The lower half: what it is (2 bits), marks of its user (6 bits), and how often it was published (24
/// bits); the upper half: when its flow had its last packet, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    const KIND: u64 = 0b11;
    const MARKS: u64 = 0b1111_1100;
    const LIFE: u64 = 0xffff_ff00;

    /// What the line is.
    #[inline(always)]
    pub const fn kind(self) -> Kind {
        match self.0 & Self::KIND {
            0 => Kind::Free,
            1 => Kind::Claimed,
            2 => Kind::Live,
            _ => Kind::Leaving,
        }
    }

    #[inline(always)]
    pub(super) const fn with_kind(self, kind: Kind) -> Self {
        let kind = match kind {
            Kind::Free => 0,
            Kind::Claimed => 1,
            Kind::Live => 2,
            Kind::Leaving => 3,
        };
        Self(self.0 & !Self::KIND | kind)
    }

    /// The user's marks, six bits.
    #[inline(always)]
    pub const fn marks(self) -> u8 {
        ((self.0 & Self::MARKS) >> 2) as u8
    }

    /// With these marks besides.
    #[inline(always)]
    #[must_use]
    pub const fn marked(self, marks: u8) -> Self {
        Self(self.0 | (marks as u64) << 2 & Self::MARKS)
    }

    /// When the last packet came.
    #[inline(always)]
    pub const fn last_seen(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// For how long no packet has come, in ticks. Other CPUs may have read a later time than this `now` and stored it
    /// already: that is no time at all, not the longest.
    #[inline(always)]
    pub const fn silent(self, now: u32) -> u32 {
        since(self.last_seen(), now)
    }

    /// The next life of a claimed line: live, with nothing but these marks.
    #[inline(always)]
    #[must_use]
    pub const fn born(self, marks: u8, now: u32) -> Self {
        let generation = (self.0 & Self::LIFE).wrapping_add(0x100) & Self::LIFE;
        Self(generation | (now as u64) << 32).with_kind(Kind::Live).marked(marks)
    }

    /// The same without marks and time.
    #[inline(always)]
    #[must_use]
    pub const fn freed(self) -> Self {
        Self(self.0 & Self::LIFE)
    }

    /// Whether both are of the same life of the line: live, and published by the same call.
    #[inline(always)]
    pub const fn is_same_life(self, other: Self) -> bool {
        const MASK: u64 = State::LIFE | State::KIND;
        self.0 & MASK == other.0 & MASK && matches!(self.kind(), Kind::Live)
    }
}

/// How far one CPU's time can be ahead of another's, in ticks: 16 s at least, and a virtual CPU that is away for longer than
/// that has worse troubles.
const AHEAD: u32 = 1000;

/// How many ticks ago that was. What another CPU, whose clock is ahead, has written down later than `now` is no time ago.
#[inline(always)]
pub const fn since(tick: u32, now: u32) -> u32 {
    let since = now.wrapping_sub(tick);
    if since > u32::MAX - AHEAD { 0 } else { since }
}
