//! The flow tables under stress, in the kernel: two CPUs and the sweeper at once lose, double and mix no flow.
//!
//! `BALANCER_STRESS_PACKETS` says how many packets (a million unless told), `BALANCER_STRESS_SEED` which.

use std::env;
use std::path::PathBuf;

use balancer_tests::packet_bench::storm;

fn number(variable: &str, unless_told: u64) -> u64 {
    env::var(variable).map_or(unless_told, |told| told.parse().expect("a number"))
}

#[test]
fn no_flow_is_lost_doubled_or_mixed_when_two_cpus_and_the_sweeper_are_at_work() {
    let object =
        env::var_os("BALANCER_BENCH_OBJECT").expect("BALANCER_BENCH_OBJECT: `cargo xtask test` sets it");
    let packets = number("BALANCER_STRESS_PACKETS", 1_000_000);
    let seed = number("BALANCER_STRESS_SEED", 0x5eed);
    storm(&PathBuf::from(object), packets, seed).unwrap();
}
