//! ICMP errors about flows: they reach whoever sent the packet that they quote, as if it had been its own.
//!
//! Nothing of the flow changes: an error is a hint that anybody may forge who guesses a tuple. Echo and everything else
//! is the kernel's.

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address4, Address6, FlowKey, Port};
use balancer_common::checksum::{self, Delta};
use balancer_common::verdict::{Reason, Stage, Verdict};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::family::Family;
use crate::flow_table;
use crate::forward::{address_frame, exit, way_out};
use crate::memory::HalfOpen;
use crate::parse::{Layout, Look, PROTOCOL_TCP, header};
use crate::signals::Why;
use crate::{report, retry, service};

/// What differs between the two protocols of this name.
pub(crate) trait Icmp: Family {
    /// Whether messages of this type quote a packet that could not be delivered.
    fn is_error(message_type: u8) -> bool;

    /// Whether a message of this type and code says that nobody can be reached there, by anybody.
    fn is_unreachable(message_type: u8, code: u8) -> bool;

    /// Where the header of the quoted packet's TCP is, behind the quoted header at `at`; `None`: it isn't there.
    fn quoted_tcp(ip: &Self::Header, at: usize) -> Option<usize>;

    /// Whether the message's checksum covers the addresses of its own IP header.
    const COVERS_ADDRESSES: bool;
}

impl Icmp for Address4 {
    const COVERS_ADDRESSES: bool = false;

    /// Destination unreachable, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(message_type: u8) -> bool {
        matches!(message_type, 3 | 11 | 12)
    }

    /// But for a packet that is too big.
    #[inline(always)]
    fn is_unreachable(message_type: u8, code: u8) -> bool {
        message_type == 3 && code != 4
    }

    /// Later fragments have no ports.
    #[inline(always)]
    fn quoted_tcp(ip: &Ipv4Hdr, at: usize) -> Option<usize> {
        const OFFSET: u16 = 0x1fff;
        let length = usize::from(ip.vihl & 0xf) * 4;
        let is_first = u16::from_be_bytes(ip.frags) & OFFSET == 0;
        (ip.vihl >> 4 == 4 && ip.proto == PROTOCOL_TCP && is_first && length >= Ipv4Hdr::LEN)
            .then_some(at + length)
    }
}

impl Icmp for Address6 {
    const COVERS_ADDRESSES: bool = true;

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(message_type: u8) -> bool {
        matches!(message_type, 1..=4)
    }

    #[inline(always)]
    fn is_unreachable(message_type: u8, _: u8) -> bool {
        message_type == 1
    }

    /// Errors about packets with extension headers are as rare as these, and lost.
    #[inline(always)]
    fn quoted_tcp(ip: &Ipv6Hdr, at: usize) -> Option<usize> {
        (ip.vcf[0] >> 4 == 6 && ip.next_hdr == PROTOCOL_TCP).then_some(at + Ipv6Hdr::LEN)
    }
}

/// The first eight bytes of ICMP.
#[repr(C)]
struct IcmpHeader {
    message_type: u8,
    code: u8,
    check: [u8; 2],
    rest: [u8; 4],
}

/// The first eight bytes of TCP: what every error quotes.
#[repr(C)]
struct QuotedTcp {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
}

/// Where a TCP header has its checksum.
const TCP_CHECK: usize = 16;

/// What a message quotes.
struct Quote<'a, A: Family> {
    ip: &'a mut A::Header,
    tcp: &'a mut QuotedTcp,
    /// The TCP checksum, where so much was quoted.
    tcp_check: Option<&'a mut [u8; 2]>,
}

impl<A: Family> Quote<'_, A> {
    /// The tuple of packets that answer the quoted one.
    #[inline(always)]
    fn answered_by(&self) -> FlowKey<A> {
        FlowKey {
            source: A::destination(self.ip),
            destination: A::source(self.ip),
            source_port: Port::from_wire(self.tcp.destination),
            destination_port: Port::from_wire(self.tcp.source),
        }
    }
}

/// A message that says that a client's SYN did not reach its backend is a refusal. Any other one is [`icmp`]'s.
#[inline(never)]
pub(crate) fn unreachable<A: Icmp>(ctx: &XdpContext) -> Verdict {
    refused::<A>(ctx).unwrap_or(Verdict::next(Stage::Icmp))
}

/// `None`: it didn't say that, or the client has to hear it. The SYN's sequence number shows that its sender has seen it.
#[inline(always)]
fn refused<A: Icmp>(ctx: &XdpContext) -> Option<Verdict> {
    let message = A::layout(ctx, Look::Again);
    let icmp = header::<IcmpHeader>(ctx, message.at)?;
    if !A::is_unreachable(icmp.message_type, icmp.code) {
        return None;
    }
    let is_addressed_to = A::destination(header::<A::Header>(ctx, EthHdr::LEN)?);
    let quote = quote::<A>(ctx, message)?;
    let key = quote.answered_by();
    let backend = flow_table::direction::<A, HalfOpen>(&key)?;
    let client = backend.twin()?;
    let is_the_syn = client.first_sequence() == u32::from_be_bytes(quote.tcp.sequence);
    let is_meant = is_the_syn && is_addressed_to == key.destination;
    if backend.seen().is_from_client() || !is_meant || !service::came_from(ctx, backend.backend()) {
        return None;
    }
    retry::refused(&client, &backend, Why::Unreachable)
}

