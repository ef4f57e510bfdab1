//! The peer: what forwarding a packet of a known IPv4 flow costs over the kernel's own table, with as little around it as
//! the job allows. And what the table's insert costs when it is full.
#![expect(unsafe_code, reason = "frames and map values are reached through raw pointers")]

use core::arch::asm;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{LruHashMap, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use balancer_common::checksum;

/// A flow's five-tuple, as it stands in the packet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
}

/// What a packet of the flow becomes, as it stands in the packet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Recipe {
    /// Destination, and the beginning of the source.
    macs: u64,
    /// The rest of the source.
    mac_end: u32,
    source: u32,
    destination: u32,
    ports: u32,
    /// What addresses and TTL do to the IP checksum.
    ip_delta: u16,
    /// What addresses and ports do to the TCP checksum.
    tcp_delta: u16,
    padding: u32,
}

/// Placeholder: the harness sets it, for both directions of as many flows as the program under test may have.
const ENTRIES: usize = 131_072;

/// The flows. Writer: the harness.
#[btf_map]
static FLOWS: LruHashMap<Key, Recipe, ENTRIES> = LruHashMap::new();

/// A table of the same size that is kept full. Writer: `floor_insert`.
#[btf_map]
static FULL: LruHashMap<Key, Recipe, ENTRIES> = LruHashMap::new();

/// Packets that were sent on, and those that were not. Writer: the programs here.
#[btf_map]
static COUNTS: PerCpuArray<u64, 2> = PerCpuArray::new();

const SENT: u32 = 0;
const FAILED: u32 = 1;

/// Headers without options.
const HEADERS: usize = 14 + 20 + 20;
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const TCP: u8 = 6;

/// Parse, one lookup, rewrite, count, send.
#[expect(clippy::needless_pass_by_value, reason = "the macro exports and calls it like this")]
#[xdp(frags)]
pub fn floor(ctx: XdpContext) -> u32 {
    let Some((frame, key)) = parse(&ctx) else { return failed() };
    let Some(recipe) = FLOWS.get_ptr(key) else { return failed() };
    // SAFETY: an element of the map, and any value of its integers is sound.
    let recipe = unsafe { recipe.read() };
    // SAFETY: fields of headers that lie within the frame, as `parse` found; all but those of 32 bits at even multiples
    // of their size, as frames begin on a word.
    unsafe {
        let ttl = (frame + 22) as *mut u8;
        if *ttl <= 1 {
            return failed();
        }
        (frame as *mut u64).write(recipe.macs);
        ((frame + 8) as *mut u32).write(recipe.mac_end);
        *ttl -= 1;
        let ip_check = (frame + 24) as *mut [u8; 2];
        ip_check.cast::<u16>().write(applied(ip_check, recipe.ip_delta));
        store::<26>(frame, recipe.source);
        store::<30>(frame, recipe.destination);
        store::<34>(frame, recipe.ports);
        let tcp_check = (frame + 50) as *mut [u8; 2];
        tcp_check.cast::<u16>().write(applied(tcp_check, recipe.tcp_delta));
    }
    count(SENT);
    xdp_action::XDP_TX
}

/// One insert, of the packet's flow.
#[expect(clippy::needless_pass_by_value, reason = "the macro exports and calls it like this")]
#[xdp(frags)]
pub fn floor_insert(ctx: XdpContext) -> u32 {
    let Some((_, key)) = parse(&ctx) else { return failed() };
    let recipe = Recipe {
        macs: 0,
        mac_end: 0,
        source: key.source,
        destination: key.destination,
        ports: key.ports,
        ip_delta: 0,
        tcp_delta: 0,
        padding: 0,
    };
    if FULL.insert(key, recipe, 0).is_err() {
        return failed();
    }
    count(SENT);
    xdp_action::XDP_TX
}

/// Where the frame is, and its five-tuple, if it is TCP over IPv4 without options.
#[inline(always)]
fn parse(ctx: &XdpContext) -> Option<(usize, Key)> {
    let frame = ctx.data();
    if frame + HEADERS > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame; aligned, as frames begin on a word.
    let (ether_type, version, protocol) = unsafe {
        (*((frame + 12) as *const u16), *((frame + 14) as *const u8), *((frame + 23) as *const u8))
    };
    if ether_type != ETHERTYPE_IPV4 || version != IPV4_WITHOUT_OPTIONS || protocol != TCP {
        return None;
    }
    // SAFETY: within the frame.
    let (source, destination, ports) = unsafe { (load::<26>(frame), load::<30>(frame), load::<34>(frame)) };
    Some((frame, Key { source, destination, ports, protocol: u32::from(TCP) }))
}

/// 32 bits of the frame in one go. The compiler would take two halves, as their address is no multiple of four; the
/// machines that run this don't mind.
///
/// # Safety
/// They lie within the frame.
#[inline(always)]
unsafe fn load<const OFFSET: usize>(frame: usize) -> u32 {
    let value: u64;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{value} = *(u32 *)({frame} + {offset})",
            value = out(reg) value,
            frame = in(reg) frame,
            offset = const OFFSET,
            options(readonly, nostack)
        );
    }
    value as u32
}

/// As [`load`].
///
/// # Safety
/// They lie within the frame.
#[inline(always)]
unsafe fn store<const OFFSET: usize>(frame: usize, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "*(u32 *)({frame} + {offset}) = {value}",
            value = in(reg) u64::from(value),
            frame = in(reg) frame,
            offset = const OFFSET,
            options(nostack)
        );
    }
}

/// A checksum field after its change.
///
/// # Safety
/// It lies within the frame, at an even address.
#[inline(always)]
unsafe fn applied(field: *const [u8; 2], delta: u16) -> u16 {
    // SAFETY: the caller's promise.
    let field = unsafe { field.cast::<u16>().read() };
    u16::from_ne_bytes(checksum::apply(field.to_ne_bytes(), delta))
}

#[inline(always)]
fn failed() -> u32 {
    count(FAILED);
    xdp_action::XDP_DROP
}

#[inline(always)]
fn count(what: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(what) {
        // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
        unsafe { *count += 1 };
    }
}
