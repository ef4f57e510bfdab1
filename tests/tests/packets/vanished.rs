//! A card is pulled: what should leave through it is dropped and counted. Its lab is good for nothing afterwards, so
//! this case has one to itself.

use balancer_common::verdict::Reason;
use balancer_tests::case::{CLIENT, Case, Change, OTHER_CLIENT, PRIMARY, Side, WEB, dropped, run_all};

use super::{from_client, syn};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("what should leave through a device that is gone is dropped")
            .handshake(CLIENT, WEB, PRIMARY)
            .then(Change::Pull(Side::Lan))
            .packet(from_client(CLIENT, WEB))
            .expect(dropped(Reason::RedirectFailed))
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(dropped(Reason::RedirectFailed)),
    ]
}

#[test]
fn a_vanished_device() {
    run_all("vanished", &cases()).unwrap();
}
