//! What differs between IPv4 and IPv6: the header, and which tables a flow is in. Everything else is written once.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::FlowKey;
use balancer_common::checksum::Delta;
use balancer_common::table::Hash;

use crate::draft::Draft;
use crate::features;
use crate::frame::Framed;
use crate::maps::{Counts, Handshakes, Lines, Pasts, Tags};
use crate::parse::{Layout, Look};

/// A family, named by its address as it stands in packets.
pub(crate) trait Family: Framed {
    /// The IP header without options or extensions.
    type Header: 'static;

    /// What is in the packet, and where.
    fn layout(ctx: &XdpContext, look: Look) -> Layout;

    fn source(ip: &Self::Header) -> Self;
    fn destination(ip: &Self::Header) -> Self;

    /// TTL or hop limit.
    fn hops_left(ip: &Self::Header) -> u8;

    /// The whole IP packet.
    fn ip_length(ip: &Self::Header) -> usize;

    /// Whether routers may cut it into pieces, so that its sender need not know the MTU.
    fn may_be_fragmented(ip: &Self::Header) -> bool;

    /// Type of service or traffic class.
    fn traffic_class(ip: &Self::Header) -> u8;

    /// One hop further, with other addresses; `delta` is what that does to the header's checksum, if it has one.
    fn forward(ip: &mut Self::Header, source: Self, destination: Self, delta: u16);

    fn set_source(ip: &mut Self::Header, source: Self);
    fn set_destination(ip: &mut Self::Header, destination: Self);

    /// A quoted header gets other addresses; returns what that does to a checksum over the whole of it.
    fn readdress_quoted(ip: &mut Self::Header, source: Self, destination: Self) -> Delta;

    fn established_tags() -> &'static Tags;
    fn established() -> &'static Lines<Self>;
    fn pasts() -> &'static Pasts;
    fn half_open_tags() -> &'static Tags;
    fn half_open() -> &'static Lines<Self>;
    fn handshakes() -> &'static Handshakes;
    fn counts() -> &'static Counts;

    /// A tuple's hash.
    #[inline(always)]
    fn hash_of(key: &FlowKey<Self>) -> Hash {
        Hash::of(key, features::seed())
    }

    fn drafts() -> &'static PerCpuArray<Draft<Self>, 1>;

    // Functions of `subprograms`.
    fn met(key: &FlowKey<Self>, hash: u64) -> u64;
    fn established_index(key: &FlowKey<Self>) -> u64;
    fn half_open_index(key: &FlowKey<Self>) -> u64;
    fn release_established(index: u32, state: u64) -> bool;
    fn release_half_open(index: u32, state: u64) -> bool;
    fn remove_established(index: u32, state: u64) -> bool;
    fn remove_half_open(index: u32, state: u64) -> bool;
    fn forget_oldest() -> bool;
    fn closed() -> u64;
    fn is_over(index: u32, state: u64) -> bool;
    fn make_room(somewhere: u64, window: u32) -> bool;
    fn deltas() -> u32;
    fn save_options(ctx: *mut xdp_md, at: u32, length: u32) -> bool;
    fn fetch_opening() -> bool;
    fn claim() -> u64;
    fn complete() -> u64;
    fn fetch_promotion(client: u32) -> bool;
    fn promote(client: u32, client_state: u64, backend: u32, backend_state: u64) -> u64;
    fn make() -> u64;
}

/// The maps of a family.
macro_rules! maps {
    ($established:ident, $established_tags:ident, $pasts:ident, $half_open:ident, $half_open_tags:ident, $handshakes:ident,
     $counts:ident, $drafts:ident) => {
        #[inline(always)]
        fn established_tags() -> &'static Tags {
            &maps::$established_tags
        }

        #[inline(always)]
        fn established() -> &'static Lines<Self> {
            &maps::$established
        }

        #[inline(always)]
        fn pasts() -> &'static Pasts {
            &maps::$pasts
        }

        #[inline(always)]
        fn half_open_tags() -> &'static Tags {
            &maps::$half_open_tags
        }

        #[inline(always)]
        fn half_open() -> &'static Lines<Self> {
            &maps::$half_open
        }

        #[inline(always)]
        fn handshakes() -> &'static Handshakes {
            &maps::$handshakes
        }

        #[inline(always)]
        fn counts() -> &'static Counts {
            &maps::$counts
        }

        #[inline(always)]
        fn drafts() -> &'static PerCpuArray<Draft<Self>, 1> {
            &maps::$drafts
        }
    };
}

/// The global functions of a family.
macro_rules! subprograms {
    ($met:ident, $established_index:ident, $half_open_index:ident, $release_established:ident, $release_half_open:ident,
     $remove_established:ident, $remove_half_open:ident,
     $forget_oldest:ident, $closed:ident, $is_over:ident, $make_room:ident, $deltas:ident, $save_options:ident, $fetch_opening:ident, $claim:ident, $complete:ident, $fetch_promotion:ident, $promote:ident, $make:ident) => {
        #[inline(always)]
        fn met(key: &FlowKey<Self>, hash: u64) -> u64 {
            subprograms::$met(key, hash)
        }

        #[inline(always)]
        fn established_index(key: &FlowKey<Self>) -> u64 {
            subprograms::$established_index(key)
        }

        #[inline(always)]
        fn half_open_index(key: &FlowKey<Self>) -> u64 {
            subprograms::$half_open_index(key)
        }

        #[inline(always)]
        fn release_established(index: u32, state: u64) -> bool {
            subprograms::$release_established(index, state)
        }

        #[inline(always)]
        fn release_half_open(index: u32, state: u64) -> bool {
            subprograms::$release_half_open(index, state)
        }

        #[inline(always)]
        fn remove_established(index: u32, state: u64) -> bool {
            subprograms::$remove_established(index, state)
        }

        #[inline(always)]
        fn remove_half_open(index: u32, state: u64) -> bool {
            subprograms::$remove_half_open(index, state)
        }

        #[inline(always)]
        fn forget_oldest() -> bool {
            subprograms::$forget_oldest()
        }

        #[inline(always)]
        fn closed() -> u64 {
            subprograms::$closed()
        }

        #[inline(always)]
        fn is_over(index: u32, state: u64) -> bool {
            subprograms::$is_over(index, state)
        }

        #[inline(always)]
        fn make_room(somewhere: u64, window: u32) -> bool {
            subprograms::$make_room(somewhere, window)
        }

        #[inline(always)]
        fn deltas() -> u32 {
            subprograms::$deltas()
        }

        #[inline(always)]
        fn save_options(ctx: *mut xdp_md, at: u32, length: u32) -> bool {
            subprograms::$save_options(ctx, at, length)
        }

        #[inline(always)]
        fn fetch_opening() -> bool {
            subprograms::$fetch_opening()
        }

        #[inline(always)]
        fn claim() -> u64 {
            subprograms::$claim()
        }

        #[inline(always)]
        fn complete() -> u64 {
            subprograms::$complete()
        }

        #[inline(always)]
        fn fetch_promotion(client: u32) -> bool {
            subprograms::$fetch_promotion(client)
        }

        #[inline(always)]
        fn promote(client: u32, client_state: u64, backend: u32, backend_state: u64) -> u64 {
            subprograms::$promote(client, client_state, backend, backend_state)
        }

        #[inline(always)]
        fn make() -> u64 {
            subprograms::$make()
        }
    };
}

mod ipv4;
mod ipv6;
