//! Room in a full table of established flows: one that is over, and only kept for its last retransmissions, goes before its
//! time.
//!
//! As a rule the controller has taken such flows out long before. While there is none, or where more connections end than
//! there is room for, a gateway would otherwise refuse new ones for the sake of those that nobody wants any more.
//! Deliberately absent: the choice among flows that live, of which none ever makes room.

use balancer_common::flow::{Seen, Stage};
use balancer_common::limits::{CHALLENGE_NS, HALF_CLOSED_IDLE_NS, ROOM_TRIES};
use balancer_common::table::{self, Hash, State, WINDOWS};

use crate::clock::{now, ticks};
use crate::direction::Direction;
use crate::family::Family;
use crate::memory::{Established, Tier as _};
use crate::report;
use crate::unknown::random;

/// Forgets a flow that is over, if one of some places chosen by chance has one, and this CPU hasn't looked too often.
#[inline(always)]
pub(crate) fn was_made<A: Family>() -> bool {
    if !report::may_search() {
        return false;
    }
    let mut somewhere = 0;
    for attempt in 0..ROOM_TRIES {
        let window = attempt % WINDOWS;
        if window == 0 {
            somewhere = u64::from(random()) << 32 | u64::from(random());
        }
        if A::make_room(somewhere, window) {
            return true;
        }
    }
    false
}

/// [`Family::make_room`], in one of those places.
#[inline(always)]
pub(crate) fn make_room<A: Family>(somewhere: Hash, window: u32) -> bool {
    let may_be_over = |state: State| Seen(state.marks()).may_end();
    match table::oldest(&Established::table::<A>(), somewhere, window, now(), may_be_over) {
        Some(place) if A::is_over(place.index, place.state.0) => {
            A::release_established(place.index, place.state.0)
        }
        _ => false,
    }
}

/// [`Family::is_over`]; what was read is this flow's if it is still there after that.
#[inline(always)]
pub(crate) fn is_over<A: Family>(direction: Direction<A, Established>) -> bool {
    let Some(twin) = direction.twin() else { return false };
    let (Some(one), Some(other)) = (direction.progress(), twin.progress()) else { return false };
    let least_silence = match Stage::of(&one, &other) {
        Stage::Established => return false,
        Stage::HalfClosed => HALF_CLOSED_IDLE_NS,
        // Who doesn't believe it has a moment to say so.
        Stage::Closed if one.seen.has(Seen::RST) || other.seen.has(Seen::RST) => CHALLENGE_NS,
        Stage::Closed => return direction.is_alive(),
    };
    let now = now();
    direction.silent(now).min(twin.silent(now)) > ticks(least_silence) && direction.is_alive()
}
