//! The flow table's longer steps as global functions, which the verifier walks once each, whoever calls them from wherever.
//! A function that isn't one it walks anew for every state in which it is called, and these are called in many, with loops
//! inside.
//!
//! What it asks for in return (kernel 5.12): integers and pointers to what has a fixed size go in, an integer comes out.
#![expect(
    unsafe_code,
    reason = "functions that the verifier finds by their symbols, and what their pointers lead to"
)]

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, FlowKey};
use balancer_common::table::{self, Hash, Refused};
use balancer_common::verdict::Verdict;

use crate::direction::Direction;
use crate::memory::{Established, HalfOpen, KeyLocks};
use crate::parse;
use crate::{draft, fetch, flow_table, promotion, room, trace, unknown};

/// A line's index on its way through a function that can only return integers: one more, and 0 for none.
#[derive(Clone, Copy)]
pub(crate) struct Index(pub(crate) u32);

impl Index {
    #[inline(always)]
    pub(crate) fn to_word(index: Option<u32>) -> u64 {
        index.map_or(0, |index| u64::from(index) + 1)
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self((word - 1) as u32)) }
    }
}

/// Where a tuple was met, on its way through a function that can only return integers.
#[derive(Clone, Copy)]
pub(crate) enum Met {
    Established(Index),
    HalfOpen(Index),
}

impl Met {
    const HALF_OPEN: u64 = 1 << 63;

    /// Of words of an [`Index`].
    #[inline(always)]
    pub(crate) fn to_word(half_open: u64, established: u64) -> u64 {
        if established == 0 && half_open != 0 { half_open | Self::HALF_OPEN } else { established }
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let index = Index::from_word(word & !Self::HALF_OPEN)?;
        Some(if word & Self::HALF_OPEN == 0 { Self::Established(index) } else { Self::HalfOpen(index) })
    }
}

/// In which line something was made, or why not, on its way through a function that can only return integers.
pub(crate) struct Made;

impl Made {
    const TAKEN: u32 = 1;
    const FULL: u32 = 2;
    const CONTENDED: u32 = 3;

    #[inline(always)]
    pub(crate) fn to_word(result: Result<u32, Refused>) -> u64 {
        let why = match result {
            Ok(index) => return index.into(),
            Err(Refused::Taken) => Self::TAKEN,
            Err(Refused::Full) => Self::FULL,
            Err(Refused::Contended) => Self::CONTENDED,
        };
        u64::from(why) << 32
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Result<u32, Refused> {
        match (word >> 32) as u32 {
            0 => Ok(word as u32),
            Self::TAKEN => Err(Refused::Taken),
            Self::FULL => Err(Refused::Full),
            _ => Err(Refused::Contended),
        }
    }
}

/// Takes one of the locks of keys; `false`: somebody else has it, for too long.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lock(number: u32) -> bool {
    table::lock(&KeyLocks, number).is_ok()
}

/// [`parse::is_wrong_sum`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn is_wrong_sum(ctx: *mut xdp_md, tcp_at: u32, words: u32, pseudo_header: u16) -> bool {
    parse::is_wrong_sum(&XdpContext::new(ctx), tcp_at, words, pseudo_header)
}

/// [`trace::came`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn trace_came(ctx: *mut xdp_md) -> bool {
    trace::came(&XdpContext::new(ctx));
    true
}

/// [`trace::went`], with a verdict's word.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn trace_went(ctx: *mut xdp_md, verdict: u64, action: u32) -> bool {
    if let Some(verdict) = Verdict::from_word(verdict) {
        trace::went(&XdpContext::new(ctx), verdict, action);
    }
    true
}

