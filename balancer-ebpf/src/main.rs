//! The packet path of balancer: one XDP program, attached to every interface through which packets of clients or
//! backends arrive.
//!
//! `pipeline` tells what happens to a packet, and reads as one screen; the other modules are its steps. Deliberately
//! absent: any decision about which backend should be active. It stands in one word that the controller writes.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(missing_docs, reason = "what the xdp macro makes has no documentation; what it is made from has")]

mod answer;
mod atomics;
mod clock;
mod craft;
mod direction;
mod draft;
mod established;
mod express;
mod extensions;
mod family;
mod features;
mod fetch;
mod flow_table;
mod forward;
mod frame;
mod handshake;
mod hold;
mod icmp;
mod maps;
mod memory;
mod parse;
mod pipeline;
mod promotion;
mod report;
mod retry;
mod room;
mod service;
mod signals;
mod subprograms;
mod trace;
mod unknown;
mod way;
mod words;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use balancer_common::verdict::{Outcome, Reason, Verdict};

/// Entry point for kernels that hand over frames in several buffers (5.18).
#[expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro exports and calls it like this"
)]
#[xdp(frags)]
pub fn balancer(ctx: XdpContext) -> u32 {
    run(&ctx)
}

/// Entry point for kernels before that, with `FRAGS` off.
#[expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro exports and calls it like this"
)]
#[xdp]
pub fn balancer_linear(ctx: XdpContext) -> u32 {
    run(&ctx)
}

/// Never attached: run by the controller, to know this program's time.
#[expect(unreachable_pub, reason = "the macro exports and calls it like this")]
#[xdp]
pub fn read_clock(_ctx: XdpContext) -> u32 {
    clock::tell();
    xdp_action::XDP_DROP
}

/// Never attached: run by the controller on a frame of its own, which goes on from there into the kernel's stack as if it
/// had come in through its interface. In generic mode the packet path is what it meets first there.
#[expect(unreachable_pub, reason = "the macro exports and calls it like this")]
#[xdp]
pub fn come_in(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// From a packet's fate to the kernel's word for it. In both entry points, of which one is loaded: a call less
/// is worth it.
#[inline(always)]
fn run(ctx: &XdpContext) -> u32 {
    if trace::is_on() {
        subprograms::trace_came(ctx.ctx);
    }
    let verdict = pipeline::decide(ctx);
    // Before everything else, as it is what becomes of most.
    let action = if verdict.is_forward() { xdp_action::XDP_REDIRECT } else { act(ctx, verdict) };
    if trace::is_on() {
        subprograms::trace_went(ctx.ctx, verdict.to_word(), action);
    }
    action
}

/// Does what the verdict says to a packet that doesn't go on.
#[inline(always)]
fn act(ctx: &XdpContext, verdict: Verdict) -> u32 {
    match verdict.outcome() {
        Outcome::Forward => xdp_action::XDP_REDIRECT,
        Outcome::Pass => xdp_action::XDP_PASS,
        // Another CPU has changed the flow between two stages: the sender repeats the packet.
        Outcome::Next(_) => drop(Reason::BadHandshake),
        Outcome::PassCounted(reason) => {
            report::passed(reason);
            xdp_action::XDP_PASS
        }
        Outcome::Drop(reason) => drop(reason),
        Outcome::Answer(answer) => answer::send(ctx, answer),
    }
}

fn drop(reason: Reason) -> u32 {
    report::dropped(reason);
    xdp_action::XDP_DROP
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
