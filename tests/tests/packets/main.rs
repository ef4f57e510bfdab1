//! What the packet path does with packets, case by case, in the kernel.
//!
//! Each module is a topic: a list of cases, and the test that runs it in a lab of its own. `segments` and `nonsense`
//! are the same by random packets. Adding a [`Reason`] makes [`every_reason_has_a_case`] fail until a case has it.

mod closing;
mod failover;
mod handshake;
mod limits;
mod nonsense;
mod refused;
mod segments;
mod snat;
mod translation;
mod untouched;
mod vanished;

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use balancer_common::verdict::Reason;
use balancer_tests::case::{BACKEND_ISN, CLIENT_ISN, Case, tcp};
use balancer_tests::packet::Packet;
use proptest::prelude::ProptestConfig;

/// The client's sequence number after the handshake.
const CLIENT_NEXT: u32 = CLIENT_ISN.wrapping_add(1);
/// The backend's sequence number after the handshake.
const BACKEND_NEXT: u32 = BACKEND_ISN.wrapping_add(1);

/// A client's SYN, as handshakes begin in these cases.
fn syn(client: SocketAddrV4, service: SocketAddrV4) -> Packet {
    tcp(client, service).syn().seq(CLIENT_ISN)
}

/// A SYN of another connection than [`syn`].
fn another_syn(client: SocketAddrV4, service: SocketAddrV4) -> Packet {
    tcp(client, service).syn().seq(CLIENT_ISN.wrapping_add(0x0100_0000))
}

/// A backend's answer to [`syn`].
fn syn_ack(backend: SocketAddrV4, gateway: SocketAddrV4) -> Packet {
    tcp(backend, gateway).syn_ack().seq(BACKEND_ISN).acks(CLIENT_NEXT)
}

/// The client's first segment after the handshake, an ACK until told otherwise.
fn from_client(client: SocketAddrV4, service: SocketAddrV4) -> Packet {
    tcp(client, service).ack().seq(CLIENT_NEXT).acks(BACKEND_NEXT)
}

/// The backend's first segment after the handshake, an ACK until told otherwise.
fn from_backend(backend: SocketAddrV4, gateway: SocketAddrV4) -> Packet {
    tcp(backend, gateway).ack().seq(BACKEND_NEXT).acks(CLIENT_NEXT)
}

/// How many random packets: some thousands, and as many as `BALANCER_PACKET_RUNS` says.
fn runs() -> ProptestConfig {
    let wanted = std::env::var("BALANCER_PACKET_RUNS").ok();
    let cases = wanted.map_or(4000, |text| text.parse().expect("BALANCER_PACKET_RUNS is a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn all_cases() -> Vec<Case> {
    [
        closing::cases(),
        failover::cases(),
        handshake::cases(),
        limits::cases(),
        refused::cases(),
        snat::cases(),
        translation::cases(),
        untouched::cases(),
        vanished::cases(),
    ]
    .concat()
}

#[test]
fn every_reason_has_a_case() {
    let provoked: BTreeSet<Reason> = all_cases().iter().flat_map(Case::reasons).collect();
    let missing: Vec<Reason> =
        Reason::ALL.iter().copied().filter(|reason| !provoked.contains(reason)).collect();
    assert!(missing.is_empty(), "no case provokes {missing:?}");
}

#[test]
fn every_claim_is_made_once() {
    let mut claims = BTreeSet::new();
    for case in all_cases() {
        assert!(claims.insert(case.name().to_owned()), "twice: {}", case.name());
    }
}
