//! Headers that are written anew: of answers, and of SYNs that are sent again.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6};
use balancer_common::checksum::Sum;
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::family::Family;
use crate::parse::header;

/// As the kernel's own packets.
const HOPS: u8 = 64;
/// Of a TCP header without options.
pub(crate) const TCP_BYTES: usize = 20;

/// What differs between the families in a header.
pub(crate) trait Craft: Family {
    /// As it stands in a frame.
    const ETHER_TYPE: u16;
    /// Bytes of the IP header.
    const BYTES: usize;

    /// Fills a header for a packet with so much behind it; its addresses are another matter.
    fn fill(ip: &mut Self::Header, protocol: u8, length: usize);

    /// Sets the type of service or traffic class, and TTL or hop limit, of a header that was filled.
    fn set_class(ip: &mut Self::Header, class: u8, hops: u8);

    /// The sum of its addresses.
    fn sum_addresses(ctx: &XdpContext) -> Sum;

    /// Fills in the header's own checksum, if it has one.
    fn set_checksum(ctx: &XdpContext);
}

/// The sum of so many half words from `at`.
#[inline(always)]
pub(crate) fn sum<const HALVES: usize>(ctx: &XdpContext, at: usize) -> Sum {
    let mut sum = Sum::from(0);
    if let Some(halves) = header::<[u16; HALVES]>(ctx, at) {
        for half in halves {
            sum = sum.word(*half);
        }
    }
    sum
}

impl Craft for Address4 {
    const ETHER_TYPE: u16 = 0x0800_u16.to_be();
    const BYTES: usize = Ipv4Hdr::LEN;

    #[inline(always)]
    fn fill(ip: &mut Ipv4Hdr, protocol: u8, length: usize) {
        ip.vihl = 0x45;
        ip.tos = 0;
        ip.tot_len = ((Ipv4Hdr::LEN + length) as u16).to_be_bytes();
        ip.id = [0; 2];
        // Don't fragment.
        ip.frags = [0x40, 0];
        ip.ttl = HOPS;
        ip.proto = protocol;
        ip.check = [0; 2];
    }

    #[inline(always)]
    fn set_class(ip: &mut Ipv4Hdr, class: u8, hops: u8) {
        ip.tos = class;
        ip.ttl = hops;
    }

    #[inline(always)]
    fn sum_addresses(ctx: &XdpContext) -> Sum {
        sum::<4>(ctx, EthHdr::LEN + 12)
    }

    #[inline(always)]
    fn set_checksum(ctx: &XdpContext) {
        if let Some(ip) = header::<Ipv4Hdr>(ctx, EthHdr::LEN) {
            ip.check = sum::<{ Ipv4Hdr::LEN / 2 }>(ctx, EthHdr::LEN).checksum();
        }
    }
}

impl Craft for Address6 {
    const ETHER_TYPE: u16 = 0x86dd_u16.to_be();
    const BYTES: usize = Ipv6Hdr::LEN;

    #[inline(always)]
    fn fill(ip: &mut Ipv6Hdr, protocol: u8, length: usize) {
        ip.vcf = [0x60, 0, 0, 0];
        ip.payload_len = (length as u16).to_be_bytes();
        ip.next_hdr = protocol;
        ip.hop_limit = HOPS;
    }

    #[inline(always)]
    fn set_class(ip: &mut Ipv6Hdr, class: u8, hops: u8) {
        ip.vcf[0] = 0x60 | class >> 4;
        ip.vcf[1] = class << 4;
        ip.hop_limit = hops;
    }

    #[inline(always)]
    fn sum_addresses(ctx: &XdpContext) -> Sum {
        sum::<16>(ctx, EthHdr::LEN + 8)
    }

    #[inline(always)]
    fn set_checksum(_: &XdpContext) {}
}
