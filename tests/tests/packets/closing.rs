//! How a flow ends, and when its client may begin another with the same port.

use std::time::Duration;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    BACKUP, CLIENT, Case, Change, PRIMARY, WEB, dropped, forwarded_to, gateway, returned_to, run_all,
};
use balancer_tests::packet::Packet;

use super::{BACKEND_NEXT, CLIENT_NEXT, another_syn, from_backend, from_client, syn};

/// A flow to the primary, in a pool that has moved to the backup since: where the next SYN goes shows what is known.
fn a_flow(claim: &str) -> Case {
    Case::new(claim).handshake(CLIENT, WEB, PRIMARY).then(Change::Activate(Some(BACKUP)))
}

fn to_client() -> Packet {
    from_backend(PRIMARY.at(10001), gateway(30000))
}

/// Both sides have sent FIN, and both are acknowledged.
fn a_closed_flow(claim: &str) -> Case {
    a_flow(claim)
        .packet(from_client(CLIENT, WEB).fin())
        .expect(forwarded_to(PRIMARY))
        .packet(to_client().fin().acks(CLIENT_NEXT.wrapping_add(1)))
        .expect(returned_to(CLIENT))
        .packet(last_ack())
        .expect(forwarded_to(PRIMARY))
}

fn last_ack() -> Packet {
    from_client(CLIENT, WEB).seq(CLIENT_NEXT.wrapping_add(1)).acks(BACKEND_NEXT.wrapping_add(1))
}

pub(super) fn cases() -> Vec<Case> {
    [over(), alive()].concat()
}

fn over() -> Vec<Case> {
    let selects_anew = |case: Case| {
        case.packet(another_syn(CLIENT, WEB)).expect(forwarded_to(BACKUP).forgetting_the_flow().opening())
    };
    vec![
        selects_anew(a_closed_flow("a SYN after FIN both ways selects anew")),
        selects_anew(
            a_flow("a SYN after the client's RST selects anew")
                .packet(from_client(CLIENT, WEB).rst())
                .expect(forwarded_to(PRIMARY)),
        ),
        selects_anew(
            a_flow("a SYN after the backend's RST selects anew")
                .packet(to_client().rst_ack())
                .expect(returned_to(CLIENT)),
        ),
        selects_anew(
            a_flow("a SYN after more than three silent seconds selects anew")
                .then(Change::Silence(Duration::from_millis(3500))),
        ),
        a_closed_flow("retransmissions of a closed flow still pass")
            .packet(from_client(CLIENT, WEB).fin())
            .expect(forwarded_to(PRIMARY))
            .packet(to_client().fin().acks(CLIENT_NEXT.wrapping_add(1)))
            .expect(returned_to(CLIENT)),
        a_closed_flow("a SYN that is repeated from before is no new connection")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY)),
    ]
}

fn alive() -> Vec<Case> {
    let stays = |case: Case| case.packet(another_syn(CLIENT, WEB)).expect(forwarded_to(PRIMARY));
    vec![
        stays(a_flow("a forged SYN in a live flow is left to the backend")),
        stays(
            a_flow("less than three silent seconds are no silence")
                .then(Change::Silence(Duration::from_millis(2000))),
        ),
        stays(
            a_flow("a flow that the client has half closed is alive")
                .packet(from_client(CLIENT, WEB).fin())
                .expect(forwarded_to(PRIMARY))
                .packet(to_client().payload(b"the rest"))
                .expect(returned_to(CLIENT)),
        ),
        stays(
            a_flow("a RST that its receiver challenges ended nothing")
                .packet(to_client().rst())
                .expect(returned_to(CLIENT))
                .packet(from_client(CLIENT, WEB))
                .expect(forwarded_to(PRIMARY)),
        ),
        stays(
            a_flow("a blind RST ended nothing")
                .packet(from_client(CLIENT, WEB).rst().seq(CLIENT_NEXT.wrapping_add(0x1_0000)))
                .expect(forwarded_to(PRIMARY)),
        ),
        stays(
            a_flow("FINs that nobody acknowledged ended nothing")
                .packet(from_client(CLIENT, WEB).fin())
                .expect(forwarded_to(PRIMARY))
                .packet(to_client().fin())
                .expect(returned_to(CLIENT)),
        ),
        stays(
            Case::new("a blind SYN in a silent flow goes to its backend while that is the active one")
                .handshake(CLIENT, WEB, PRIMARY)
                .then(Change::Silence(Duration::from_millis(3500))),
        ),
        stays(
            a_flow("a RST that is dropped on its way ended nothing")
                .packet(from_client(CLIENT, WEB).rst().ttl(1))
                .expect(dropped(Reason::TtlExpired)),
        ),
        stays(
            a_flow("a packet of either side breaks the silence")
                .then(Change::Silence(Duration::from_millis(3500)))
                .packet(to_client())
                .expect(returned_to(CLIENT)),
        ),
    ]
}

#[test]
fn endings() {
    run_all("closing", &cases()).unwrap();
}
