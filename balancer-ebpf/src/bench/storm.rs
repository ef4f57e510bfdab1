//! A storm: packets of all kinds of many flows in no order, another one on each CPU, all into the program under test.
//! Nothing is measured with it; whoever sends one looks afterwards at what it has left in the tables.
#![expect(unsafe_code, reason = "maps are reached through raw pointers")]

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

use crate::feeder::{BROKEN, hand_over, write_any};
use crate::plan::{KINDS, Plan, Storm};

/// What kinds of packets there are, each as likely as any other; of a plan only what a packet looks like is used. Writer:
/// the harness, while nobody runs.
#[btf_map]
static STORM_KINDS: Array<Plan, KINDS> = Array::new();

/// Where each CPU is in its sequence. Writer: the harness before a test run, this program in it.
#[btf_map]
static STORMS: PerCpuArray<Storm, 1> = PerCpuArray::new();

/// One packet of the storm. With frags, as the feeder.
#[expect(clippy::needless_pass_by_value, reason = "the macro exports and calls it like this")]
#[xdp(frags)]
pub fn storm(ctx: XdpContext) -> u32 {
    let Some(storm) = STORMS.get_ptr_mut(0) else { return BROKEN };
    // SAFETY: this CPU's own element, and XDP runs to its end before the next packet of this CPU.
    let random = unsafe {
        // Marsaglia's xorshift: never zero if it didn't begin there.
        let mut random = (*storm).random;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (*storm).random = random;
        (*storm).made += 1;
        random
    };
    let kind = random as u32 % KINDS as u32;
    let Some(plan) = STORM_KINDS.get_ptr(kind) else { return BROKEN };
    // SAFETY: a whole element, which nobody writes while this runs.
    let plan = unsafe { &*plan };
    // SAFETY: as above.
    let flow = random >> 32 & unsafe { (*storm).mask };
    if !write_any(&ctx, plan, flow) {
        return BROKEN;
    }
    hand_over(&ctx)
}
