//! IPv6 extension headers (failure class 8): walked, at most six, and kept byte-identical.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Scene, dropped, forwarded_to, passed, returned_to, run_all, tcp};
use balancer_tests::packet::{Extension, Packet};

use super::in_all_ipv6;

const PROTOCOL_UDP: u8 = 17;

pub(super) fn cases() -> Vec<Case> {
    [
        in_all_ipv6(walked),
        in_all_ipv6(too_many),
        in_all_ipv6(fragments),
        in_all_ipv6(routing),
        in_all_ipv6(cut),
    ]
    .concat()
}

fn with(packet: Packet, extensions: &[Extension]) -> Packet {
    packet.with(|packet| packet.ip.extensions = extensions.to_vec())
}

/// So many headers, the first of which is for every hop.
fn chain(headers: usize) -> Vec<Extension> {
    let rest = (1..headers).map(|number| Extension::destination_options(number as u8));
    std::iter::once(Extension::hop_by_hop(1)).chain(rest).collect()
}

/// Every packet of a flow's beginning has these headers.
fn kept(scene: &'static Scene, claim: &str, extensions: &[Extension]) -> Case {
    let flow = scene.flow();
    Case::of(scene, claim)
        .packet(with(flow.syn(), extensions))
        .expect(forwarded_to(scene.primary).opening())
        .packet(with(flow.syn_ack(), extensions))
        .expect(returned_to(scene.client))
        .packet(with(flow.request().payload(b"question"), extensions))
        .expect(forwarded_to(scene.primary).establishing())
        .packet(with(flow.response().payload(b"an answer"), extensions))
        .expect(returned_to(scene.client))
}

fn walked(scene: &'static Scene) -> Vec<Case> {
    let mut cases: Vec<Case> = (1..=6)
        .map(|headers| {
            kept(scene, &format!("{headers} extension headers are walked and kept"), &chain(headers))
        })
        .collect();
    cases.extend([
        kept(scene, "an authentication header is walked and kept", &[Extension::authentication(3)]),
        kept(scene, "an authentication header of odd length is too", &[Extension::authentication(4)]),
        kept(scene, "a routing header that is used up is walked and kept", &[Extension::routing(0)]),
        kept(
            scene,
            "a header of 2,048 bytes would be too big, one of 1,024 isn't",
            &[Extension { number: 60, bytes: long_header(128) }],
        ),
        Case::of(scene, "packets of a flow may differ in their headers")
            .handshake(scene.flow())
            .packet(with(scene.flow().request(), &chain(3)))
            .expect(forwarded_to(scene.primary))
            .packet(scene.flow().request())
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "extension headers to another host pass")
            .packet(with(to_another_host(scene), &chain(7)))
            .expect(passed()),
    ]);
    cases
}

/// Options of so many times eight bytes, each a padding of one byte.
fn long_header(eights: u8) -> Vec<u8> {
    let mut bytes = vec![0; 8 * usize::from(eights)];
    bytes[1] = eights - 1;
    bytes
}

fn to_another_host(scene: &'static Scene) -> Packet {
    tcp(scene.client, std::net::SocketAddr::new(scene.stranger(), 443)).syn()
}

fn too_many(scene: &'static Scene) -> Vec<Case> {
    let dropped_syn = |claim: &str, extensions: &[Extension]| {
        Case::of(scene, claim)
            .packet(with(scene.flow().syn(), extensions))
            .expect(dropped(Reason::ExtensionHeaders))
    };
    vec![
        dropped_syn("seven extension headers are too many", &chain(7)),
        dropped_syn("twenty extension headers are too many", &chain(20)),
        Case::of(scene, "too many extension headers in a live flow are dropped too")
            .handshake(scene.flow())
            .packet(with(scene.flow().request(), &chain(7)))
            .expect(dropped(Reason::ExtensionHeaders)),
    ]
}

fn fragments(scene: &'static Scene) -> Vec<Case> {
    let syn = || scene.flow().syn();
    let dropped_syn = |claim: &str, extensions: &[Extension]| {
        Case::of(scene, claim).packet(with(syn(), extensions)).expect(dropped(Reason::Fragment))
    };
    vec![
        dropped_syn("a first fragment is dropped", &[Extension::fragment(0, true)]),
        dropped_syn("a later fragment is dropped", &[Extension::fragment(100, true)]),
        dropped_syn("the last fragment is dropped", &[Extension::fragment(0x1fff, false)]),
        dropped_syn("a fragment that is the whole is dropped", &[Extension::fragment(0, false)]),
        dropped_syn(
            "a fragment header behind other headers is dropped",
            &[Extension::hop_by_hop(1), Extension::fragment(0, true)],
        ),
        Case::of(scene, "a fragment in a live flow is dropped")
            .handshake(scene.flow())
            .packet(with(scene.flow().request(), &[Extension::fragment(5, false)]))
            .expect(dropped(Reason::Fragment)),
        Case::of(scene, "a fragment of UDP passes")
            .packet(with(syn(), &[Extension::fragment(0, true)]).with(|packet| {
                packet.ip.protocol = Some(PROTOCOL_UDP);
            }))
            .expect(passed()),
        Case::of(scene, "a fragment to another host passes")
            .packet(with(to_another_host(scene), &[Extension::fragment(0, true)]))
            .expect(passed()),
    ]
}

fn routing(scene: &'static Scene) -> Vec<Case> {
    let syn_with = |claim: &str, extensions: &[Extension]| {
        Case::of(scene, claim)
            .packet(with(scene.flow().syn(), extensions))
            .expect(dropped(Reason::ExtensionHeaders))
    };
    vec![
        syn_with("a routing header with a segment left is dropped", &[Extension::routing(1)]),
        syn_with("a routing header with many segments left is dropped", &[Extension::routing(255)]),
        syn_with(
            "a routing header with a segment left behind others is dropped",
            &[Extension::hop_by_hop(1), Extension::destination_options(1), Extension::routing(1)],
        ),
    ]
}

fn cut(scene: &'static Scene) -> Vec<Case> {
    let syn = || with(scene.flow().syn(), &chain(2));
    let bad = |claim: &str, change: fn(&mut Packet)| {
        Case::of(scene, claim).packet(syn().with(change)).expect(dropped(Reason::BadLength))
    };
    vec![
        bad("a frame that ends in an extension header is dropped", |packet| {
            packet.ethernet.cut_to = Some(14 + 40 + 12);
        }),
        bad("a packet that ends in an extension header is dropped", |packet| {
            packet.ip.wrong.length = Some(12);
        }),
        bad("an extension header beyond the packet is dropped", |packet| {
            packet.ip.extensions[1].bytes[1] = 200;
        }),
        Case::of(scene, "UDP behind extension headers passes")
            .packet(syn().with(|packet| packet.ip.protocol = Some(PROTOCOL_UDP)))
            .expect(passed()),
        Case::of(scene, "no next header behind extension headers passes")
            .packet(syn().with(|packet| packet.ip.protocol = Some(59)))
            .expect(passed()),
    ]
}

#[test]
fn extension_headers() {
    run_all("extensions", &cases()).unwrap();
}
