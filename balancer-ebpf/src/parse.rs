//! From a frame to a TCP packet: the only place that makes references from raw packet pointers.
//!
//! A frame is one of three things: a TCP segment whose headers lie within it, something that isn't ours to judge, or
//! something wrong that is a drop if it is addressed to a service.
#![expect(unsafe_code, reason = "packet memory is reached through bounds-checked raw pointers")]

use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{Address, FlowKey, Port};
use balancer_common::flow::Kind;
use balancer_common::verdict::Reason;
use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;
use network_types::tcp::TcpHdr;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const PROTOCOL_TCP: u8 = 6;
/// More-fragments flag and fragment offset; the rest of the word is reserved or don't-fragment.
const FRAGMENT_BITS: u16 = 0x3fff;

/// A TCP segment over IPv4 over Ethernet.
pub(crate) struct Packet<'a> {
    pub(crate) eth: &'a mut EthHdr,
    pub(crate) ip: &'a mut Ipv4Hdr,
    pub(crate) tcp: &'a mut TcpHdr,
    /// The whole frame, as counters tell it.
    pub(crate) frame_length: u64,
}

/// What a frame is.
pub(crate) enum Parsed<'a> {
    Tcp(Packet<'a>),
    /// Not TCP over IPv4, tagged, or not sent to one host: the kernel's business.
    Other,
    /// TCP that can't be read; what becomes of it depends on whom it is for.
    Unreadable {
        destination: Address,
        reason: Reason,
    },
}

impl Packet<'_> {
    #[inline(always)]
    pub(crate) fn key(&self) -> FlowKey {
        FlowKey {
            source: Address::from_wire(self.ip.src_addr),
            destination: Address::from_wire(self.ip.dst_addr),
            source_port: Port::from_wire(self.tcp.source),
            destination_port: Port::from_wire(self.tcp.dest),
        }
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> Kind {
        // The flags are the last byte of the word that begins with the header's length.
        Kind::of(self.flag_word()[1])
    }

    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.tcp.seq)
    }

    #[inline(always)]
    pub(crate) fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(self.tcp.ack_seq)
    }

    /// The sequence number after this segment's data; a FIN has one more.
    #[inline(always)]
    pub(crate) fn end_of_data(&self) -> u32 {
        let headers = usize::from(self.ip.vihl & 0xf) * 4 + self.header_length();
        // `parse` made sure that the headers are not longer than the packet.
        let data = u32::from(u16::from_be_bytes(self.ip.tot_len)).wrapping_sub(headers as u32);
        self.sequence().wrapping_add(data)
    }

    #[inline(always)]
    fn flag_word(&self) -> [u8; 2] {
        // SAFETY: bytes 12 and 13 of a TcpHdr that lies within the packet; its bit field type only has bit getters.
        unsafe { core::ptr::from_ref(&*self.tcp).cast::<u8>().add(12).cast::<[u8; 2]>().read() }
    }

    #[inline(always)]
    fn header_length(&self) -> usize {
        usize::from(self.flag_word()[0] >> 4) * 4
    }
}

/// A header at `offset`, if it lies within the frame. Frames begin at even addresses, which is all that the header
/// types ask for.
#[expect(
    clippy::mut_from_ref,
    reason = "the context only lends the packet, which is ours alone while we run"
)]
#[inline(always)]
fn header<T>(ctx: &XdpContext, offset: usize) -> Option<&mut T> {
    const { assert!(align_of::<T>() <= 2) };
    let at = ctx.data() + offset;
    if at + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the whole T lies between data and data_end, T is plain bytes, and callers ask for disjoint offsets.
    Some(unsafe { &mut *(at as *mut T) })
}

/// Reads the headers.
#[inline(always)]
pub(crate) fn parse(ctx: &XdpContext) -> Parsed<'_> {
    let Some(eth) = header::<EthHdr>(ctx, 0) else { return Parsed::Other };
    if eth.ether_type != ETHERTYPE_IPV4 || eth.dst_addr[0] & 1 != 0 {
        return Parsed::Other;
    }
    let Some(ip) = header::<Ipv4Hdr>(ctx, EthHdr::LEN) else { return Parsed::Other };
    if ip.proto != PROTOCOL_TCP || ip.vihl >> 4 != 4 {
        return Parsed::Other;
    }
    let destination = Address::from_wire(ip.dst_addr);
    let unreadable = |reason| Parsed::Unreadable { destination, reason };

    let frame_length = ctx.data_end() - ctx.data();
    let ip_header_length = usize::from(ip.vihl & 0xf) * 4;
    let total_length = usize::from(u16::from_be_bytes(ip.tot_len));
    if ip_header_length < Ipv4Hdr::LEN || EthHdr::LEN + total_length > frame_length {
        return unreadable(Reason::BadLength);
    }
    if u16::from_be_bytes(ip.frags) & FRAGMENT_BITS != 0 {
        return unreadable(Reason::Fragment);
    }
    let Some(tcp) = header::<TcpHdr>(ctx, EthHdr::LEN + ip_header_length) else {
        return unreadable(Reason::BadLength);
    };
    let packet = Packet { eth, ip, tcp, frame_length: frame_length as u64 };
    let tcp_header_length = packet.header_length();
    if tcp_header_length < TcpHdr::LEN || total_length < ip_header_length + tcp_header_length {
        return unreadable(Reason::BadLength);
    }
    Parsed::Tcp(packet)
}
