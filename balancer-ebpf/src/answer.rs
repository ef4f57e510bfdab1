//! What a sender is told: ICMP about a packet that can't go on, RST for a connection that isn't known.
//!
//! The answer is made of the packet itself and leaves the way that it came. There are never more answers than packets,
//! and never more than `ANSWERS_PER_MOMENT`; beyond that the packet is dropped.
#![expect(unsafe_code, reason = "helpers that move the packet's ends")]

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, NextHop, Roles};
use balancer_common::checksum::Sum;
use balancer_common::flow::flags;
use balancer_common::limits::QUOTE_BYTES;
use balancer_common::verdict::{Answer, Reason};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::craft::{Craft, TCP_BYTES, sum};
use crate::family::Family;
use crate::forward::{address_frame, redirect};
use crate::icmp::Icmp;
use crate::parse::{
    PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, TCP_AT_MASK, data, data_end, frame_length, header,
};
use crate::{report, service};

const ICMP_BYTES: usize = 8;

/// What differs between the families in an answer. Addresses are copied from header to header, never kept: two of IPv6
/// fill a good part of the stack.
trait Answering: Icmp + Craft {
    const PROTOCOL_ICMP: u8;
    /// Addressed to where that one came from, from where it was for.
    fn turn_addresses(ip: &mut Self::Header, asked: &Self::Header);

    /// Addressed to where it came from, from where it was for.
    fn swap_addresses(ip: &mut Self::Header);

    /// Type, code, and the last word of the ICMP header.
    fn error(error: Error) -> (u8, u8, u32);
}

/// An ICMP error.
#[derive(Clone, Copy)]
enum Error {
    TimeExceeded,
    TooBig(u32),
}

/// Sends the answer instead of the packet.
#[inline(always)]
pub(crate) fn send(ctx: &XdpContext, answer: Answer) -> u32 {
    let reason = answer.reason();
    let is_ipv4 = header::<EthHdr>(ctx, 0).is_some_and(|eth| eth.ether_type == Address4::ETHER_TYPE);
    let sent = if !report::may_answer() {
        NOT_SENT
    } else if is_ipv4 {
        turn::<Address4>(ctx, &answer)
    } else {
        turn::<Address6>(ctx, &answer)
    };
    match sent {
        NOT_SENT => {
            report::dropped(reason);
            xdp_action::XDP_DROP
        }
        interface if redirect(interface) => {
            report::answered(reason);
            xdp_action::XDP_REDIRECT
        }
        _ => {
            report::dropped(Reason::RedirectFailed);
            xdp_action::XDP_DROP
        }
    }
}

/// No interface has this slot.
const NOT_SENT: u16 = 0;

/// Turns the packet into its answer; returns the slot of the interface that it leaves through. A subprogram, for its
/// stack.
#[inline(never)]
fn turn<A: Answering>(ctx: &XdpContext, answer: &Answer) -> u16 {
    try_turn::<A>(ctx, *answer).unwrap_or(NOT_SENT)
}

#[inline(always)]
fn try_turn<A: Answering>(ctx: &XdpContext, answer: Answer) -> Option<u16> {
    let eth = header::<EthHdr>(ctx, 0)?;
    let (asker, ether_type) = (eth.src_addr, eth.ether_type);
    let length = A::ip_length(header::<A::Header>(ctx, EthHdr::LEN)?);
    let slot = service::ingress_slot(ctx)?;
    let interface = service::interface(slot)?;
    match answer {
        Answer::Reset(tcp_at) | Answer::Refusal(tcp_at) => reset::<A>(ctx, length, tcp_at)?,
        Answer::TimeExceeded => error::<A>(ctx, length, Error::TimeExceeded)?,
        Answer::TooBig(mtu) => error::<A>(ctx, length, Error::TooBig(mtu))?,
    }
    let eth = header::<EthHdr>(ctx, 0)?;
    eth.ether_type = ether_type;
    address_frame(eth, NextHop { mac: asker, interface: slot }, interface);
    Some(slot)
}

