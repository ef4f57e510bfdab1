//! Programs that measure whole paths (`cargo xtask bench path`): who sends frames, the least that XDP can do with them,
//! and who takes them at the end.
//!
//! None of this is in the product's object, and nothing here knows the product.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "what the xdp macro makes has no documentation; what it is made from has")]
#![expect(unreachable_pub, reason = "the macro exports programs like this")]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, DevMap};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The shortest frame of Ethernet, without its checksum. In words, or it would be copied byte by byte.
type Frame = [u32; 15];

/// Where `redirect` and `replay` send to.
#[btf_map]
static OUT: DevMap<1> = DevMap::new();

/// What `replay` sends.
#[btf_map]
static FRAME: Array<Frame, 1> = Array::new();

/// Sends everything on as it is: no XDP program that forwards can do less.
#[xdp(frags)]
pub fn redirect(_ctx: XdpContext) -> u32 {
    on()
}

/// Drops everything: what came this far was counted by the interface.
#[xdp(frags)]
pub fn drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Sends `FRAME`. The kernel uses the pages of replayed frames again as they come back, rewritten by whoever forwarded
/// them, so each frame is written anew.
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it like this")]
#[xdp]
pub fn replay(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + size_of::<Frame>() > end {
        return xdp_action::XDP_ABORTED;
    }
    let Some(frame) = FRAME.get(0) else { return xdp_action::XDP_ABORTED };
    #[expect(unsafe_code, reason = "packets are reached by pointers")]
    // SAFETY: the packet is at least that long, as was just compared, it begins at a whole word (the kernel's headroom is
    // 256 bytes), and nobody else has it meanwhile.
    unsafe {
        (start as *mut Frame).write(*frame);
    }
    on()
}

fn on() -> u32 {
    OUT.redirect(0, 0).unwrap_or_else(|action| action)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that no panic is reachable; a loop without end would not even load.
    loop {}
}

/// As the product's: the loader finds the licence by its section.
#[expect(unsafe_code, reason = "the loader finds the licence by its section, in which nothing else may be")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
