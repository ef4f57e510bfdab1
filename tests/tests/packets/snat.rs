//! Which port the gateway uses towards the backend.

use std::net::SocketAddrV4;

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    API, BACKUP, CLIENT, Case, Change, OTHER_CLIENT, PRIMARY, WEB, dropped, forwarded_to, gateway,
    returned_to, run_all, tcp, usual,
};

use super::{CLIENT_NEXT, from_client, syn, syn_ack};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("a client's port outside of the pool's is replaced by one of them")
            .given(usual().snat_ports(50000..=50000))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).from_port(50000).opening())
            .packet(syn_ack(PRIMARY.at(10001), gateway(50000)))
            .expect(returned_to(CLIENT))
            .packet(from_client(CLIENT, WEB).payload(b"question"))
            .expect(forwarded_to(PRIMARY).from_port(50000).establishing())
            .packet(super::from_backend(PRIMARY.at(10001), gateway(50000)).payload(b"answer"))
            .expect(returned_to(CLIENT)),
        Case::new("the first and the last port of a range belong to it")
            .given(usual().snat_ports(30000..=30001))
            .packet(syn(client(30000), WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn(client(30001), WEB))
            .expect(forwarded_to(PRIMARY).opening()),
        Case::new("a port that another handshake has is not used twice")
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).from_another_port().opening()),
        Case::new("a port that another flow has is not used twice")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).from_another_port().opening()),
        Case::new("a port is free again for another service and another backend")
            .handshake(CLIENT, WEB, PRIMARY)
            .handshake(OTHER_CLIENT, API, PRIMARY)
            .then(Change::Activate(Some(BACKUP)))
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(BACKUP).opening()),
        Case::new("without a free port nothing is opened, and who has one keeps it")
            .given(usual().snat_ports(30000..=30000))
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(dropped(Reason::SnatExhausted))
            .packet(from_client(CLIENT, WEB).payload(b"still mine"))
            .expect(forwarded_to(PRIMARY)),
        Case::new("the port of a handshake under way is as taken as any")
            .given(usual().snat_ports(30000..=30000))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(dropped(Reason::SnatExhausted)),
        Case::new("a refused connection gives its port back")
            .given(usual().snat_ports(30000..=30000))
            .packet(syn(CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening())
            .packet(tcp(PRIMARY.at(10001), gateway(30000)).rst_ack().acks(CLIENT_NEXT))
            .expect(returned_to(CLIENT).forgetting_the_handshake())
            .packet(syn(OTHER_CLIENT, WEB))
            .expect(forwarded_to(PRIMARY).opening()),
    ]
}

fn client(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*CLIENT.ip(), port)
}

#[test]
fn snat_ports() {
    run_all("snat", &cases()).unwrap();
}