/// RFC 9293, 3.10.7.1: the one sequence number that the other side believes; to a SYN or a bare FIN, which has none of ours, the
/// one acknowledgement, without what data it may have brought.
#[inline(always)]
fn reset<A: Answering>(ctx: &XdpContext, length: usize, tcp_at: u32) -> Option<()> {
    const FLAGS: usize = 13;
    let tcp_at = (tcp_at & TCP_AT_MASK) as usize;
    let segment = header::<TcpHdr>(ctx, tcp_at)?;
    let ([a, b], [c, d]) = (segment.dest, segment.source);
    let has_ack = header::<[u8; FLAGS + 1]>(ctx, tcp_at)?[FLAGS] & flags::ACK != 0;
    let (sequence, acknowledgement, bits) = if has_ack {
        (u32::from_be_bytes(segment.ack_seq), 0, flags::RST)
    } else {
        (0, u32::from_be_bytes(segment.seq).wrapping_add(1), flags::RST | flags::ACK)
    };
    let ([e, f, g, h], [i, j, k, l]) = (sequence.to_be_bytes(), acknowledgement.to_be_bytes());
    let at = EthHdr::LEN + A::BYTES;
    shorten(ctx, EthHdr::LEN + length, at + TCP_BYTES)?;
    let ip = header::<A::Header>(ctx, EthHdr::LEN)?;
    A::swap_addresses(ip);
    A::fill(ip, PROTOCOL_TCP, TCP_BYTES);
    let words = (TCP_BYTES as u8 / 4) << 4;
    let tcp = header::<[u8; TCP_BYTES]>(ctx, at)?;
    *tcp = [a, b, c, d, e, f, g, h, i, j, k, l, words, bits, 0, 0, 0, 0, 0, 0];
    let pseudo_header = A::sum_addresses(ctx).number(PROTOCOL_TCP.into()).number(TCP_BYTES as u16);
    [tcp[16], tcp[17]] = pseudo_header.and(sum::<{ TCP_BYTES / 2 }>(ctx, at)).checksum();
    A::set_checksum(ctx);
    Some(())
}

/// An ICMP error that quotes the packet as it came, in whole words.
#[inline(always)]
fn error<A: Answering>(ctx: &XdpContext, length: usize, error: Error) -> Option<()> {
    let quoted = (length & !3).min(QUOTE_BYTES as usize);
    shorten(ctx, EthHdr::LEN + length, EthHdr::LEN + quoted)?;
    let grown = A::BYTES + ICMP_BYTES;
    // SAFETY: the context is the program's own; all pointers into the packet are made anew from here on.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(grown as i32)) } != 0 {
        return None;
    }
    let asked = header::<A::Header>(ctx, EthHdr::LEN + grown)?;
    let ip = header::<A::Header>(ctx, EthHdr::LEN)?;
    A::turn_addresses(ip, asked);
    if let Some(source) = own_address::<A>(asked) {
        A::set_source(ip, source);
    }
    A::fill(ip, A::PROTOCOL_ICMP, ICMP_BYTES + quoted);
    let at = EthHdr::LEN + A::BYTES;
    let icmp = header::<[u8; ICMP_BYTES]>(ctx, at)?;
    let (message_type, code, rest) = A::error(error);
    let [e, f, g, h] = rest.to_be_bytes();
    *icmp = [message_type, code, 0, 0, e, f, g, h];
    A::set_checksum(ctx);
    let mut sum = Sum::from(0);
    if A::COVERS_ADDRESSES {
        sum = A::sum_addresses(ctx).number(A::PROTOCOL_ICMP.into()).number((ICMP_BYTES + quoted) as u16);
    }
    if data_end(ctx) - data(ctx) != at + ICMP_BYTES + quoted {
        return None;
    }
    [icmp[2], icmp[3]] = sum.and(Sum::from(sum_to_end(ctx, at))).checksum();
    Some(())
}

