//! From a handshake to an established flow: both lines move to the other table.
#![expect(unsafe_code, reason = "lines are written through the pointers that lookups return")]

use balancer_common::abi::Line;
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
    let made = copy_to_established(backend_hash, backend, u32::MAX)?;
    let copied =
        if backend.is_alive() { copy_to_established(hash, client, made.index) } else { Err(Refused::Taken) };
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
    twin: u32,
) -> Result<Place<*mut Line<A>>, Refused> {
    let table = Established::table::<A>();
    table::insert_if(&table, hash, (from.seen().0, now()), |line, index| {
        copy_line(from.place.line, line);
        if let (Some(old), Some(new)) = (from.past(), Established::past::<A>(index)) {
            // SAFETY: the pasts of both lines, of which the new one is this CPU's alone.
            unsafe {
                (*new).began = (*old).began;
                (*new).twin = twin;
                (*new).first_sequence = (*old).first_sequence;
                (*new).fin_end = 0;
                (*new).packets_at_reset = 0;
            }
        }
        compiler_barrier();
        from.is_alive()
    })
}

/// All words but the state.
#[inline(always)]
fn copy_line<A: Family>(from: *const Line<A>, to: *mut Line<A>) {
    for word in 1..size_of::<Line<A>>() / size_of::<u64>() {
        // SAFETY: whole lines of maps, of aligned words.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile()) }
    }
}
