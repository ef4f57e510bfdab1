//! From a frame to a TCP segment or an ICMP message: the only place that makes references from raw packet pointers.
//!
//! A frame is one of four things: a TCP segment whose headers lie within it, an ICMP message, something that isn't ours
//! to judge, or something wrong that is a drop if it is addressed to a service.
#![expect(unsafe_code, reason = "packet memory is reached through bounds-checked raw pointers")]

use core::hint::black_box;
use core::mem::offset_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, FlowKey, Port};
use balancer_common::checksum::Sum;
use balancer_common::flow::Kind;
use balancer_common::verdict::Reason;
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::extensions::{self, Chain};
use crate::family::Family;
use crate::features;
use crate::subprograms;
use crate::words::{self, load};

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_8021Q: u16 = 0x8100_u16.to_be();
const ETHERTYPE_8021AD: u16 = 0x88a8_u16.to_be();
pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;
/// A TCP header begins before this, whatever options and extensions there are; the verifier wants to see a bound.
pub(crate) const TCP_AT_MASK: u32 = 0x7fff;
/// More-fragments flag and fragment offset; the rest of the word is reserved or don't-fragment.
pub(crate) const FRAGMENT_BITS: u16 = 0x3fff;

/// A TCP segment over IP over Ethernet.
pub(crate) struct Packet<'a, A: Family> {
    pub(crate) eth: &'a mut EthHdr,
    pub(crate) ip: &'a mut A::Header,
    pub(crate) tcp: &'a mut TcpHdr,
    /// Where the TCP header begins in the frame.
    pub(crate) tcp_at: usize,
    /// The whole frame, as counters tell it.
    pub(crate) frame_length: u64,
}

/// What is in a frame, by its type.
pub(crate) enum Network {
    Ipv4,
    Ipv6,
    Tagged,
    /// Another protocol, or not sent to one host: the kernel's business.
    Other,
}

/// What is in an IP packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    Tcp,
    Icmp,
    /// The kernel's business.
    Other,
    /// TCP that can't be read, or something that may be TCP; what becomes of it depends on whom it is for.
    Wrong(Reason),
}

/// Whether a packet is looked at for the first time, or by a later stage of the path.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    First,
    Again,
}

/// Where things are in a frame. Numbers only, all of them always there: of references in variants the compiler copies
/// what isn't set, which the verifier refuses.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) upper: Upper,
    /// Where TCP or ICMP begins.
    pub(crate) at: usize,
    /// Where the IP packet ends; what follows is padding.
    pub(crate) end: usize,
    /// The whole frame, as counters tell it.
    pub(crate) frame_length: u64,
}

impl Layout {
    #[inline(always)]
    const fn without(upper: Upper) -> Self {
        Self { upper, at: 0, end: 0, frame_length: 0 }
    }
}

impl<'a, A: Family> Packet<'a, A> {
    /// The segment that an earlier stage has found in this frame.
    #[inline(always)]
    pub(crate) fn read(ctx: &'a XdpContext) -> Option<Self> {
        let layout = A::layout(ctx, Look::Again);
        if layout.upper == Upper::Tcp { Self::at(ctx, &layout) } else { None }
    }

    /// The segment that was found there.
    #[inline(always)]
    pub(crate) fn at(ctx: &'a XdpContext, layout: &Layout) -> Option<Self> {
        // Hidden from the compiler, which would see that TCP is behind IP and leave out the check for IP; the verifier
        // doesn't see it.
        let tcp_at = black_box(layout.at);
        Some(Self {
            eth: header(ctx, 0)?,
            ip: header(ctx, EthHdr::LEN)?,
            tcp: header(ctx, tcp_at)?,
            tcp_at,
            frame_length: layout.frame_length,
        })
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> FlowKey<A> {
        let [source_port, destination_port] = Port::both_from_word(load::<0, _>(self.tcp));
        FlowKey {
            source: A::source(self.ip),
            destination: A::destination(self.ip),
            source_port,
            destination_port,
        }
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.flags())
    }