/// An ICMP message's fate.
#[inline(never)]
pub(crate) fn icmp<A: Icmp>(ctx: &XdpContext) -> Verdict {
    let message = A::layout(ctx, Look::Again);
    let Some(icmp) = header::<IcmpHeader>(ctx, message.at) else { return Verdict::PASS };
    if !A::is_error(icmp.message_type) {
        return Verdict::PASS;
    }
    let (Some(ip), Some(mut quote)) = (header::<A::Header>(ctx, EthHdr::LEN), quote::<A>(ctx, message))
    else {
        return Verdict::PASS;
    };
    let key = quote.answered_by();
    // An error goes to who sent the packet that it quotes; any other is a forgery.
    let is_addressed = A::destination(ip) == key.destination;
    let Some(recipe) = flow_table::recipe(&key) else {
        return if service::is_ours(&key) { Verdict::drop(Reason::IcmpNoFlow) } else { Verdict::PASS };
    };
    if !is_addressed {
        return Verdict::drop(Reason::IcmpNoFlow);
    }
    let recipe = &recipe;
    let (hop, interface) = match exit::<A>(ip, way_out(recipe)) {
        Ok(exit) => exit,
        // No error is ever sent about an error.
        Err(verdict) => return verdict.unanswered(),
    };
    report::forwarded(recipe.service, recipe.backend, message.frame_length);
    let mut delta = rewrite_quote(&mut quote, &recipe.becomes);
    let outer = rewrite_outer::<A>(ip, &key, &recipe.becomes);
    if A::COVERS_ADDRESSES {
        delta = delta.and(outer);
    }
    icmp.check = checksum::apply(icmp.check, delta.folded());
    if let Some(eth) = header::<EthHdr>(ctx, 0) {
        address_frame(eth, hop, interface);
    }
    Verdict::FORWARD
}

/// The packet that the message quotes, if it is TCP's and its ports are there.
#[inline(always)]
fn quote<A: Icmp>(ctx: &XdpContext, message: Layout) -> Option<Quote<'_, A>> {
    let at = message.at + size_of::<IcmpHeader>();
    let ip = header::<A::Header>(ctx, at)?;
    let tcp_at = A::quoted_tcp(ip, at)?;
    if tcp_at + size_of::<QuotedTcp>() > message.end {
        return None;
    }
    let tcp = header::<QuotedTcp>(ctx, tcp_at)?;
    let check_at = tcp_at + TCP_CHECK;
    let tcp_check = if check_at + 2 <= message.end { header::<[u8; 2]>(ctx, check_at) } else { None };
    Some(Quote { ip, tcp, tcp_check })
}

/// The quoted packet becomes what its sender had sent: it went the other way than the entry's packets do. Returns what
/// that does to the message's checksum.
#[inline(never)]
fn rewrite_quote<A: Family>(quote: &mut Quote<'_, A>, becomes: &FlowKey<A>) -> Delta {
    let sent = becomes.reversed();
    let Quote { ip, tcp, tcp_check } = quote;
    let addresses = A::source(ip).change(sent.source, Delta::NONE);
    let addresses = A::destination(ip).change(sent.destination, addresses);
    let mut delta = A::readdress_quoted(ip, sent.source, sent.destination);
    let ports = Port::from_wire(tcp.source).change(sent.source_port, Delta::NONE);
    let ports = Port::from_wire(tcp.destination).change(sent.destination_port, ports);
    tcp.source = sent.source_port.to_wire();
    tcp.destination = sent.destination_port.to_wire();
    delta = delta.and(ports);
    if let Some(check) = tcp_check {
        let new = checksum::apply(**check, addresses.and(ports).folded());
        delta = delta.word(u16::from_ne_bytes(**check), u16::from_ne_bytes(new));
        **check = new;
    }
    delta
}

/// The message itself goes where the flow's packets go, and comes from where they seem to come from, if the flow hides
/// that. Returns what that does to a checksum over its addresses.
#[inline(always)]
fn rewrite_outer<A: Family>(ip: &mut A::Header, key: &FlowKey<A>, becomes: &FlowKey<A>) -> Delta {
    let from = A::source(ip);
    let source = if becomes.source == key.source { from } else { becomes.source };
    let destination = becomes.destination;
    let delta = from.change(source, Delta::NONE);
    let delta = A::destination(ip).change(destination, delta);
    A::forward(ip, source, destination, delta.ttl_decremented().folded());
    delta
}
