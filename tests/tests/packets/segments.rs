//! Random packets of live flows: each leaves as it would have been built with the other addresses, in every scene and
//! both directions, and is counted as what it is. Segments, and ICMP errors about them.

use std::cell::RefCell;

use anyhow::Result;
use balancer_tests::case::{
    Case, Flow, Gateway, SCENES, Scene, forwarded_to, icmp, on_a_gateway, returned_to, usual,
};
use balancer_tests::packet::{Checksum, Extension, Packet, flags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

/// The usual pools' MTU.
const MTU: usize = 1500;

/// What random segments may have, apart from addresses.
#[derive(Clone, Debug)]
struct Segment {
    from_client: bool,
    flags: u8,
    numbers: (u32, u32, u16, u16),
    ip: (u8, u16, bool, u8),
    flow_label: u32,
    ip_option_words: usize,
    extensions: Vec<Extension>,
    tcp_options: Vec<[u8; 4]>,
    payload: Vec<u8>,
    padding: Vec<u8>,
    errors: (u16, u16),
}

fn extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        (1_u8..4).prop_map(Extension::destination_options),
        (1_u8..4).prop_map(Extension::hop_by_hop),
        (0_u8..4).prop_map(Extension::authentication),
        Just(Extension::routing(0)),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    let ends = prop_oneof![8 => Just(flags::ACK), 1 => Just(flags::ACK | flags::FIN), 1 => Just(flags::RST)];
    let rest = any::<u8>().prop_map(|bits| bits & (flags::PSH | flags::URG | flags::ECE | flags::CWR));
    let errors = prop_oneof![3 => Just((0, 0)), 1 => (0_u16..0xffff, 0_u16..0xffff)];
    (
        (any::<bool>(), ends, rest, any::<(u32, u32, u16, u16)>()),
        (any::<u8>(), any::<u16>(), any::<bool>(), 2_u8..),
        (0_u32..=0xf_ffff, 0_usize..=10, vec(extension(), 0..=6), vec(any::<[u8; 4]>(), 0..=10)),
        (vec(any::<u8>(), 0..=1380), vec(any::<u8>(), 0..8), errors),
    )
        .prop_map(|((from_client, ends, rest, numbers), ip, headers, last)| {
            let (flow_label, ip_option_words, extensions, tcp_options) = headers;
            let (payload, padding, errors) = last;
            let flags = ends | rest;
            Segment {
                from_client,
                flags,
                numbers,
                ip,
                flow_label,
                ip_option_words,
                extensions,
                tcp_options,
                payload,
                padding,
                errors,
            }
        })
}

impl Segment {
    fn packet(&self, flow: Flow) -> Packet {
        let packet = if self.from_client { flow.request() } else { flow.response() };
        self.fill_in(packet)
    }

    fn fill_in(&self, packet: Packet) -> Packet {
        packet.flags(self.flags).with(|packet| {
            (packet.sequence, packet.acknowledgement, packet.window, packet.urgent) = self.numbers;
            let dont_fragment;
            (packet.ip.tos, packet.ip.id, dont_fragment, packet.ip.ttl) = self.ip;
            packet.ip.fragment = u16::from(dont_fragment) << 14;
            packet.ip.flow_label = self.flow_label;
            packet.ip.extensions.clone_from(&self.extensions);
            // No-operations: the program may not care, and a receiver wouldn't either.
            packet.ip.options = vec![1; 4 * self.ip_option_words];
            packet.options = self.tcp_options.concat();
            let room = MTU - packet.ip_length();
            packet.payload = self.payload[..self.payload.len().min(room)].to_vec();
            packet.ethernet.padding.clone_from(&self.padding);
            packet.ip.wrong.checksum_by = self.errors.0;
            packet.checksum = match self.errors.1 {
                0 => Checksum::Right,
                error => Checksum::WrongBy(error),
            };
        })
    }

    fn case(&self, scene: &'static Scene) -> Case {
        let case = Case::new("a segment of a flow is translated").packet(self.packet(scene.flow()));
        case.expect(if self.from_client { forwarded_to(scene.primary) } else { returned_to(scene.client) })
    }
}

/// An ICMP error that quotes a random segment.
#[derive(Clone, Debug)]
struct Error {
    about: Segment,
    kind: usize,
    code: u8,
    rest: u32,
    content_bytes: usize,
    checksum_by: u16,
}

fn error() -> impl Strategy<Value = Error> {
    let bytes = prop_oneof![Just(8_usize), 18_usize..600];
    let checksum_by = prop_oneof![3 => Just(0), 1 => 0_u16..0xffff];
    (segment(), 0_usize..4, any::<u8>(), any::<u32>(), bytes, checksum_by).prop_map(
        |(about, kind, code, rest, content_bytes, checksum_by)| Error {
            about,
            kind,
            code,
            rest,
            content_bytes,
            checksum_by,
        },
    )
}

impl Error {
    fn case(&self, scene: &'static Scene) -> Case {
        let flow = scene.flow();
        let kind = if scene.is_ipv4() { [3, 11, 12, 3][self.kind] } else { [1, 2, 3, 4][self.kind] };
        // Who is told of a lost segment is who sent it: the other side's network tells it.
        let (quoted, from, expected) = if self.about.from_client {
            (flow.request_behind(), scene.primary.address, returned_to(scene.client))
        } else {
            (flow.response_behind(), scene.stranger(), forwarded_to(scene.primary))
        };
        // What is quoted with extension headers is left to the kernel.
        let quoted = self.about.fill_in(quoted).with(|packet| packet.ip.extensions.clear());
        let error = icmp(from, quoted.source.ip(), kind, self.code)
            .rest(self.rest)
            .about_first(self.content_bytes, &quoted)
            .with(|error| error.checksum_by = self.checksum_by);
        Case::new("an error about a flow is translated").icmp(error).expect(expected)
    }
}

/// Runs random cases on one program that knows the usual flow of each scene.
fn on_live_flows<T: std::fmt::Debug + Send + Sync + 'static>(
    label: &str,
    random: impl Strategy<Value = T> + Send,
    case: fn(&T, &'static Scene) -> Case,
) -> Result<()> {
    on_a_gateway(label, || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            Case::of(scene, "a flow begins").handshake(scene.flow()).run(&mut program)?;
        }
        let program = RefCell::new(program);
        let random = (select(SCENES.to_vec()), random);
        let outcome = TestRunner::new(super::runs()).run(&random, |(scene, random)| {
            let ran = case(&random, scene).run(&mut program.borrow_mut());
            ran.map_err(|error| TestCaseError::fail(format!("{}: {error:#}", scene.name)))
        });
        Ok(outcome?)
    })
}

#[test]
fn every_segment_of_a_flow_leaves_as_if_the_gateway_had_sent_it() {
    on_live_flows("segments", segment(), Segment::case).unwrap();
}

#[test]
fn every_error_about_a_flow_leaves_as_if_it_had_been_about_the_other_side() {
    on_live_flows("errors", error(), Error::case).unwrap();
}
