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

/// The functions of a family.
macro_rules! subprograms {
    ($family:ty, $met:ident, $established_index:ident, $half_open_index:ident, $release_established:ident, $release_half_open:ident,
     $remove_established:ident, $remove_half_open:ident,
     $forget_oldest:ident, $closed:ident, $is_over:ident, $make_room:ident, $deltas:ident, $save_options:ident, $fetch_opening:ident, $claim:ident, $complete:ident, $fetch_promotion:ident, $promote:ident, $make:ident) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $met(key: *const FlowKey<$family>, hash: u64) -> u64 {
            // SAFETY: null, or a whole key, as the verifier makes sure.
            unsafe { key.as_ref() }.map_or(0, |key| flow_table::met_word(key, Hash::from_word(hash)))
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $established_index(key: *const FlowKey<$family>) -> u64 {
            // SAFETY: as above.
            let key = unsafe { key.as_ref() };
            Index::to_word(key.and_then(flow_table::index_of::<$family, Established>))
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $half_open_index(key: *const FlowKey<$family>) -> u64 {
            // SAFETY: as above.
            let key = unsafe { key.as_ref() };
            Index::to_word(key.and_then(flow_table::index_of::<$family, HalfOpen>))
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $release_established(index: u32, state: u64) -> bool {
            Direction::<$family, Established>::at(index, state).is_some_and(flow_table::release)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $release_half_open(index: u32, state: u64) -> bool {
            Direction::<$family, HalfOpen>::at(index, state).is_some_and(flow_table::release)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $remove_established(index: u32, state: u64) -> bool {
            Direction::<$family, Established>::at(index, state).is_some_and(flow_table::try_remove)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $remove_half_open(index: u32, state: u64) -> bool {
            Direction::<$family, HalfOpen>::at(index, state).is_some_and(flow_table::try_remove)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $forget_oldest() -> bool {
            draft::forget_oldest::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $closed() -> u64 {
            draft::closed_index::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $is_over(index: u32, state: u64) -> bool {
            Direction::<$family, Established>::at(index, state).is_some_and(room::is_over)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $make_room(somewhere: u64, window: u32) -> bool {
            room::make_room::<$family>(Hash::from_word(somewhere), window)
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $deltas() -> u32 {
            draft::deltas::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $save_options(ctx: *mut xdp_md, at: u32, length: u32) -> bool {
            draft::save_options::<$family>(&XdpContext::new(ctx), at, length);
            true
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $fetch_opening() -> bool {
            unknown::foresee::<$family>();
            true
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $claim() -> u64 {
            draft::try_claim::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $complete() -> u64 {
            draft::try_complete::<$family>()
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $fetch_promotion(client: u32) -> bool {
            fetch::promotion::<$family>(client);
            true
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $promote(
            client: u32,
            client_state: u64,
            backend: u32,
            backend_state: u64,
        ) -> u64 {
            promotion::try_promote::<$family>(
                Direction::at(client, client_state),
                Direction::at(backend, backend_state),
            )
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $make() -> u64 {
            unknown::try_make::<$family>()
        }
    };
}

subprograms!(
    Address4,
    met_4,
    established_index_4,
    half_open_index_4,
    release_established_4,
    release_half_open_4,
    remove_established_4,
    remove_half_open_4,
    forget_oldest_4,
    closed_4,
    is_over_4,
    make_room_4,
    deltas_4,
    save_options_4,
    fetch_opening_4,
    claim_4,
    complete_4,
    fetch_promotion_4,
    promote_4,
    make_4
);
subprograms!(
    Address6,
    met_6,
    established_index_6,
    half_open_index_6,
    release_established_6,
    release_half_open_6,
    remove_established_6,
    remove_half_open_6,
    forget_oldest_6,
    closed_6,
    is_over_6,
    make_room_6,
    deltas_6,
    save_options_6,
    fetch_opening_6,
    claim_6,
    complete_6,
    fetch_promotion_6,
    promote_6,
    make_6
);
