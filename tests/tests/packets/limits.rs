//! Full tables: who is in goes on, who isn't stays out, and is counted.

use std::net::SocketAddrV4;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    CLIENT, Case, OTHER_CLIENT, PRIMARY, WEB, dropped, forwarded_to, gateway, returned_to, run_all, tcp,
    usual,
};

use super::{CLIENT_NEXT, from_backend, from_client, syn, syn_ack};

pub(super) fn cases() -> Vec<Case> {
    let elsewhere = SocketAddrV4::new(*CLIENT.ip(), 20000);
    vec![
        Case::new("more handshakes than max_half_open are refused, and those under way are completed")
            .given(usual().max_half_open(1))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn(elsewhere, WEB))
            .expect(dropped(Reason::HalfOpenFull))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY))
            .packet(syn_ack(PRIMARY.at(10001), gateway(30000)))
            .expect(returned_to(CLIENT))
            .packet(from_client(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).establishing())
            .packet(syn(elsewhere, WEB))
            .expect(forwarded_to(PRIMARY).opening()),
        Case::new("a refused connection makes room for another handshake")
            .given(usual().max_half_open(1))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(tcp(PRIMARY.at(10001), gateway(30000)).rst_ack().acks(CLIENT_NEXT))
            .expect(returned_to(CLIENT).forgetting_the_handshake())
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening()),
        Case::new("more flows than max_flows are refused, and old ones don't suffer")
            .given(usual().max_flows(1))
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(syn(elsewhere, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn_ack(PRIMARY.at(10001), gateway(20000)))
            .expect(returned_to(elsewhere))
            .packet(from_client(elsewhere, WEB))
            .expect(dropped(Reason::FlowTableFull))
            .packet(from_client(CLIENT, WEB).payload(b"goes on"))
            .expect(forwarded_to(PRIMARY))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)).payload(b"both ways"))
            .expect(returned_to(CLIENT)),
    ]
}

#[test]
fn full_tables() {
    run_all("limits", &cases()).unwrap();
}
