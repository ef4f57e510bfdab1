//! [`Family`] for IPv6.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address6, WireAddress};
use balancer_common::checksum::Delta;
use network_types::ip::Ipv6Hdr;

use super::Family;
use crate::draft::Draft;
use crate::maps::{self, ClientSyns, Counts, Lines, Pasts, Tags};
use crate::parse::{self, Layout, Look};
use crate::words::{load, store};

impl Family for Address6 {
    type Header = Ipv6Hdr;

    #[inline(always)]
    fn layout(ctx: &XdpContext, look: Look) -> Layout {
        parse::ipv6(ctx, look)
    }

    #[inline(always)]
    fn source(ip: &Ipv6Hdr) -> Self {
        Self::from_words([load::<8, _>(ip), load::<12, _>(ip), load::<16, _>(ip), load::<20, _>(ip)])
    }

    #[inline(always)]
    fn destination(ip: &Ipv6Hdr) -> Self {
        Self::from_words([load::<24, _>(ip), load::<28, _>(ip), load::<32, _>(ip), load::<36, _>(ip)])
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
    fn traffic_class(ip: &Ipv6Hdr) -> u8 {
        ip.vcf[0] << 4 | ip.vcf[1] >> 4
    }

    #[inline(always)]
    fn forward(ip: &mut Ipv6Hdr, source: Self, destination: Self, _: u16) {
        ip.hop_limit -= 1;
        Self::set_source(ip, source);
        Self::set_destination(ip, destination);
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv6Hdr, source: Self) {
        let [a, b, c, d] = source.to_words();
        store::<8, _>(ip, a);
        store::<12, _>(ip, b);
        store::<16, _>(ip, c);
        store::<20, _>(ip, d);
    }

    #[inline(always)]
    fn set_destination(ip: &mut Ipv6Hdr, destination: Self) {
        let [a, b, c, d] = destination.to_words();
        store::<24, _>(ip, a);
        store::<28, _>(ip, b);
        store::<32, _>(ip, c);
        store::<36, _>(ip, d);
    }

    #[inline(always)]
    fn readdress_quoted(ip: &mut Ipv6Hdr, source: Self, destination: Self) -> Delta {
        let addresses = Self::source(ip).change(source, Delta::NONE);
        let addresses = Self::destination(ip).change(destination, addresses);
        Self::set_source(ip, source);
        Self::set_destination(ip, destination);
        addresses
    }

    maps!(
        ESTABLISHED_6,
        ESTAB_TAGS_6,
        ESTAB_PAST_6,
        HALF_OPEN_6,
        HALF_TAGS_6,
        HALF_SYNS_6,
        COUNTS_6,
        DRAFT_6
    );
}