/// The functions of each family, told once: what they are called by, the names of both for the verifier, and what they do, with
/// `A` for the family's address.
macro_rules! subprograms {
    ($(
        $(#[$documentation:meta])*
        fn $name:ident as $four:ident, $six:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block
    )*) => {
        /// The functions of a family.
        pub(crate) trait Subprograms<A> {
            $(
                $(#[$documentation])*
                fn $name($($argument: $type),*) -> $result;
            )*
        }

        subprograms!(of Address4 in ipv4: $($name as $four($($argument: $type),*) -> $result $body)*);
        subprograms!(of Address6 in ipv6: $($name as $six($($argument: $type),*) -> $result $body)*);
    };
    (of $family:ident in $module:ident: $(
        $name:ident as $symbol:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block
    )*) => {
        mod $module {
            use super::*;

            type A = $family;

            $(
                #[inline(never)]
                #[unsafe(no_mangle)]
                extern "C" fn $symbol($($argument: $type),*) -> $result $body
            )*

            impl Subprograms<A> for A {
                $(
                    #[inline(always)]
                    fn $name($($argument: $type),*) -> $result {
                        $symbol($($argument),*)
                    }
                )*
            }
        }
    };
}

subprograms! {
    /// [`flow_table::met`].
    fn met as met_4, met_6(key: *const FlowKey<A>, hash: u64) -> u64 {
        // SAFETY: null, or a whole key, as the verifier makes sure.
        unsafe { key.as_ref() }.map_or(0, |key| flow_table::met_word(key, Hash::from_word(hash)))
    }

    /// The index of a tuple's line among flows whose handshake is complete, as an [`Index`]'s word.
    fn established_index as established_index_4, established_index_6(key: *const FlowKey<A>) -> u64 {
        // SAFETY: as above.
        let key = unsafe { key.as_ref() };
        Index::to_word(key.and_then(flow_table::index_of::<A, Established>))
    }

    /// The same among handshakes.
    fn half_open_index as half_open_index_4, half_open_index_6(key: *const FlowKey<A>) -> u64 {
        // SAFETY: as above.
        let key = unsafe { key.as_ref() };
        Index::to_word(key.and_then(flow_table::index_of::<A, HalfOpen>))
    }

    /// [`flow_table::release`].
    fn release_established as release_established_4, release_established_6(index: u32, state: u64) -> bool {
        Direction::<A, Established>::at(index, state).is_some_and(flow_table::release)
    }

    /// The same of a handshake.
    fn release_half_open as release_half_open_4, release_half_open_6(index: u32, state: u64) -> bool {
        Direction::<A, HalfOpen>::at(index, state).is_some_and(flow_table::release)
    }

    /// [`flow_table::try_remove`].
    fn remove_established as remove_established_4, remove_established_6(index: u32, state: u64) -> bool {
        Direction::<A, Established>::at(index, state).is_some_and(flow_table::try_remove)
    }

    /// The same of a handshake.
    fn remove_half_open as remove_half_open_4, remove_half_open_6(index: u32, state: u64) -> bool {
        Direction::<A, HalfOpen>::at(index, state).is_some_and(flow_table::try_remove)
    }

    /// [`draft::forget_oldest`].
    fn forget_oldest as forget_oldest_4, forget_oldest_6(window: u32) -> bool {
        draft::forget_oldest::<A>(window)
    }

    /// [`draft::closed`], as an [`Index`]'s word.
    fn closed as closed_4, closed_6() -> u64 {
        draft::closed_index::<A>()
    }

    /// [`room::is_over`].
    fn is_over as is_over_4, is_over_6(index: u32, state: u64) -> bool {
        Direction::<A, Established>::at(index, state).is_some_and(room::is_over)
    }

    /// [`room::make_room`].
    fn make_room as make_room_4, make_room_6(somewhere: u64, window: u32) -> bool {
        room::make_room::<A>(Hash::from_word(somewhere), window)
    }

    /// [`draft::deltas`].
    fn deltas as deltas_4, deltas_6() -> u32 {
        draft::deltas::<A>()
    }

    /// [`draft::save_options`].
    fn save_options as save_options_4, save_options_6(ctx: *mut xdp_md, at: u32, length: u32) -> bool {
        draft::save_options::<A>(&XdpContext::new(ctx), at, length);
        true
    }

    /// [`draft::claim`], as [`Made`]'s word.
    fn claim as claim_4, claim_6() -> u64 {
        draft::try_claim::<A>()
    }

    /// [`draft::complete`], as [`Made`]'s word.
    fn complete as complete_4, complete_6() -> u64 {
        draft::try_complete::<A>()
    }

    /// [`fetch::promotion`].
    fn fetch_promotion as fetch_promotion_4, fetch_promotion_6(client: u32) -> bool {
        fetch::promotion::<A>(client);
        true
    }

    /// [`promotion::promote`], as [`Made`]'s word.
    fn promote as promote_4, promote_6(client: u32, client_state: u64, backend: u32, backend_state: u64) -> u64 {
        promotion::try_promote::<A>(Direction::at(client, client_state), Direction::at(backend, backend_state))
    }

    /// [`unknown::try_make`].
    fn make as make_4, make_6() -> u64 {
        unknown::try_make::<A>()
    }
}
