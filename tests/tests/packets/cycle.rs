//! SNAT ports are handed out in a cycle: the one that was freed last comes last, so that backends have long forgotten
//! the connection that had it before.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use balancer_tests::case::{Action, Flow, Gateway, SNAT4, SNAT6, Scene, Side, on_a_gateway, usual};
use balancer_tests::packet::{Packet, TCP_BYTES};

const PORTS: std::ops::RangeInclusive<u16> = 50000..=50006;

/// The port of the gateway's that this flow's SYN leaves with.
fn open(program: &mut Gateway, flow: Flow) -> Result<u16> {
    let syn = flow.syn();
    let outcome = program.run(Side::Wan, &syn.to_frame())?;
    ensure!(outcome.action == Action::Redirect, "{:?}", outcome.action);
    let at = outcome.frame.len() - TCP_BYTES;
    Ok(u16::from_be_bytes([outcome.frame[at], outcome.frame[at + 1]]))
}

fn forwarded(program: &mut Gateway, packet: &Packet) -> Result<()> {
    let outcome = program.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
    ensure!(outcome.action == Action::Redirect, "{packet:?}: {:?}", outcome.action);
    Ok(())
}

fn client(scene: &'static Scene, number: u16) -> Flow {
    scene.flow().of(SocketAddr::new(scene.client.ip(), 40000 + number))
}

/// The ports of so many connections that are refused one after the other.
fn ports_of_refused(scene: &'static Scene, connections: u16) -> Result<Vec<u16>> {
    let mut program = Gateway::told(&usual().snat_ports(PORTS))?;
    let mut ports = Vec::new();
    for number in 0..connections {
        let flow = client(scene, number);
        let port = open(&mut program, flow)?;
        forwarded(&mut program, &flow.seen_as_port(port).refusal())?;
        ports.push(port);
    }
    Ok(ports)
}

fn every_port_in_turn(label: &str, scene: &'static Scene) -> Result<()> {
    let ports = on_a_gateway(label, || ports_of_refused(scene, 3 * PORTS.len() as u16))?;
    let rounds: Vec<&[u16]> = ports.chunks(PORTS.len()).collect();
    let mut sorted = rounds[0].to_vec();
    sorted.sort_unstable();
    ensure!(sorted == PORTS.collect::<Vec<_>>(), "not each once before any twice: {ports:?}");
    ensure!(rounds[1] == rounds[0] && rounds[2] == rounds[0], "not always in the same order: {ports:?}");
    Ok(())
}

#[test]
fn every_ipv4_port_is_used_once_before_any_is_used_twice() {
    every_port_in_turn("cycle4", &SNAT4).unwrap();
}

#[test]
fn every_ipv6_port_is_used_once_before_any_is_used_twice() {
    every_port_in_turn("cycle6", &SNAT6).unwrap();
}
