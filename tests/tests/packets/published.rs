//! What is published stays a service's until it is taken back, in whatever order the controller writes its tables.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use balancer_tests::case::{Action, Gateway, SCENES, Scene, Side, on_a_gateway, usual};
use balancer_tests::packet::Packet;

/// What becomes of a new client's SYN.
fn asked_by(gateway: &mut Gateway, scene: &'static Scene, client_port: u16) -> Result<Action> {
    Ok(gateway.run(Side::Wan, &syn(scene, client_port).to_frame())?.action)
}

fn syn(scene: &'static Scene, client_port: u16) -> Packet {
    scene.flow().of(SocketAddr::new(scene.client.ip(), client_port)).syn()
}

fn leaves(scene: &'static Scene) -> Result<()> {
    let mut gateway = Gateway::told(&usual())?;
    gateway.begin_anew()?;
    let before = asked_by(&mut gateway, scene, 40_001)?;
    gateway.plan_without(scene)?;
    let meanwhile = asked_by(&mut gateway, scene, 40_002)?;
    // A SYN of the same tuple that goes nowhere leaves nothing behind.
    gateway.run(Side::Wan, &syn(scene, 40_003).ttl(1).to_frame())?;
    gateway.publish()?;
    let after = asked_by(&mut gateway, scene, 40_003)?;
    let expected = [Action::Redirect, Action::Redirect, Action::Pass];
    ensure!([before, meanwhile, after] == expected, "{}: {before:?}, {meanwhile:?}, {after:?}", scene.name);
    Ok(())
}

#[test]
fn a_service_is_one_until_it_is_published_no_more() {
    on_a_gateway("published", || SCENES.into_iter().try_for_each(leaves)).unwrap();
}
