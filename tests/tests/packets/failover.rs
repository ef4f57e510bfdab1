//! A pool moves to another backend: which packets follow, and which don't.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    API, BACKUP, CLIENT, Case, Change, MAIL, OTHER_CLIENT, POSTMAN, PRIMARY, WEB, dropped, forwarded_to,
    gateway, returned_to, run_all,
};

use super::{another_syn, from_backend, from_client, syn, syn_ack};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("all services of a pool move at once, and no other pool does")
            .then(Change::Activate(Some(BACKUP)))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(BACKUP).opening())
            .packet(syn(CLIENT, API))
            .expect(forwarded_to(BACKUP).opening())
            .packet(syn(CLIENT, MAIL))
            .expect(forwarded_to(POSTMAN).opening()),
        Case::new("flows to the old backend go on")
            .handshake(CLIENT, WEB, PRIMARY)
            .then(Change::Activate(Some(BACKUP)))
            .packet(from_client(CLIENT, WEB).payload(b"more"))
            .expect(forwarded_to(PRIMARY))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)).payload(b"and more"))
            .expect(returned_to(CLIENT)),
        Case::new("a handshake that the old backend has begun is completed with it")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .then(Change::Activate(Some(BACKUP)))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY))
            .packet(syn_ack(PRIMARY.at(10001), gateway(30000)))
            .expect(returned_to(CLIENT))
            .packet(from_client(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).establishing()),
        Case::new("a client that tries anew gets the new backend")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .then(Change::Activate(Some(BACKUP)))
            .packet(another_syn(CLIENT, WEB))
            .expect(forwarded_to(BACKUP).forgetting_the_handshake().opening()),
        Case::new("there and back again")
            .handshake(CLIENT, WEB, PRIMARY)
            .then(Change::Activate(Some(BACKUP)))
            .handshake(OTHER_CLIENT, WEB, BACKUP)
            .then(Change::Activate(Some(PRIMARY)))
            .packet(syn(CLIENT, API))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(from_client(OTHER_CLIENT, WEB).payload(b"stays"))
            .expect(forwarded_to(BACKUP))
            .packet(from_client(CLIENT, WEB).payload(b"stays too"))
            .expect(forwarded_to(PRIMARY)),
        Case::new("a pool without an active backend opens nothing, and its flows go on")
            .handshake(CLIENT, WEB, PRIMARY)
            .then(Change::Activate(None))
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(dropped(Reason::NoBackend))
            .packet(syn(OTHER_CLIENT, API))
            .expect(dropped(Reason::NoBackend))
            .packet(from_client(CLIENT, WEB).payload(b"goes on"))
            .expect(forwarded_to(PRIMARY)),
        Case::new("a way that is lost stops the flows, and one that is there carries new ones")
            .handshake(CLIENT, WEB, PRIMARY)
            .then(Change::LoseWay(PRIMARY))
            .packet(from_client(CLIENT, WEB))
            .expect(dropped(Reason::NoNextHop))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)))
            .expect(returned_to(CLIENT))
            .then(Change::Activate(Some(BACKUP)))
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(BACKUP).opening()),
    ]
}

#[test]
fn failovers() {
    run_all("failover", &cases()).unwrap();
}
