//! What the packet path does with packets, case by case, in the kernel.
//!
//! Each module is a topic: a list of cases, and the test that runs it in a lab of its own. Most cases are made once for
//! each of the four scenes: IPv4 and IPv6, snat and dnat. `segments` and `nonsense` are the same by random packets.
//! Adding a [`Reason`] makes [`every_reason_has_a_case`] fail until a case has it.

mod answers;
mod closing;
mod cycle;
mod extensions;
mod failover;
mod handshake;
mod holding;
mod icmp;
mod icmp_others;
mod jumbo;
mod limits;
mod nonsense;
mod partial;
mod published;
mod refused;
mod relearning;
mod retry;
mod segments;
mod snat;
mod spoofed;
mod strays;
mod tracing;
mod translation;
mod trials;
mod untouched;
mod vanished;

use std::collections::BTreeSet;

use balancer_common::verdict::{Fate, Reason};
use balancer_tests::case::{Case, Counter, Forwarding, SCENES, Scene};
use proptest::prelude::ProptestConfig;

/// Cases that hold in every scene.
fn everywhere(cases: impl Fn(&'static Scene) -> Vec<Case>) -> Vec<Case> {
    SCENES.into_iter().flat_map(cases).collect()
}

/// Cases that hold in the scenes of one way of forwarding.
fn in_all(forwarding: Forwarding, cases: impl Fn(&'static Scene) -> Vec<Case>) -> Vec<Case> {
    SCENES.into_iter().filter(|scene| scene.forwarding == forwarding).flat_map(cases).collect()
}

/// Cases that hold in the scenes of one family.
fn in_all_ipv4(cases: impl Fn(&'static Scene) -> Vec<Case>) -> Vec<Case> {
    SCENES.into_iter().filter(|scene| scene.is_ipv4()).flat_map(cases).collect()
}

/// As [`in_all_ipv4`], the other family.
fn in_all_ipv6(cases: impl Fn(&'static Scene) -> Vec<Case>) -> Vec<Case> {
    SCENES.into_iter().filter(|scene| !scene.is_ipv4()).flat_map(cases).collect()
}

/// How many random packets: some thousands, and as many as `BALANCER_PACKET_RUNS` says.
fn runs() -> ProptestConfig {
    let wanted = std::env::var("BALANCER_PACKET_RUNS").ok();
    let cases = wanted.map_or(4000, |text| text.parse().expect("BALANCER_PACKET_RUNS is a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn all_cases() -> Vec<Case> {
    [
        answers::cases(),
        closing::cases(),
        extensions::cases(),
        failover::cases(),
        handshake::cases(),
        holding::cases(),
        icmp::cases(),
        icmp_others::cases(),
        jumbo::cases(),
        limits::cases(),
        partial::cases(),
        refused::cases(),
        relearning::cases(),
        retry::cases(),
        snat::cases(),
        trials::cases(),
        spoofed::cases(),
        strays::cases(),
        translation::cases(),
        untouched::cases(),
        vanished::cases(),
    ]
    .concat()
}

/// What counts packets for this reason. What is answered is dropped beyond the limit, and where it deserves no answer.
fn counters(reason: Reason) -> &'static [Counter] {
    match reason.fate() {
        Fate::Drop => &[Counter::Drops],
        Fate::Answer => &[Counter::Answers, Counter::Drops],
        Fate::Pass => &[Counter::Passed],
    }
}

#[test]
fn every_reason_has_a_case() {
    let provoked: BTreeSet<(Counter, Reason)> = all_cases().iter().flat_map(Case::reasons).collect();
    let all =
        Reason::ALL.iter().flat_map(|reason| counters(*reason).iter().map(|counter| (*counter, *reason)));
    let missing: Vec<_> = all.filter(|counted| !provoked.contains(counted)).collect();
    assert!(missing.is_empty(), "no case provokes {missing:?}");
}

#[test]
fn every_claim_is_made_once() {
    let mut claims = BTreeSet::new();
    for case in all_cases() {
        assert!(claims.insert(case.name().to_owned()), "twice: {}", case.name());
    }
}

#[test]
fn there_are_more_than_a_thousand_cases() {
    let cases = all_cases().len();
    println!("{cases} packet cases");
    assert!(cases > 1000, "only {cases}");
}
