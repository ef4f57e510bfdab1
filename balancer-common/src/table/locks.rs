//! Locks of keys: two CPUs with the same new key must not insert it twice.

use super::Refused;

/// Locks: few enough to stay in a cache, enough for keys that are inserted at the same time to have different ones.
pub const LOCKS: u32 = 4096;

/// How often a lock is tried. Who has it needs less than a microsecond; but a virtual CPU may be taken away meanwhile.
pub const LOCK_TRIES: u32 = 128;

/// Locks for keys that are being inserted. Each has a sequence number, which is odd while somebody has the lock and another
/// one each time that it was given back: while it is the same, no key of this lock was inserted.
pub trait Locks {
    /// A lock's sequence number; acquires what was written before the lock was given back.
    fn sequence(&self, lock: u32) -> u32;

    /// Takes the lock, if it still has this sequence number, which is an even one.
    fn try_lock(&self, lock: u32, sequence: u32) -> bool;

    /// Gives the lock back that the caller has, after all that was written before.
    fn unlock(&self, lock: u32);
}

/// The bit of a sequence number that says that somebody has the lock.
pub const HELD: u32 = 1;

/// A sequence number with which no lock can be taken: for who hasn't looked for the key, and has to.
pub const NOT_LOOKED_FOR: u32 = HELD;

/// Takes a key's lock.
#[inline(always)]
pub fn lock(locks: &impl Locks, number: u32) -> Result<(), Refused> {
    for _ in 0..LOCK_TRIES {
        if lock_since(locks, number, locks.sequence(number)) {
            return Ok(());
        }
    }
    Err(Refused::Contended)
}

/// Takes a key's lock, if it had this sequence number ever since: who looked for the key after he had read it, and found
/// nothing, need not look again.
#[inline(always)]
pub fn lock_since(locks: &impl Locks, number: u32, sequence: u32) -> bool {
    sequence & HELD == 0 && locks.try_lock(number, sequence)
}
