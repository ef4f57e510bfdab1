//! Random segments of a live flow: each leaves as it would have been built with the other addresses, in both directions.

use std::cell::RefCell;

use balancer_tests::case::{
    Action, CLIENT, GATEWAY, Gateway, LAN_MAC, PRIMARY, ROUTER_MAC, Side, WAN_MAC, WEB, gateway,
    on_a_gateway, tcp, usual,
};
use balancer_tests::packet::{Packet, difference, flags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{from_client, syn, syn_ack};

/// What random segments may have, apart from addresses.
#[derive(Clone, Debug)]
struct Segment {
    from_client: bool,
    flags: u8,
    numbers: (u32, u32, u16, u16),
    ip: (u8, u16, bool, u8),
    ip_option_words: usize,
    tcp_options: Vec<[u8; 4]>,
    payload: Vec<u8>,
    padding: Vec<u8>,
    errors: (u16, u16),
}

fn segment() -> impl Strategy<Value = Segment> {
    let ends = prop_oneof![8 => Just(flags::ACK), 1 => Just(flags::ACK | flags::FIN), 1 => Just(flags::RST)];
    let rest = any::<u8>().prop_map(|bits| bits & (flags::PSH | flags::URG | flags::ECE | flags::CWR));
    let errors = prop_oneof![3 => Just((0, 0)), 1 => (0_u16..0xffff, 0_u16..0xffff)];
    (
        (any::<bool>(), ends, rest, any::<(u32, u32, u16, u16)>()),
        (any::<u8>(), any::<u16>(), any::<bool>(), 2_u8..),
        (0_usize..=10, vec(any::<[u8; 4]>(), 0..=10)),
        (vec(any::<u8>(), 0..=1380), vec(any::<u8>(), 0..8), errors),
    )
        .prop_map(|((from_client, ends, rest, numbers), ip, (ip_option_words, tcp_options), last)| {
            let (payload, padding, errors) = last;
            let flags = ends | rest;
            Segment {
                from_client,
                flags,
                numbers,
                ip,
                ip_option_words,
                tcp_options,
                payload,
                padding,
                errors,
            }
        })
}

impl Segment {
    fn packet(&self) -> Packet {
        let packet =
            if self.from_client { tcp(CLIENT, WEB) } else { tcp(PRIMARY.at(10001), gateway(CLIENT.port())) };
        packet.flags(self.flags).payload(&self.payload).with(|packet| {
            (packet.sequence, packet.acknowledgement, packet.window, packet.urgent) = self.numbers;
            let dont_fragment;
            (packet.tos, packet.id, dont_fragment, packet.ttl) = self.ip;
            packet.fragment = u16::from(dont_fragment) << 14;
            // No-operations: the program may not care, and a receiver wouldn't either.
            packet.ip_options = vec![1; 4 * self.ip_option_words];
            packet.tcp_options = self.tcp_options.concat();
            packet.padding.clone_from(&self.padding);
            (packet.wrong.ip_checksum_by, packet.wrong.tcp_checksum_by) = self.errors;
        })
    }

    /// The same segment, sent by the gateway.
    fn translated(&self) -> Packet {
        self.packet().with(|packet| {
            packet.ttl -= 1;
            if self.from_client {
                (packet.source_mac, packet.destination_mac) = (LAN_MAC, PRIMARY.mac);
                packet.source.set_ip(GATEWAY);
                packet.destination = PRIMARY.at(10001);
            } else {
                (packet.source_mac, packet.destination_mac) = (WAN_MAC, ROUTER_MAC);
                packet.source = WEB;
                packet.destination = CLIENT;
            }
        })
    }
}

#[test]
fn every_segment_of_a_flow_leaves_as_if_the_gateway_had_sent_it() {
    on_a_gateway("segments", || {
        let mut program = Gateway::load(&usual())?;
        program.run(Side::Wan, &syn(CLIENT, WEB).to_frame())?;
        program.run(Side::Lan, &syn_ack(PRIMARY.at(10001), gateway(CLIENT.port())).to_frame())?;
        program.run(Side::Wan, &from_client(CLIENT, WEB).to_frame())?;
        let program = RefCell::new(program);
        let outcome = TestRunner::new(super::runs()).run(&segment(), |segment| {
            let side = if segment.from_client { Side::Wan } else { Side::Lan };
            let ran = program.borrow_mut().run(side, &segment.packet().to_frame());
            let outcome = ran.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            prop_assert_eq!(outcome.action, Action::Redirect);
            let difference = difference(&segment.translated().to_frame(), &outcome.frame);
            prop_assert!(difference.is_none(), "{}", difference.unwrap_or_default());
            Ok(())
        });
        Ok(outcome?)
    })
    .unwrap();
}