    /// The header's flags: the last byte of the word that begins with its length.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u8 {
        flag_word(self.tcp)[1]
    }

    /// Bytes of the header, options included.
    #[inline(always)]
    pub(crate) fn header_length(&self) -> usize {
        header_length(self.tcp)
    }

    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        u32::from_be(load::<4, _>(self.tcp))
    }

    #[inline(always)]
    pub(crate) fn acknowledgement(&self) -> u32 {
        u32::from_be(load::<8, _>(self.tcp))
    }

    /// Bytes of TCP, header and data.
    #[inline(always)]
    fn segment_length(&self) -> usize {
        // `parse` made sure that the headers are not longer than the packet.
        A::ip_length(self.ip).wrapping_sub(self.tcp_at - EthHdr::LEN)
    }

    /// The sequence number after this segment's data; a FIN has one more.
    #[inline(always)]
    pub(crate) fn end_of_data(&self) -> u32 {
        let data = self.segment_length().wrapping_sub(header_length(self.tcp));
        self.sequence().wrapping_add(data as u32)
    }

    /// The checksum less what is in the header and a SYN that is sent again hasn't: acknowledgement, urgent pointer,
    /// reserved bits.
    #[inline(always)]
    pub(crate) fn kept_check(&self) -> [u8; 2] {
        let [a, b, c, d] = self.tcp.ack_seq;
        let reserved = [flag_word(self.tcp)[0] & 0xf, 0];
        let dropped = [[a, b], [c, d], self.tcp.urg_ptr, reserved];
        let sum = Sum::from(u32::from(u16::from_ne_bytes(self.tcp.check)));
        dropped.into_iter().fold(sum, |sum, word| sum.word(u16::from_ne_bytes(word))).folded()
    }

    /// Whether the sender left the checksum of this SYN or SYN-ACK to hardware: the field has the pseudo-header's sum, and
    /// isn't right. Segments with data are not judged.
    #[inline(always)]
    pub(crate) fn has_partial_checksum(&self, ctx: &XdpContext) -> bool {
        let pseudo_header = A::destination(self.ip).sum(A::source(self.ip).sum(Sum::from(0)));
        let pseudo_header = pseudo_header.number(PROTOCOL_TCP.into()).number(self.segment_length() as u16);
        pseudo_header.folded() == self.tcp.check && self.is_wrong_without_data(ctx, pseudo_header)
    }

    /// One SYN in 65,536 comes to the same sum and is right; it must not be refused.
    #[inline(always)]
    fn is_wrong_without_data(&self, ctx: &XdpContext, pseudo_header: Sum) -> bool {
        let length = header_length(self.tcp);
        self.segment_length() == length
            && subprograms::is_wrong_sum(
                ctx.ctx,
                self.tcp_at as u32,
                length as u32 / 4,
                u16::from_ne_bytes(pseudo_header.folded()),
            )
    }
}

/// Whether so many words of a TCP header at `tcp_at` and its pseudo-header don't come to what a right checksum makes of
/// them.
#[inline(always)]
pub(crate) fn is_wrong_sum(ctx: &XdpContext, tcp_at: u32, words: u32, pseudo_header: u16) -> bool {
    const WORDS_MAX: usize = 15;
    let tcp_at = (tcp_at & TCP_AT_MASK) as usize;
    let mut sum = Sum::from(u32::from(pseudo_header));
    for word in 0..WORDS_MAX {
        if word < words as usize
            && let Some([first, second]) = header::<[u16; 2]>(ctx, tcp_at + word * 4)
        {
            sum = sum.word(*first).word(*second);
        }
    }
    sum.folded() != [0xff, 0xff]
}

/// The word with the header's length and the flags.
#[inline(always)]
fn flag_word(tcp: &TcpHdr) -> [u8; 2] {
    // SAFETY: bytes 12 and 13 of a TcpHdr that lies within the packet; its bit field type only has bit getters.
    unsafe { core::ptr::from_ref(tcp).cast::<u8>().add(12).cast::<[u8; 2]>().read() }
}

#[inline(always)]
fn header_length(tcp: &TcpHdr) -> usize {
    usize::from(flag_word(tcp)[0] >> 4) * 4
}

/// Where the frame's first buffer begins.
#[inline(always)]
pub(crate) fn data(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    words::load_address::<{ offset_of!(xdp_md, data) }, _>(unsafe { &*ctx.ctx })
}

/// Where it ends.
#[inline(always)]
pub(crate) fn data_end(ctx: &XdpContext) -> usize {
    // SAFETY: as above.
    words::load_address::<{ offset_of!(xdp_md, data_end) }, _>(unsafe { &*ctx.ctx })
}

/// A header at `offset`, if it lies within the frame's first buffer. Frames begin at even addresses, which is all that
/// the header types ask for.
#[expect(
    clippy::mut_from_ref,
    reason = "the context only lends the packet, which is ours alone while we run"
)]
#[inline(always)]
pub(crate) fn header<T>(ctx: &XdpContext, offset: usize) -> Option<&mut T> {
    const { assert!(align_of::<T>() <= 2) };
    let at = data(ctx) + offset;
    if at + size_of::<T>() > data_end(ctx) {
        return None;
    }
    // SAFETY: the whole T lies between data and data_end, T is plain bytes, and callers ask for disjoint offsets.
    Some(unsafe { &mut *(at as *mut T) })
}

