//! What the gateway itself says to a packet that it can't forward: built from scratch.

use std::net::IpAddr;

use balancer_common::verdict::Reason;

use super::given::Given;
use super::scene::Side;
use crate::packet::{Body, DONT_FRAGMENT, Ethernet, Icmp, Ip, Packet, flags};

/// RFC 1812, section 4.3.2.3: as much of the packet as fits into 576 bytes. What is quoted here is whole words of it.
const QUOTE_BYTES: usize = 512;

/// The frame that answers this packet, which came in on this side.
pub(super) fn to(packet: &Packet, reason: Reason, given: &Given, through: Side) -> Result<Vec<u8>, String> {
    let is_ipv4 = packet.source.is_ipv4();
    match reason {
        Reason::NoFlow if packet.flags & flags::ACK != 0 => Ok(reset(packet, through)),
        Reason::NoFlow | Reason::AllDown => Ok(refusal(packet, through)),
        Reason::TtlExpired => {
            let kind = if is_ipv4 { 11 } else { 3 };
            error(packet, given, through, kind, 0, 0)
        }
        Reason::TooBig => {
            let is_to_backend = given.service(packet.destination).is_some();
            let mtu = if is_to_backend { given.lan_mtu } else { given.wan_mtu };
            let (kind, code) = if is_ipv4 { (3, 4) } else { (2, 0) };
            error(packet, given, through, kind, code, mtu)
        }
        _ => Err(format!("there is no answer to {}", reason.name())),
    }
}

/// As the gateway fills in the header of what it sends itself.
fn own_header() -> Ip {
    Ip { ttl: 64, id: 0, fragment: DONT_FRAGMENT, flow_label: 0, ..Ip::default() }
}

fn back_to(packet: &Packet, through: Side) -> Ethernet {
    Ethernet { source: through.mac(), destination: packet.ethernet.source, ..Ethernet::default() }
}

/// RFC 9293, section 3.10.7.1: the answer to a segment of no connection that has an ACK.
fn reset(packet: &Packet, through: Side) -> Vec<u8> {
    own_segment(packet, through, |answer| answer.rst().seq(packet.acknowledgement))
}

/// The same section: the answer to one without, a SYN or a bare FIN.
fn refusal(packet: &Packet, through: Side) -> Vec<u8> {
    own_segment(packet, through, |answer| answer.rst_ack().acks(packet.sequence.wrapping_add(1)))
}

fn own_segment(packet: &Packet, through: Side, says: impl FnOnce(Packet) -> Packet) -> Vec<u8> {
    says(Packet::new(packet.destination, packet.source))
        .with(|reset| {
            reset.ethernet = back_to(packet, through);
            reset.ip = own_header();
            reset.window = 0;
        })
        .to_frame()
}

fn error(
    packet: &Packet,
    given: &Given,
    through: Side,
    kind: u8,
    code: u8,
    rest: u32,
) -> Result<Vec<u8>, String> {
    let from = match given.service(packet.destination) {
        Some(_) => packet.destination.ip(),
        None => own_address_towards(packet.source.ip(), given)?,
    };
    let mut quote = packet.to_packet();
    quote.truncate(quote.len().min(QUOTE_BYTES) / 4 * 4);
    let error = Icmp::new(from, packet.source.ip(), kind, code).rest(rest).with(|error| {
        error.ethernet = back_to(packet, through);
        error.ip = own_header();
        error.body = Body::Bytes(quote);
    });
    Ok(error.to_frame())
}

fn own_address_towards(backend: IpAddr, given: &Given) -> Result<IpAddr, String> {
    let (pool, _) = given.member(backend).ok_or_else(|| format!("{backend} is no backend"))?;
    Ok(pool.scene.gateway)
}
