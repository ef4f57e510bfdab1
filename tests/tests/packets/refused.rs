//! What is for a service and can't be one of its flows' packets: dropped with its reason, never leaked to the kernel.

use std::net::{Ipv4Addr, SocketAddrV4};

use balancer_common::verdict::Reason;
use balancer_tests::case::{
    API, CLIENT, Case, MAIL, PRIMARY, Side, VIP, WEB, dropped, forwarded_to, gateway, run_all, tcp, usual,
};
use balancer_tests::packet::{MORE_FRAGMENTS, Packet, flags};

use super::{from_backend, from_client, syn};

/// Flag combinations that no TCP sends.
const IMPOSSIBLE: [(&str, u8); 9] = [
    ("NULL", 0),
    ("Xmas", flags::FIN | flags::PSH | flags::URG),
    ("SYN+FIN", flags::SYN | flags::FIN),
    ("SYN+FIN+ACK", flags::SYN | flags::FIN | flags::ACK),
    ("SYN+RST", flags::SYN | flags::RST),
    ("FIN+RST", flags::FIN | flags::RST | flags::ACK),
    ("FIN alone", flags::FIN),
    ("PSH alone", flags::PSH),
    ("all flags", 0xff),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = unreadable();
    cases.extend(impossible_flags());
    cases.extend(spoofed());
    cases.extend(of_no_flow());
    cases.extend(nowhere_to_go());
    cases
}

/// A SYN to a service, changed so that it must be dropped and leave nothing behind.
fn syn_is_dropped(claim: &str, reason: Reason, change: impl FnOnce(&mut Packet)) -> Case {
    Case::new(claim).packet(syn(CLIENT, WEB).with(change)).expect(dropped(reason))
}

fn unreadable() -> Vec<Case> {
    vec![
        syn_is_dropped("a first fragment is dropped", Reason::Fragment, |packet| {
            packet.fragment = MORE_FRAGMENTS;
        }),
        syn_is_dropped("a later fragment is dropped", Reason::Fragment, |packet| packet.fragment = 1),
        syn_is_dropped("the last fragment that can be is dropped", Reason::Fragment, |packet| {
            packet.fragment = 0x1fff;
        }),
        syn_is_dropped("an IP header of four words is dropped", Reason::BadLength, |packet| {
            packet.wrong.ip_header_words = Some(4);
        }),
        syn_is_dropped("an IP header beyond the packet is dropped", Reason::BadLength, |packet| {
            packet.wrong.ip_header_words = Some(15);
        }),
        syn_is_dropped("a packet longer than its frame is dropped", Reason::BadLength, |packet| {
            packet.wrong.total_length = Some(41);
        }),
        syn_is_dropped("a packet that ends in its TCP header is dropped", Reason::BadLength, |packet| {
            packet.wrong.total_length = Some(39);
        }),
        syn_is_dropped("a frame that ends in the TCP header is dropped", Reason::BadLength, |packet| {
            packet.wrong.total_length = Some(30);
            packet.wrong.cut_to = Some(14 + 30);
        }),
        syn_is_dropped("a total length of zero is dropped", Reason::BadLength, |packet| {
            packet.wrong.total_length = Some(0);
        }),
        syn_is_dropped("a TCP header of four words is dropped", Reason::BadLength, |packet| {
            packet.wrong.tcp_header_words = Some(4);
        }),
        syn_is_dropped("a TCP header beyond the packet is dropped", Reason::BadLength, |packet| {
            packet.wrong.tcp_header_words = Some(6);
        }),
        Case::new("what can't be read in a live flow is dropped too")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(from_client(CLIENT, WEB).with(|packet| packet.fragment = MORE_FRAGMENTS))
            .expect(dropped(Reason::Fragment))
            .packet(from_client(CLIENT, WEB).with(|packet| packet.wrong.tcp_header_words = Some(15)))
            .expect(dropped(Reason::BadLength)),
    ]
}

