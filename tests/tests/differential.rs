//! Balancer does to each packet what the kernel's own NAT does, and where it doesn't, that is listed (`twin/listed.rs`).
//!
//! `BALANCER_CONVERSATIONS` makes the runs longer, `BALANCER_CONVERSATION_SEED` other ones, and `BALANCER_CONVERSATION` runs
//! a single one again.

use std::{env, ops::Range};

use anyhow::{Context, Result, ensure};
use balancer_tests::twin::{Conversation, Family, Forwarding, Odd, Scene, Twins};

/// Any number would do; a fixed one makes a failure come again.
const SEED: u64 = 2026;
const USUAL_MTU: u16 = 1500;
/// Of the way to the backend, where something is to be too long for it.
const SMALLER_MTU: u16 = 1400;

#[test]
fn ipv4_conversations_come_out_of_snat_as_out_of_the_kernels_masquerade() -> Result<()> {
    converse("v4_snat", Family::V4, Forwarding::Snat, 1000)
}

#[test]
fn ipv6_conversations_come_out_of_snat_as_out_of_the_kernels_masquerade() -> Result<()> {
    converse("v6_snat", Family::V6, Forwarding::Snat, 500)
}

#[test]
fn ipv4_conversations_come_out_of_dnat_as_out_of_the_kernels() -> Result<()> {
    converse("v4_dnat", Family::V4, Forwarding::Dnat, 500)
}

#[test]
fn ipv6_conversations_come_out_of_dnat_as_out_of_the_kernels() -> Result<()> {
    converse("v6_dnat", Family::V6, Forwarding::Dnat, 500)
}

#[test]
fn odd_ipv4_packets_are_treated_by_snat_as_by_the_kernel_or_as_listed() -> Result<()> {
    odd_packets("odd_v4_snat", Family::V4, Forwarding::Snat)
}

#[test]
fn odd_ipv6_packets_are_treated_by_snat_as_by_the_kernel_or_as_listed() -> Result<()> {
    odd_packets("odd_v6_snat", Family::V6, Forwarding::Snat)
}

#[test]
fn odd_ipv4_packets_are_treated_by_dnat_as_by_the_kernel_or_as_listed() -> Result<()> {
    odd_packets("odd_v4_dnat", Family::V4, Forwarding::Dnat)
}

#[test]
fn odd_ipv6_packets_are_treated_by_dnat_as_by_the_kernel_or_as_listed() -> Result<()> {
    odd_packets("odd_v6_dnat", Family::V6, Forwarding::Dnat)
}

/// Runs the whole table, and tells all rows that fail.
fn odd_packets(label: &str, family: Family, forwarding: Forwarding) -> Result<()> {
    let scene = Scene { family, forwarding, lan_mtu: SMALLER_MTU };
    let mut twins = Twins::new(label, scene)?;
    let table = Odd::table(scene);
    let mut failures = Vec::new();
    for (number, odd) in table.iter().enumerate() {
        if let Err(error) = odd.run(&mut twins, scene, number as u64) {
            failures.push(format!("{}: {error:#}", odd.name));
        }
    }
    println!("{scene}, {} odd packets: {}", table.len(), twins.tally);
    let count = failures.len();
    ensure!(
        failures.is_empty(),
        "{scene}: {count} of {} rows fail\n\n{}",
        table.len(),
        failures.join("\n\n")
    );
    Ok(())
}

fn converse(label: &str, family: Family, forwarding: Forwarding, usual: u64) -> Result<()> {
    let scene = Scene { family, forwarding, lan_mtu: USUAL_MTU };
    let seed = number("BALANCER_CONVERSATION_SEED")?.unwrap_or(SEED);
    let numbers = match number("BALANCER_CONVERSATION")? {
        Some(only) => only..only + 1,
        None => 0..number("BALANCER_CONVERSATIONS")?.unwrap_or(usual),
    };
    let mut rest = numbers;
    while !rest.is_empty() {
        let end = rest.end.min(rest.start + Scene::CONVERSATIONS_MAX);
        let tally = converse_once(label, scene, seed, rest.start..end)?;
        println!("{scene}, conversations {} to {}: {tally}", rest.start, end - 1);
        rest.start = end;
    }
    Ok(())
}

/// In one pair of labs.
fn converse_once(label: &str, scene: Scene, seed: u64, numbers: Range<u64>) -> Result<String> {
    let mut twins = Twins::new(label, scene)?;
    for index in numbers {
        let conversation = Conversation::new(scene, seed, index);
        twins.hold(&conversation).with_context(|| {
            format!("{scene}: again with BALANCER_CONVERSATION_SEED={seed} BALANCER_CONVERSATION={index}")
        })?;
    }
    Ok(twins.tally.to_string())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = env::var(variable) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{variable}={text}: not a number"))
}
