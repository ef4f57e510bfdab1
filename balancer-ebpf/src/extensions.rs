//! IPv6 extension headers: what lies between the IPv6 header and TCP or ICMPv6.
//!
//! They stay in the packet as they are; here they are only stepped over.
#![expect(unsafe_code, reason = "a per-CPU element is read and written in place")]

use core::hint::black_box;

use aya_ebpf::programs::XdpContext;
use balancer_common::limits::MAX_EXTENSION_HEADERS;
use balancer_common::verdict::Reason;

use crate::maps::CHAIN_END;
use crate::parse::{PROTOCOL_TCP, header};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Where a chain of extension headers leads.
pub(crate) enum Chain {
    /// To this protocol, whose header begins there.
    EndsIn(u8, usize),
    /// To TCP, or nowhere that can be seen.
    Wrong(Reason),
}

/// The end of a chain. In a map, not in variables: the verifier would walk everything that comes after once for each
/// length that a chain can have.
#[repr(C)]
pub(crate) struct End {
    protocol: u32,
    at: u32,
}

/// No chain of six reaches further than this.
const AT_MASK: u32 = 0x3fff;

/// Steps over the extension headers from `at`, the first of which has the number `protocol`.
#[inline(always)]
pub(crate) fn walk(ctx: &XdpContext, protocol: u8, at: usize) -> Chain {
    if !is_extension(protocol) {
        return Chain::EndsIn(protocol, at);
    }
    match Reason::from_number(walk_on(ctx, protocol, at)) {
        Some(reason) => Chain::Wrong(reason),
        None => found(),
    }
}

/// What [`walk`] returned for this packet, which it walked well.
#[inline(always)]
pub(crate) fn walked(protocol: u8, at: usize) -> Chain {
    if is_extension(protocol) { found() } else { Chain::EndsIn(protocol, at) }
}

#[inline(always)]
fn found() -> Chain {
    match CHAIN_END.get_ptr(0) {
        // SAFETY: this CPU's own element, filled for this packet.
        Some(end) => unsafe { Chain::EndsIn((*end).protocol as u8, ((*end).at & AT_MASK) as usize) },
        None => Chain::Wrong(Reason::ExtensionHeaders),
    }
}

/// No reason's number.
const WALKED: u8 = u8::MAX;

/// A subprogram: few packets come here.
#[inline(never)]
fn walk_on(ctx: &XdpContext, mut protocol: u8, mut at: usize) -> u8 {
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(protocol) {
            return end(protocol, at);
        }
        // Next header, length, and for a routing header its type and the stops still to go.
        let Some([next, length, _, stops_left]) = header::<[u8; 4]>(ctx, black_box(at)) else {
            return Reason::BadLength as u8;
        };
        at += match protocol {
            // What is for TCP, or hides what it is for; others' fragments are theirs.
            FRAGMENT if *next == PROTOCOL_TCP || is_extension(*next) => return Reason::Fragment as u8,
            FRAGMENT => return end(FRAGMENT, at),
            ROUTING if *stops_left != 0 => return Reason::ExtensionHeaders as u8,
            AUTHENTICATION => (usize::from(*length) + 2) * 4,
            _ => (usize::from(*length) + 1) * 8,
        };
        protocol = *next;
    }
    if is_extension(protocol) { Reason::ExtensionHeaders as u8 } else { end(protocol, at) }
}

#[inline(always)]
fn end(protocol: u8, at: usize) -> u8 {
    match CHAIN_END.get_ptr_mut(0) {
        Some(end) => {
            // SAFETY: this CPU's own element.
            unsafe { *end = End { protocol: protocol.into(), at: at as u32 } };
            WALKED
        }
        None => Reason::ExtensionHeaders as u8,
    }
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}