fn impossible_flags() -> Vec<Case> {
    IMPOSSIBLE
        .into_iter()
        .map(|(name, flags)| {
            Case::new(&format!("{name}: dropped without a flow, in a handshake, and in a flow"))
                .packet(tcp(CLIENT, WEB).flags(flags))
                .expect(dropped(Reason::BadFlags))
                .packet(syn(CLIENT, API))
                .expect(forwarded_to(PRIMARY).opening())
                .packet(tcp(CLIENT, API).flags(flags))
                .expect(dropped(Reason::BadFlags))
                .handshake(CLIENT, WEB, PRIMARY)
                .packet(from_client(CLIENT, WEB).flags(flags))
                .expect(dropped(Reason::BadFlags))
                .packet(from_backend(PRIMARY.at(10001), gateway(30000)).flags(flags))
                .expect(dropped(Reason::BadFlags))
        })
        .collect()
}

fn spoofed() -> Vec<Case> {
    let first_octets = [0, 127, 224, 239, 240, 255].map(|first| Ipv4Addr::new(first, 0, 0, 1));
    let sources = first_octets.into_iter().chain([VIP, *MAIL.ip(), Ipv4Addr::BROADCAST]);
    sources
        .map(|source| {
            Case::new(&format!("no client is {source}"))
                .packet(syn(SocketAddrV4::new(source, 30000), WEB))
                .expect(dropped(Reason::SpoofedSource))
        })
        .chain([Case::new("nobody is both ends of a connection")
            .packet(syn(WEB, WEB))
            .expect(dropped(Reason::SpoofedSource))])
        .collect()
}

fn of_no_flow() -> Vec<Case> {
    let strays = [
        ("an ACK", tcp(CLIENT, WEB).ack().acks(1), Reason::NoFlow),
        ("data", tcp(CLIENT, WEB).ack().acks(1).payload(b"data"), Reason::NoFlow),
        ("a FIN", tcp(CLIENT, WEB).fin().acks(1), Reason::NoFlow),
        ("a RST", tcp(CLIENT, WEB).rst(), Reason::NoFlow),
        ("a RST with ACK", tcp(CLIENT, API).rst_ack(), Reason::NoFlow),
        ("a SYN-ACK", tcp(CLIENT, WEB).syn_ack().acks(1), Reason::StraySynAck),
    ];
    strays
        .into_iter()
        .map(|(what, packet, reason)| {
            Case::new(&format!("{what} of no flow is dropped")).packet(packet).expect(dropped(reason))
        })
        .collect()
}

fn nowhere_to_go() -> Vec<Case> {
    vec![
        Case::new("without an active backend a SYN is dropped")
            .given(usual().nobody_active())
            .packet(syn(CLIENT, WEB))
            .expect(dropped(Reason::NoBackend)),
        Case::new("without a way to the backend a SYN is dropped")
            .given(usual().no_way_to(PRIMARY))
            .packet(syn(CLIENT, WEB))
            .expect(dropped(Reason::NoNextHop)),
        Case::new("without a way back a SYN is dropped")
            .given(usual().unknown_interface(Side::Wan))
            .packet(syn(CLIENT, WEB))
            .expect(dropped(Reason::NoNextHop)),
        syn_is_dropped("a SYN with its last hop used up opens nothing", Reason::TtlExpired, |packet| {
            packet.ttl = 1;
        }),
        syn_is_dropped("a SYN without any hop left opens nothing", Reason::TtlExpired, |packet| {
            packet.ttl = 0;
        }),
        syn_is_dropped("a SYN that is too big opens nothing", Reason::TooBig, |packet| {
            packet.payload = vec![0; 1461];
        }),
        Case::new("a used up TTL is dropped in a live flow, both ways, and harms it not")
            .handshake(CLIENT, WEB, PRIMARY)
            .packet(from_client(CLIENT, WEB).ttl(1))
            .expect(dropped(Reason::TtlExpired))
            .packet(from_backend(PRIMARY.at(10001), gateway(30000)).ttl(0))
            .expect(dropped(Reason::TtlExpired))
            .packet(from_client(CLIENT, WEB).ttl(2))
            .expect(forwarded_to(PRIMARY)),
    ]
}

#[test]
fn refusals() {
    run_all("refused", &cases()).unwrap();
}
