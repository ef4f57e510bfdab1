//! [`Family`] for IPv4.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, WireAddress};
use balancer_common::checksum::{self, Delta};
use network_types::ip::Ipv4Hdr;

use super::Family;
use crate::draft::Draft;
use crate::maps::{self, ClientSyns, Counts, Lines, Pasts, Tags};
use crate::parse::{self, Layout, Look};
use crate::words::{load, store};

/// Don't-fragment, in the word of flags and fragment offset.
const DONT_FRAGMENT: u8 = 0x40;

impl Family for Address4 {
    type Header = Ipv4Hdr;

    #[inline(always)]
    fn layout(ctx: &XdpContext, _: Look) -> Layout {
        parse::ipv4(ctx)
    }

    #[inline(always)]
    fn source(ip: &Ipv4Hdr) -> Self {
        Self::from_words([load::<12, _>(ip)])
    }

    #[inline(always)]
    fn destination(ip: &Ipv4Hdr) -> Self {
        Self::from_words([load::<16, _>(ip)])
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
    fn traffic_class(ip: &Ipv4Hdr) -> u8 {
        ip.tos
    }

    #[inline(always)]
    fn forward(ip: &mut Ipv4Hdr, source: Self, destination: Self, delta: u16) {
        ip.ttl -= 1;
        ip.check = checksum::apply(ip.check, delta);
        Self::set_source(ip, source);
        Self::set_destination(ip, destination);
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv4Hdr, source: Self) {
        let [word] = source.to_words();
        store::<12, _>(ip, word);
    }

    #[inline(always)]
    fn set_destination(ip: &mut Ipv4Hdr, destination: Self) {
        let [word] = destination.to_words();
        store::<16, _>(ip, word);
    }

    #[inline(always)]
    fn readdress_quoted(ip: &mut Ipv4Hdr, source: Self, destination: Self) -> Delta {
        let addresses = Self::source(ip).change(source, Delta::NONE);
        let addresses = Self::destination(ip).change(destination, addresses);
        let check = checksum::apply(ip.check, addresses.folded());
        let delta = addresses.word(u16::from_ne_bytes(ip.check), u16::from_ne_bytes(check));
        ip.check = check;
        Self::set_source(ip, source);
        Self::set_destination(ip, destination);
        delta
    }

    maps!(
        ESTABLISHED_4,
        ESTAB_TAGS_4,
        ESTAB_PAST_4,
        HALF_OPEN_4,
        HALF_TAGS_4,
        HALF_SYNS_4,
        COUNTS_4,
        DRAFT_4
    );
}
