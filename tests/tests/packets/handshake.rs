//! How a flow begins, and who may interfere.

use std::net::SocketAddrV4;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    API, BACKEND_ISN, BACKUP, CLIENT, CLIENT_ISN, Case, Change, MAIL, POSTMAN, PRIMARY, WEB, dropped,
    forwarded_to, gateway, returned_to, run_all, tcp,
};

use super::{CLIENT_NEXT, another_syn, from_backend, from_client, syn, syn_ack};

/// The gateway's end of a flow of [`CLIENT`], whose port it keeps.
const OURS: SocketAddrV4 = gateway(CLIENT.port());
/// A backend that connects to the service.
const BACKUP_AS_CLIENT: SocketAddrV4 = BACKUP.at(CLIENT.port());

pub(super) fn cases() -> Vec<Case> {
    [completed(), abandoned(), interfered_with()].concat()
}

fn completed() -> Vec<Case> {
    vec![
        Case::new("a handshake goes through with the port translated from 443 to 10001 and back")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(from_client(CLIENT, WEB).payload(b"question"))
            .expect(forwarded_to(PRIMARY))
            .packet(from_backend(PRIMARY.at(10001), OURS).payload(b"answer"))
            .expect(returned_to(CLIENT)),
        Case::new("a handshake goes through with the port kept at 8877")
            .handshake(CLIENT, API, PRIMARY)
            .packet(from_backend(PRIMARY.at(8877), OURS).payload(b"banner"))
            .expect(returned_to(CLIENT)),
        Case::new("each pool has its own backends and counters")
            .handshake(CLIENT, WEB, PRIMARY)
            .handshake(CLIENT, MAIL, POSTMAN),
        Case::new("a repeated SYN and a repeated SYN-ACK are the same handshake")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY))
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT))
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT))
            .packet(from_client(CLIENT, WEB).payload(b"hello"))
            .expect(forwarded_to(PRIMARY).establishing()),
        Case::new("a SYN-ACK that is repeated after the handshake still reaches the client")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT)),
        Case::new("data in the SYN, acknowledged with it, is no forgery")
            .packet(syn(CLIENT, WEB).payload(&[7; 1000]))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn_ack(PRIMARY.at(10001), OURS).acks(CLIENT_NEXT.wrapping_add(1000)))
            .expect(returned_to(CLIENT)),
        Case::new("a client that closes with its first segment has had a flow")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT))
            .packet(from_client(CLIENT, WEB).fin())
            .expect(forwarded_to(PRIMARY).establishing()),
        Case::new("a backend is a client like any other, out of the interface it came in on")
            .packet(syn(BACKUP_AS_CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(BACKUP_AS_CLIENT)),
        Case::new("a backend may be its own client")
            .packet(syn(PRIMARY.at(30000), WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(PRIMARY.at(30000))),
    ]
}

fn abandoned() -> Vec<Case> {
    vec![
        Case::new("a RST that answers the SYN reaches the client and ends the handshake")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(tcp(PRIMARY.at(10001), OURS).rst_ack().acks(CLIENT_NEXT))
            .expect(returned_to(CLIENT).forgetting_the_handshake())
            .then(Change::Activate(Some(BACKUP)))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(BACKUP).opening()),
        Case::new("a client may take its SYN back")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(tcp(CLIENT, WEB).rst().seq(CLIENT_NEXT))
            .expect(forwarded_to(PRIMARY).forgetting_the_handshake()),
        Case::new("a SYN with another sequence number replaces a handshake that isn't complete")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(another_syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).forgetting_the_handshake().opening())
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(dropped(Reason::BadHandshake)),
        Case::new("the challenge of a backend that remembers the tuple reaches the client, whose RST clears the way")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(tcp(PRIMARY.at(10001), OURS).ack().seq(5).acks(0x7777))
            .expect(returned_to(CLIENT))
            .packet(tcp(CLIENT, WEB).rst().seq(0x7777))
            .expect(forwarded_to(PRIMARY))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY)),
    ]
}

fn interfered_with() -> Vec<Case> {
    let opened = |claim| Case::new(claim).packet(syn(CLIENT, WEB)).expect(forwarded_to(PRIMARY).opening());
    let answered = |claim| opened(claim).packet(syn_ack(PRIMARY.at(10001), OURS)).expect(returned_to(CLIENT));
    vec![
        opened("a SYN-ACK that acknowledges another SYN is a forgery")
            .packet(syn_ack(PRIMARY.at(10001), OURS).acks(CLIENT_ISN))
            .expect(dropped(Reason::BadHandshake))
            .packet(syn_ack(PRIMARY.at(10001), OURS).acks(CLIENT_NEXT.wrapping_add(0x4000)))
            .expect(dropped(Reason::BadHandshake)),
        opened("a RST that acknowledges another SYN is a forgery and ends nothing")
            .packet(tcp(PRIMARY.at(10001), OURS).rst_ack().acks(CLIENT_ISN.wrapping_sub(9)))
            .expect(dropped(Reason::BadHandshake))
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT)),
        opened("no flow comes of an acknowledgement before the SYN-ACK")
            .packet(from_client(CLIENT, WEB))
            .expect(dropped(Reason::BadHandshake)),
        answered("no flow comes of acknowledging what the backend never sent")
            .packet(from_client(CLIENT, WEB).acks(BACKEND_ISN))
            .expect(dropped(Reason::BadHandshake))
            .packet(from_client(CLIENT, WEB).acks(BACKEND_ISN.wrapping_add(0x4001)).fin())
            .expect(dropped(Reason::BadHandshake))
            .packet(from_client(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).establishing()),
        opened("a client sends no SYN-ACK")
            .packet(tcp(CLIENT, WEB).syn_ack().seq(CLIENT_ISN).acks(1))
            .expect(dropped(Reason::StraySynAck)),
        opened("a backend doesn't open a flow of its own in the middle of a handshake")
            .packet(tcp(PRIMARY.at(10001), OURS).syn().seq(1))
            .expect(dropped(Reason::BadFlags)),
        opened("a SYN-ACK that is dropped on its way has answered nothing")
            .packet(syn_ack(PRIMARY.at(10001), OURS).ttl(1))
            .expect(dropped(Reason::TtlExpired))
            .packet(from_client(CLIENT, WEB))
            .expect(dropped(Reason::BadHandshake)),
        opened("a RST that is dropped on its way ends no handshake")
            .packet(tcp(PRIMARY.at(10001), OURS).rst_ack().acks(CLIENT_NEXT).ttl(1))
            .expect(dropped(Reason::TtlExpired))
            .packet(tcp(CLIENT, WEB).rst().seq(CLIENT_NEXT).ttl(1))
            .expect(dropped(Reason::TtlExpired))
            .packet(syn_ack(PRIMARY.at(10001), OURS))
            .expect(returned_to(CLIENT)),
        answered("an acknowledgement that is dropped on its way completes nothing")
            .packet(from_client(CLIENT, WEB).ttl(1))
            .expect(dropped(Reason::TtlExpired))
            .packet(from_client(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).establishing()),
        answered("a forged RST with a sequence number from nowhere ends no handshake")
            .packet(tcp(CLIENT, WEB).rst().seq(CLIENT_ISN.wrapping_add(2)))
            .expect(forwarded_to(PRIMARY))
            .packet(from_client(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).establishing()),
    ]
}

#[test]
fn handshakes() {
    run_all("handshake", &cases()).unwrap();
}