/// The length of a frame that has at least so many bytes, in all of its buffers.
#[inline(always)]
pub(crate) fn frame_length(ctx: &XdpContext, at_least: usize) -> Option<u64> {
    let mut length = (data_end(ctx) - data(ctx)) as u64;
    if length < at_least as u64 && features::frags() {
        // SAFETY: the context is the program's own. Kernel 5.18, as the feature.
        length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    }
    (length >= at_least as u64).then_some(length)
}

/// Looks at the frame's type.
#[inline(always)]
pub(crate) fn network(ctx: &XdpContext) -> Network {
    let Some(eth) = header::<EthHdr>(ctx, 0) else { return Network::Other };
    let is_to_one = eth.dst_addr[0] & 1 == 0;
    match eth.ether_type {
        ETHERTYPE_IPV4 if is_to_one => Network::Ipv4,
        ETHERTYPE_IPV6 if is_to_one && features::ipv6() => Network::Ipv6,
        ETHERTYPE_8021Q | ETHERTYPE_8021AD => Network::Tagged,
        _ => Network::Other,
    }
}

/// The first fragment, or a later one.
#[inline(always)]
pub(crate) fn is_fragment(ip: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(ip.frags) & FRAGMENT_BITS != 0
}

/// Looks for TCP or ICMP in an IPv4 packet.
#[inline(always)]
pub(crate) fn ipv4(ctx: &XdpContext) -> Layout {
    let Some(ip) = header::<Ipv4Hdr>(ctx, EthHdr::LEN) else { return Layout::without(Upper::Other) };
    let is_tcp = ip.proto == PROTOCOL_TCP;
    if ip.vihl >> 4 != 4 || !(is_tcp || ip.proto == PROTOCOL_ICMP) {
        return Layout::without(Upper::Other);
    }
    let unreadable = |reason| Layout::without(if is_tcp { Upper::Wrong(reason) } else { Upper::Other });
    let header_length = usize::from(ip.vihl & 0xf) * 4;
    let end = EthHdr::LEN + Address4::ip_length(ip);
    let Some(frame_length) = frame_length(ctx, end) else { return unreadable(Reason::BadLength) };
    if header_length < Ipv4Hdr::LEN {
        return unreadable(Reason::BadLength);
    }
    if is_fragment(ip) {
        return unreadable(Reason::Fragment);
    }
    let at = EthHdr::LEN + header_length;
    if is_tcp && !has_tcp(ctx, at, end) {
        return unreadable(Reason::BadLength);
    }
    Layout { upper: if is_tcp { Upper::Tcp } else { Upper::Icmp }, at, end, frame_length }
}

/// Looks for TCP or ICMP in an IPv6 packet.
#[inline(always)]
pub(crate) fn ipv6(ctx: &XdpContext, look: Look) -> Layout {
    let Some(ip) = header::<Ipv6Hdr>(ctx, EthHdr::LEN) else { return Layout::without(Upper::Other) };
    if ip.vcf[0] >> 4 != 6 {
        return Layout::without(Upper::Other);
    }
    let (first, behind) = (ip.next_hdr, EthHdr::LEN + Ipv6Hdr::LEN);
    let chain = match look {
        Look::First => extensions::walk(ctx, first, behind),
        Look::Again => extensions::walked(first, behind),
    };
    let (protocol, at) = match chain {
        Chain::EndsIn(protocol, at) => (protocol, at),
        Chain::Wrong(reason) => return Layout::without(Upper::Wrong(reason)),
    };
    let is_tcp = protocol == PROTOCOL_TCP;
    if !is_tcp && protocol != PROTOCOL_ICMPV6 {
        return Layout::without(Upper::Other);
    }
    let unreadable = Layout::without(if is_tcp { Upper::Wrong(Reason::BadLength) } else { Upper::Other });
    let end = EthHdr::LEN + Address6::ip_length(ip);
    let Some(frame_length) = frame_length(ctx, end) else { return unreadable };
    if is_tcp && !has_tcp(ctx, at, end) {
        return unreadable;
    }
    Layout { upper: if is_tcp { Upper::Tcp } else { Upper::Icmp }, at, end, frame_length }
}

/// Whether there is a TCP header that lies with its options before `end`.
#[inline(always)]
fn has_tcp(ctx: &XdpContext, at: usize, end: usize) -> bool {
    let Some(tcp) = header::<TcpHdr>(ctx, at) else { return false };
    let length = header_length(tcp);
    length >= TcpHdr::LEN && at + length <= end
}
