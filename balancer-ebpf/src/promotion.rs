//! From a handshake to an established flow: both lines move to the other table.
#![expect(unsafe_code, reason = "lines are written through the pointers that lookups return")]

use core::mem::offset_of;

use balancer_common::abi::{CarriedSoFar, Line};
use balancer_common::table::{self, Hash, Place};

use crate::clock::now;
use crate::direction::Direction;
use crate::family::Family;
use crate::flow_table::{Refused, begin, give_back, release_both};
use crate::memory::{Established, HalfOpen, Locked, Tier, compiler_barrier};
use crate::subprograms::Made;

/// Moves a flow whose client completed the handshake; returns its client's new line. `Taken`: another CPU was faster.
#[inline(always)]
pub(crate) fn promote<A: Family>(
    client: Direction<A, HalfOpen>,
    backend: Direction<A, HalfOpen>,
) -> Result<u32, Refused> {
    let (client, backend) = (client.place, backend.place);
    Made::from_word(A::promote(client.index, client.state.0, backend.index, backend.state.0))
}

/// [`Family::promote`].
#[inline(always)]
pub(crate) fn try_promote<A: Family>(
    client: Option<Direction<A, HalfOpen>>,
    backend: Option<Direction<A, HalfOpen>>,
) -> u64 {
    Made::to_word(match (client, backend) {
        (Some(client), Some(backend)) => promote_both(client, backend),
        _ => Err(Refused::Taken),
    })
}

#[inline(always)]
fn promote_both<A: Family>(
    client: Direction<A, HalfOpen>,
    backend: Direction<A, HalfOpen>,
) -> Result<u32, Refused> {
    // SAFETY: as in `Direction::recipe`. The line's key is read in place: the stack has no room for copies.
    let key = unsafe { &(*client.place.line).key };
    let hash = A::hash_of(key);
    let count = Established::count::<A>().ok_or(Refused::Full)?;
    let _locked = Locked::lock(hash)?;
    let is_there = || table::find(&Established::table::<A>(), hash, key).is_some();
    if !client.is_alive() || is_there() {
        return Err(Refused::Taken);
    }
    if !begin(count, Established::limit()) {
        return Err(Refused::Full);
    }
    match make_established(hash, client, backend) {
        Ok(line) => {
            release_both(Some(client), Some(backend));
            Ok(line)
        }
        Err(refused) => {
            give_back::<A, Established>();
            Err(refused)
        }
    }
}

/// Copies both sides to the established ones, the backend's first, and returns the client's line. The half-open ones may be
/// taken out meanwhile, by another CPU that needs their place; then nothing is made. The backend's side needs no lock of its
/// own: while its half-open line lives nobody else can claim its tuple, and whoever looks after that finds the established
/// one.
#[inline(always)]
fn make_established<A: Family>(
    hash: Hash,
    client: Direction<A, HalfOpen>,
    backend: Direction<A, HalfOpen>,
) -> Result<u32, Refused> {
    // SAFETY: as in `promote_both`.
    let backend_hash = A::hash_of(unsafe { &(*backend.place.line).key });
    // SAFETY: as in `promote_both`; aligned words.
    let (began, acknowledged) =
        unsafe { ((*client.opening()).began_or_acknowledged, (*backend.opening()).began_or_acknowledged) };
    let made = copy_to_established(backend_hash, backend, began, acknowledged, u32::MAX)?;
    let copied = if backend.is_alive() {
        copy_to_established(hash, client, began, 0, made.index)
    } else {
        Err(Refused::Taken)
    };
    match copied {
        Ok(place) => {
            if let Some(past) = Established::past::<A>(made.index) {
                // SAFETY: the past of the line that this CPU has made; an aligned word.
                unsafe { (*past).twin = place.index };
            }
            Ok(place.index)
        }
        Err(refused) => {
            Established::remove::<A>(made.index, made.state.0);
            Err(refused)
        }
    }
}

#[inline(always)]
fn copy_to_established<A: Family>(
    hash: Hash,
    from: Direction<A, HalfOpen>,
    began: u32,
    acknowledged: u32,
    twin: u32,
) -> Result<Place<*mut Line<A>>, Refused> {
    let table = Established::table::<A>();
    table::insert_if(&table, hash, (from.seen().0, now()), |line, index| {
        copy_recipe(from.place.line, line);
        // SAFETY: both lines and the past of the new one, which is this CPU's alone.
        unsafe {
            let opening = from.opening();
            let carried = CarriedSoFar((*opening).carried).carried();
            (*line).acknowledged = acknowledged;
            (*line).packets = carried.low;
            (*line).bytes = carried.high;
            if let Some(past) = Established::past::<A>(index) {
                (*past).began = began;
                (*past).twin = twin;
                (*past).first_sequence = (*opening).first_sequence;
                (*past).fin_end = 0;
                (*past).packets_at_reset = 0;
            }
        }
        compiler_barrier();
        from.is_alive()
    })
}

/// What both lines have in the same places, but for the state.
#[inline(always)]
fn copy_recipe<A: Family>(from: *const Line<A>, to: *mut Line<A>) {
    for word in 1..offset_of!(Line<A>, acknowledged) / size_of::<u64>() {
        // SAFETY: whole lines of maps, of aligned words.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile()) }
    }
}
