//! What differs between IPv4 and IPv6: the header, and which tables a flow is in. Everything else is written once.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::FlowKey;
use balancer_common::checksum::Delta;
use balancer_common::table::Hash;

use crate::draft::Draft;
use crate::features;
use crate::frame::Framed;
use crate::maps::{ClientSyns, Counts, Lines, Pasts, Tags};
use crate::parse::{Layout, Look};
use crate::subprograms::Subprograms;

/// A family, named by its address as it stands in packets.
pub(crate) trait Family: Framed + Subprograms<Self> {
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
    fn client_syns() -> &'static ClientSyns;
    fn counts() -> &'static Counts;

    /// A tuple's hash.
    #[inline(always)]
    fn hash_of(key: &FlowKey<Self>) -> Hash {
        Hash::of(key, features::seed())
    }

    fn drafts() -> &'static PerCpuArray<Draft<Self>, 1>;
}

/// The maps of a family.
macro_rules! maps {
    ($established:ident, $established_tags:ident, $pasts:ident, $half_open:ident, $half_open_tags:ident, $client_syns:ident,
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
        fn client_syns() -> &'static ClientSyns {
            &maps::$client_syns
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

mod ipv4;
mod ipv6;
