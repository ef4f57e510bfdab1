//! How a flow begins, and who may interfere.

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    BACKEND_ISN, CLIENT_ISN, CLIENT_NEXT, Case, Change, Flow, Forwarding, MAIL, SNAT4, Scene, answered,
    dropped, forwarded_to, returned_to, run_all, tcp,
};

use super::{everywhere, in_all};

pub(super) fn cases() -> Vec<Case> {
    let pools = Case::new("each pool has its own backends and counters")
        .handshake(SNAT4.flow())
        .handshake(MAIL.flow());
    [
        everywhere(completed),
        everywhere(abandoned),
        everywhere(forged),
        everywhere(lost_on_the_way),
        in_all(Forwarding::Snat, backends_as_clients),
        vec![pools],
    ]
    .concat()
}

fn opened(scene: &'static Scene, claim: &str) -> Case {
    Case::of(scene, claim).opening(scene.flow())
}

fn accepted(scene: &'static Scene, claim: &str) -> Case {
    opened(scene, claim).packet(scene.flow().syn_ack()).expect(returned_to(scene.client))
}

fn completed(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let api = flow.to_api();
    vec![
        Case::of(scene, "a handshake goes through with the port translated from 443 to 10001 and back")
            .handshake(flow)
            .packet(flow.request().payload(b"question"))
            .expect(forwarded_to(scene.primary))
            .packet(flow.response().payload(b"answer"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a handshake goes through with the port kept at 8877")
            .handshake(api)
            .packet(api.response().payload(b"banner"))
            .expect(returned_to(scene.client)),
        Case::of(scene, "a repeated SYN and a repeated SYN-ACK are the same handshake")
            .opening(flow)
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .packet(flow.request().payload(b"hello"))
            .expect(forwarded_to(scene.primary).establishing()),
        Case::of(scene, "a SYN-ACK that is repeated after the handshake still reaches the client")
            .handshake(flow)
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        Case::of(scene, "data in the SYN, acknowledged with it, is no forgery")
            .packet(flow.syn().payload(&[7; 1000]))
            .expect(forwarded_to(scene.primary).opening())
            .packet(flow.syn_ack().acks(CLIENT_NEXT.wrapping_add(1000)))
            .expect(returned_to(scene.client)),
        accepted(scene, "a client that closes with its first segment has had a flow")
            .packet(flow.request().fin())
            .expect(forwarded_to(scene.primary).establishing()),
    ]
}

fn backends_as_clients(scene: &'static Scene) -> Vec<Case> {
    let connects = |client| scene.flow().of(client);
    let opens = |claim: &str, flow: Flow| {
        Case::of(scene, claim).opening(flow).packet(flow.syn_ack()).expect(returned_to(flow.client))
    };
    vec![
        opens(
            "a backend is a client like any other, out of the interface it came in on",
            connects(scene.backup.at(30000)),
        ),
        opens("a backend may be its own client", connects(scene.primary.at(30000))),
    ]
}

fn abandoned(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        opened(scene, "a RST that answers the SYN reaches the client and ends the handshake")
            .packet(flow.refusal())
            .expect(returned_to(scene.client).forgetting_the_handshake())
            .then(Change::Activate(scene.backup))
            .packet(flow.syn())
            .expect(forwarded_to(scene.backup).opening()),
        opened(scene, "a client may take its SYN back")
            .packet(tcp(scene.client, flow.listen()).rst().seq(CLIENT_NEXT))
            .expect(forwarded_to(scene.primary).forgetting_the_handshake()),
        opened(scene, "a SYN with another sequence number replaces a handshake that isn't complete")
            .packet(flow.another_syn())
            .expect(forwarded_to(scene.primary).forgetting_the_handshake().opening())
            .packet(flow.syn_ack())
            .expect(dropped(Reason::BadHandshake)),
        opened(scene, "a client's RST on a backend's challenge clears the way")
            .packet(tcp(flow.backend(), flow.peer).ack().seq(5).acks(0x7777))
            .expect(returned_to(scene.client))
            .packet(tcp(scene.client, flow.listen()).rst().seq(0x7777))
            .expect(forwarded_to(scene.primary))
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary)),
    ]
}

fn forged(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        opened(scene, "a SYN-ACK that acknowledges another SYN is a forgery")
            .packet(flow.syn_ack().acks(CLIENT_ISN))
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.syn_ack().acks(CLIENT_NEXT.wrapping_add(0x4000)))
            .expect(dropped(Reason::BadHandshake)),
        opened(scene, "a RST that acknowledges another SYN is a forgery and ends nothing")
            .packet(flow.refusal().acks(CLIENT_ISN.wrapping_sub(9)))
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        opened(scene, "no flow comes of an acknowledgement before the SYN-ACK")
            .packet(flow.request())
            .expect(dropped(Reason::BadHandshake)),
        accepted(scene, "no flow comes of acknowledging what the backend never sent")
            .packet(flow.request().acks(BACKEND_ISN))
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.request().acks(BACKEND_ISN.wrapping_add(0x4001)).fin())
            .expect(dropped(Reason::BadHandshake))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
        opened(scene, "a client sends no SYN-ACK")
            .packet(tcp(scene.client, flow.listen()).syn_ack().seq(CLIENT_ISN).acks(1))
            .expect(dropped(Reason::StraySynAck)),
        opened(scene, "a backend doesn't open a flow of its own in the middle of a handshake")
            .packet(tcp(flow.backend(), flow.peer).syn().seq(1))
            .expect(dropped(Reason::BadFlags)),
        accepted(scene, "a forged RST with a sequence number from nowhere ends no handshake")
            .packet(tcp(scene.client, flow.listen()).rst().seq(CLIENT_ISN.wrapping_add(2)))
            .expect(forwarded_to(scene.primary))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
    ]
}

fn lost_on_the_way(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    vec![
        opened(scene, "a SYN-ACK that never arrives has answered nothing")
            .packet(flow.syn_ack().ttl(1))
            .expect(answered(Reason::TtlExpired))
            .packet(flow.request())
            .expect(dropped(Reason::BadHandshake)),
        opened(scene, "a backend's RST that never arrives ends no handshake")
            .packet(flow.refusal().ttl(1))
            .expect(answered(Reason::TtlExpired))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        opened(scene, "a client's RST that never arrives ends no handshake")
            .packet(tcp(scene.client, flow.listen()).rst().seq(CLIENT_NEXT).ttl(1))
            .expect(answered(Reason::TtlExpired))
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client)),
        accepted(scene, "an acknowledgement that never arrives completes nothing")
            .packet(flow.request().ttl(1))
            .expect(answered(Reason::TtlExpired))
            .packet(flow.request())
            .expect(forwarded_to(scene.primary).establishing()),
    ]
}

#[test]
fn handshakes() {
    run_all("handshake", &cases()).unwrap();
}
