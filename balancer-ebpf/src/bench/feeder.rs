//! Makes the packets that are measured: each run of the program writes the next one over whatever the last run left of
//! the frame, and hands it to the program under test. One test run is so many different packets.
#![expect(unsafe_code, reason = "frames are written and maps reached through raw pointers")]

use core::arch::asm;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

use crate::plan::{Part, Plan, WORDS_4, WORDS_6};

/// What to make. Writer: the harness before each test run; the packets made are counted here.
#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();

/// The program under test, in slot 0. Writer: the harness.
#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// What never happens and isn't a measurement: the harness fails on it.
pub(crate) const BROKEN: u32 = xdp_action::XDP_ABORTED;

/// Where a header's fields are in the frame.
struct Fields {
    ip_check: Option<usize>,
    source: usize,
    destination: usize,
    source_port: usize,
    destination_port: usize,
    tcp_check: usize,
}

const IPV4: Fields = Fields {
    ip_check: Some(24),
    source: 26,
    destination: 30,
    source_port: 34,
    destination_port: 36,
    tcp_check: 50,
};

/// The low 32 bits of the addresses.
const IPV6: Fields = Fields {
    ip_check: None,
    source: 34,
    destination: 50,
    source_port: 54,
    destination_port: 56,
    tcp_check: 70,
};

/// With frags, as a program array takes only programs that are alike in that, and the program under test has them.
#[expect(clippy::needless_pass_by_value, reason = "the macro exports and calls it like this")]
#[xdp(frags)]
pub fn feeder(ctx: XdpContext) -> u32 {
    let Some(plan) = PLAN.get_ptr_mut(0) else { return BROKEN };
    // SAFETY: the map's only element; the harness doesn't touch it while the program runs, and runs it on one CPU.
    let told = unsafe { &*plan.cast_const() };
    let flow = told.first + (told.made.wrapping_mul(told.step) & told.mask);
    if !write_any(&ctx, told, flow) {
        return BROKEN;
    }
    // SAFETY: an aligned word of the element above. Atomic for what that does besides: the frame's new bytes are in the
    // cache when it is done. Packets of a network card are; reading them out of the store buffer would cost each program
    // something else, depending on how wide it reads.
    unsafe {
        asm!(
            "lock *(u64 *)({made} + 0) += {one}",
            made = in(reg) &raw mut (*plan).made,
            one = in(reg) 1_u64,
            options(nostack)
        );
    }
    hand_over(&ctx)
}

/// The frame to the program under test, which ends the run.
#[inline(always)]
pub(crate) fn hand_over(ctx: &XdpContext) -> u32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { PROGRAMS.tail_call(ctx, 0) };
    BROKEN
}

/// Writes the packet of this flow, of whichever family; false if the frame has no room for it.
#[inline(always)]
pub(crate) fn write_any(ctx: &XdpContext, plan: &Plan, flow: u64) -> bool {
    if plan.is_ipv6 == 0 {
        write::<WORDS_4>(ctx, plan, flow, &IPV4)
    } else {
        write::<WORDS_6>(ctx, plan, flow, &IPV6)
    }
}

/// Writes the packet of this flow; false if the frame has no room for it.
#[inline(always)]
fn write<const WORDS: usize>(ctx: &XdpContext, plan: &Plan, flow: u64, at: &Fields) -> bool {
    let wanted = WORDS * size_of::<u64>();
    let length = ctx.data_end() - ctx.data();
    if length != wanted {
        // What was here last has been made an answer of another size.
        let change = wanted as i64 - length as i64;
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, change as i32) } != 0 {
            return false;
        }
    }
    let frame = ctx.data();
    if frame + wanted > ctx.data_end() {
        return false;
    }
    let words = frame as *mut u64;
    for (index, word) in plan.frame.iter().take(WORDS).enumerate() {
        // SAFETY: within the frame, which begins on a word in a test run. Volatile, or it might be made a call.
        unsafe { words.add(index).write_volatile(*word) };
    }
    let source = offset(&plan.source, flow);
    let destination = offset(&plan.destination, flow);
    let source_port = offset(&plan.source_port, flow);
    let destination_port = offset(&plan.destination_port, flow);
    put_address(frame + at.source, plan.source.first + source);
    put_address(frame + at.destination, plan.destination.first + destination);
    put(frame + at.source_port, plan.source_port.first + source_port);
    put(frame + at.destination_port, plan.destination_port.first + destination_port);
    let addresses = source + destination;
    put(frame + at.tcp_check, checksum(plan.tcp_sum + addresses + source_port + destination_port));
    if let Some(ip_check) = at.ip_check {
        put(frame + ip_check, checksum(plan.ip_sum + addresses));
    }
    true
}

#[inline(always)]
fn offset(part: &Part, flow: u64) -> u64 {
    flow >> part.shift & part.mask
}

/// The checksum for a sum of numbers of any width: 2^16 is 1 modulo 0xffff, so adding to a number of 32 bits adds as
/// much to the sum of its halves.
#[inline(always)]
fn checksum(sum: u64) -> u64 {
    // Less than 2^34: after the first fold 19 bits, after the second 17, after the third 16.
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    !((twice & 0xffff) + (twice >> 16))
}

#[inline(always)]
fn put_address(at: usize, number: u64) {
    put(at, number >> 16);
    put(at + 2, number);
}

/// The low 16 bits, as the wire has them.
#[inline(always)]
fn put(at: usize, number: u64) {
    // SAFETY: callers add the offset of a header's field to a frame that was found to be long enough; all are even.
    unsafe { (at as *mut u16).write((number as u16).to_be()) };
}