/// Where an ICMP error comes from, if not from where its packet was for: a backend's packet for a client in dnat, about
/// which the gateway speaks for itself.
#[inline(always)]
fn own_address<A: Family>(asked: &A::Header) -> Option<A> {
    if service::roles(A::destination(asked).into()).is(Roles::LISTEN | Roles::SNAT) {
        return None;
    }
    let backend = service::backend(service::roles(A::source(asked).into()).backend)?;
    Some(A::from(backend.snat_address))
}

/// Cuts the frame, which has at least `length` bytes and perhaps padding, to `wanted`.
#[inline(always)]
fn shorten(ctx: &XdpContext, length: usize, wanted: usize) -> Option<()> {
    let all = frame_length(ctx, length)?;
    let surplus = (all as usize).wrapping_sub(wanted);
    if surplus == 0 {
        return Some(());
    }
    // SAFETY: as in `error`. A frame is shorter than 2^31.
    (unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(surplus as i32)) } == 0).then_some(())
}

/// The sum of the frame from `at` to its end, of whole words. A subprogram, so that its loop is there once.
///
/// Where the quote ends is seen from where the frame ends, not from its length: the verifier would walk the loop once for
/// each length. Places are hidden from the compiler, which would walk the frame by an address that the verifier takes for
/// a number.
#[inline(never)]
fn sum_to_end(ctx: &XdpContext, at: usize) -> u32 {
    const BYTES_MAX: usize = QUOTE_BYTES as usize + ICMP_BYTES;
    let mut sum = 0;
    let mut at = at;
    for _ in 0..BYTES_MAX / 16 {
        let Some(halves) = header::<[u16; 8]>(ctx, black_box(at)) else { break };
        sum += halves.iter().map(|half| u32::from(*half)).sum::<u32>();
        at += 16;
    }
    for _ in 0..3 {
        let Some([first, second]) = header::<[u16; 2]>(ctx, black_box(at)) else { break };
        sum += u32::from(*first) + u32::from(*second);
        at += 4;
    }
    sum
}

impl Answering for Address4 {
    const PROTOCOL_ICMP: u8 = PROTOCOL_ICMP;

    #[inline(always)]
    fn turn_addresses(ip: &mut Ipv4Hdr, asked: &Ipv4Hdr) {
        Self::set_source(ip, Self::destination(asked));
        Self::set_destination(ip, Self::source(asked));
    }

    #[inline(always)]
    fn swap_addresses(ip: &mut Ipv4Hdr) {
        let source = Self::source(ip);
        Self::set_source(ip, Self::destination(ip));
        Self::set_destination(ip, source);
    }

    /// Time exceeded in transit; fragmentation needed, with the MTU (RFC 1191).
    #[inline(always)]
    fn error(error: Error) -> (u8, u8, u32) {
        match error {
            Error::TimeExceeded => (11, 0, 0),
            Error::TooBig(mtu) => (3, 4, mtu & 0xffff),
        }
    }
}

impl Answering for Address6 {
    const PROTOCOL_ICMP: u8 = PROTOCOL_ICMPV6;

    #[inline(always)]
    fn turn_addresses(ip: &mut Ipv6Hdr, asked: &Ipv6Hdr) {
        Self::set_source(ip, Self::destination(asked));
        Self::set_destination(ip, Self::source(asked));
    }

    #[inline(always)]
    fn swap_addresses(ip: &mut Ipv6Hdr) {
        let source = Self::source(ip);
        Self::set_source(ip, Self::destination(ip));
        Self::set_destination(ip, source);
    }

    /// Hop limit exceeded in transit; packet too big, with the MTU (RFC 4443).
    #[inline(always)]
    fn error(error: Error) -> (u8, u8, u32) {
        match error {
            Error::TimeExceeded => (3, 0, 0),
            Error::TooBig(mtu) => (2, 0, mtu),
        }
    }
}
