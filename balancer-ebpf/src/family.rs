//! What differs between IPv4 and IPv6: the header, and which tables a flow is in. Everything else is written once.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, WireAddress};
use balancer_common::checksum::{self, Delta};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::halves::{load, store};
use crate::maps::{
    DRAFT_4, DRAFT_6, ESTABLISHED_4, ESTABLISHED_6, ESTABLISHED_ENTRIES, Flows, HALF_OPEN_4, HALF_OPEN_6,
    HALF_OPEN_ENTRIES,
};
use crate::parse::{self, Layout, Look};
use crate::unknown::Draft;

/// Don't-fragment, in the word of flags and fragment offset.
const DONT_FRAGMENT: u8 = 0x40;

/// A family, named by its address as it stands in packets.
pub(crate) trait Family: WireAddress + 'static {
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

    /// One hop further, with other addresses; `delta` is what that does to the header's checksum, if it has one.
    fn forward(ip: &mut Self::Header, source: Self, destination: Self, delta: u16);

    fn set_source(ip: &mut Self::Header, source: Self);

    /// A quoted header gets other addresses; returns what that does to a checksum over the whole of it.
    fn readdress_quoted(ip: &mut Self::Header, source: Self, destination: Self) -> Delta;

    fn half_open() -> &'static Flows<Self, HALF_OPEN_ENTRIES>;
    fn established() -> &'static Flows<Self, ESTABLISHED_ENTRIES>;
    fn drafts() -> &'static PerCpuArray<Draft<Self>, 1>;
}

impl Family for Address4 {
    type Header = Ipv4Hdr;

    #[inline(always)]
    fn layout(ctx: &XdpContext, _: Look) -> Layout {
        parse::ipv4(ctx)
    }

    #[inline(always)]
    fn source(ip: &Ipv4Hdr) -> Self {
        Self::from_halves(load(&ip.src_addr))
    }

    #[inline(always)]
    fn destination(ip: &Ipv4Hdr) -> Self {
        Self::from_halves(load(&ip.dst_addr))
    }

    #[inline(always)]
    fn hops_left(ip: &Ipv4Hdr) -> u8 {
        ip.ttl
    }

    #[inline(always)]
    fn ip_length(ip: &Ipv4Hdr) -> usize {
        usize::from(u16::from_be_bytes(ip.tot_len))
    }

    #[inline(always)]
    fn may_be_fragmented(ip: &Ipv4Hdr) -> bool {
        ip.frags[0] & DONT_FRAGMENT == 0
    }

    #[inline(always)]
    fn forward(ip: &mut Ipv4Hdr, source: Self, destination: Self, delta: u16) {
        ip.ttl -= 1;
        ip.check = checksum::apply(ip.check, delta);
        store(&mut ip.src_addr, source.to_halves());
        store(&mut ip.dst_addr, destination.to_halves());
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv4Hdr, source: Self) {
        store(&mut ip.src_addr, source.to_halves());
    }

    #[inline(always)]
    fn readdress_quoted(ip: &mut Ipv4Hdr, source: Self, destination: Self) -> Delta {
        let addresses = Self::source(ip).change(source, Delta::NONE);
        let addresses = Self::destination(ip).change(destination, addresses);
        let check = checksum::apply(ip.check, addresses.folded());
        let delta = addresses.word(u16::from_ne_bytes(ip.check), u16::from_ne_bytes(check));
        ip.check = check;
        store(&mut ip.src_addr, source.to_halves());
        store(&mut ip.dst_addr, destination.to_halves());
        delta
    }

    #[inline(always)]
    fn half_open() -> &'static Flows<Self, HALF_OPEN_ENTRIES> {
        &HALF_OPEN_4
    }

    #[inline(always)]
    fn established() -> &'static Flows<Self, ESTABLISHED_ENTRIES> {
        &ESTABLISHED_4
    }

    #[inline(always)]
    fn drafts() -> &'static PerCpuArray<Draft<Self>, 1> {
        &DRAFT_4
    }
}

impl Family for Address6 {
    type Header = Ipv6Hdr;

    #[inline(always)]
    fn layout(ctx: &XdpContext, look: Look) -> Layout {
        parse::ipv6(ctx, look)
    }

    #[inline(always)]
    fn source(ip: &Ipv6Hdr) -> Self {
        Self::from_halves(load(&ip.src_addr))
    }

    #[inline(always)]
    fn destination(ip: &Ipv6Hdr) -> Self {
        Self::from_halves(load(&ip.dst_addr))
    }

    #[inline(always)]
    fn hops_left(ip: &Ipv6Hdr) -> u8 {
        ip.hop_limit
    }

    #[inline(always)]
    fn ip_length(ip: &Ipv6Hdr) -> usize {
        Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(ip.payload_len))
    }

    #[inline(always)]
    fn may_be_fragmented(_: &Ipv6Hdr) -> bool {
        false
    }

    #[inline(always)]
    fn forward(ip: &mut Ipv6Hdr, source: Self, destination: Self, _: u16) {
        ip.hop_limit -= 1;
        store(&mut ip.src_addr, source.to_halves());
        store(&mut ip.dst_addr, destination.to_halves());
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv6Hdr, source: Self) {
        store(&mut ip.src_addr, source.to_halves());
    }

    #[inline(always)]
    fn readdress_quoted(ip: &mut Ipv6Hdr, source: Self, destination: Self) -> Delta {
        let addresses = Self::source(ip).change(source, Delta::NONE);
        let addresses = Self::destination(ip).change(destination, addresses);
        store(&mut ip.src_addr, source.to_halves());
        store(&mut ip.dst_addr, destination.to_halves());
        addresses
    }

    #[inline(always)]
    fn half_open() -> &'static Flows<Self, HALF_OPEN_ENTRIES> {
        &HALF_OPEN_6
    }

    #[inline(always)]
    fn established() -> &'static Flows<Self, ESTABLISHED_ENTRIES> {
        &ESTABLISHED_6
    }

    #[inline(always)]
    fn drafts() -> &'static PerCpuArray<Draft<Self>, 1> {
        &DRAFT_6
    }
}
