//! A card is pulled: what should leave through it is dropped and counted. Its lab is good for nothing afterwards, so
//! each of these cases has one to itself.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Change, SNAT4, SNAT6, Scene, Side, dropped, run_all};

fn pulled(scene: &'static Scene) -> Case {
    let flow = scene.flow();
    Case::of(scene, "what should leave through a device that is gone is dropped")
        .handshake(flow)
        .then(Change::Pull(Side::Lan))
        .packet(flow.request())
        .expect(dropped(Reason::RedirectFailed))
        .packet(flow.of(scene.other_client).syn())
        .expect(dropped(Reason::RedirectFailed))
}

pub(super) fn cases() -> Vec<Case> {
    vec![pulled(&SNAT4), pulled(&SNAT6)]
}

#[test]
fn a_vanished_device_under_ipv4() {
    run_all("vanished4", &[pulled(&SNAT4)]).unwrap();
}

#[test]
fn a_vanished_device_under_ipv6() {
    run_all("vanished6", &[pulled(&SNAT6)]).unwrap();
}
