//! The packet path of balancer: one XDP program, attached to every interface through which packets of clients or
//! backends arrive.
//!
//! `pipeline` tells what happens to a packet, and reads as one screen; the other modules are its steps. Deliberately
//! absent: any decision about which backend should be active. It stands in one word that the controller writes.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "what the xdp macro makes has no documentation; what it is made from has")]

mod flow_table;
mod forward;
mod maps;
mod parse;
mod pipeline;
mod report;
mod service;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use balancer_common::verdict::Verdict;

/// Entry point: from a packet's fate to the kernel's word for it.
#[expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro exports and calls it like this"
)]
#[xdp]
pub fn balancer(ctx: XdpContext) -> u32 {
    match pipeline::decide(&ctx) {
        Verdict::Forward(interface) => forward::redirect(interface),
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop(reason) => {
            report::dropped(reason);
            xdp_action::XDP_DROP
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that no panic is reachable; a loop without end would not even load.
    loop {}
}

/// Dual, so that GPL-only helpers may be called; the source is MIT OR Apache-2.0 as everything here.
#[expect(unsafe_code, reason = "the loader finds the licence by its section, in which nothing else may be")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
