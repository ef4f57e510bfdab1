//! Programs that measure the packet path (`cargo xtask bench packet`), and one that puts it under stress: who makes packets,
//! and peers to compare with.
//!
//! None of this is in the product's object, and nothing here knows how the product's tables are made: the program under
//! test is reached by a tail call, as a kernel would call it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "what the xdp macro makes has no documentation; what it is made from has")]
#![expect(unreachable_pub, reason = "the macro exports programs like this")]

mod feeder;
mod floor;
mod plan;
mod storm;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Nothing: what is left is the cost of making packets.
#[xdp(frags)]
pub fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
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
