//! ICMP errors about flows (failure classes 3 and 4): translated, outside and inside, so that path MTU discovery and
//! refusals reach who sent the packet that they are about.

use balancer_common::verdict::Reason;
use balancer_tests::case::{Case, Change, Scene, dropped, forwarded_to, icmp, returned_to, run_all};
use balancer_tests::packet::{Body, Checksum, Extension, Icmp, Packet};

use super::{everywhere, in_all_ipv4, in_all_ipv6};

pub(super) fn cases() -> Vec<Case> {
    [
        everywhere(kinds),
        everywhere(lengths_of_quotes),
        everywhere(states),
        everywhere(kept),
        everywhere(not_on),
        in_all_ipv4(of_ipv4),
        in_all_ipv6(of_ipv6),
    ]
    .concat()
}

/// Types and codes of errors, and what stands in the rest of their headers.
fn errors(scene: &Scene) -> &'static [(&'static str, u8, u8, u32)] {
    if scene.is_ipv4() {
        &[
            ("net unreachable", 3, 0, 0),
            ("host unreachable", 3, 1, 0),
            ("port unreachable", 3, 3, 0),
            ("fragmentation needed", 3, 4, 1400),
            ("administratively prohibited", 3, 13, 0),
            ("time exceeded", 11, 0, 0),
            ("parameter problem", 12, 0, 0x0800_0000),
        ]
    } else {
        &[
            ("no route", 1, 0, 0),
            ("port unreachable", 1, 4, 0),
            ("packet too big", 2, 0, 1400),
            ("time exceeded", 3, 0, 0),
            ("parameter problem", 4, 1, 6),
        ]
    }
}

/// An error of a router in the clients' network, about what the service sent to the client.
fn about_response(scene: &'static Scene) -> Icmp {
    let quoted = scene.flow().response_behind().payload(b"an answer");
    icmp(scene.stranger(), scene.vip(), unreachable(scene), 1).about(&quoted)
}

/// An error of a backend, about what the gateway sent it. A router in between would send it as well.
fn about_request(scene: &'static Scene) -> Icmp {
    let flow = scene.flow();
    let quoted = flow.request_behind().payload(b"a question");
    icmp(scene.primary.address, flow.peer.ip(), unreachable(scene), 1).about(&quoted)
}

fn unreachable(scene: &Scene) -> u8 {
    if scene.is_ipv4() { 3 } else { 1 }
}

/// The change is made to an error about each direction, in an established flow.
fn in_both_directions(scene: &'static Scene, claim: &str, change: impl Fn(Icmp) -> Icmp) -> Case {
    Case::of(scene, claim)
        .handshake(scene.flow())
        .icmp(change(about_response(scene)))
        .expect(forwarded_to(scene.primary))
        .icmp(change(about_request(scene)))
        .expect(returned_to(scene.client))
}

fn kinds(scene: &'static Scene) -> Vec<Case> {
    errors(scene)
        .iter()
        .map(|(name, kind, code, rest)| {
            in_both_directions(scene, &format!("{name} is translated"), |error| {
                error.rest(*rest).with(|error| (error.kind, error.code) = (*kind, *code))
            })
        })
        .collect()
}

fn lengths_of_quotes(scene: &'static Scene) -> Vec<Case> {
    let quotes = |claim: &str, bytes: usize| {
        in_both_directions(scene, claim, |error| {
            let quoted = error.quoted().expect("an error quotes").clone();
            error.about_first(bytes, &quoted)
        })
    };
    vec![
        quotes("an error that quotes eight bytes of TCP is translated", 8),
        quotes("an error that quotes up to the TCP checksum is translated", 16),
        quotes("an error that quotes the TCP checksum is translated, checksum and all", 18),
        quotes("an error that quotes the TCP header is translated", 20),
        quotes("an error that quotes an odd number of bytes is translated", 25),
        in_both_directions(scene, "an error that quotes all of a full packet is translated", |error| {
            let quoted = error.quoted().expect("an error quotes").clone().payload(&[0x77; 1360]);
            error.about(&quoted)
        }),
        in_both_directions(scene, "what follows the quote is kept", |error| {
            error.with(|error| {
                if let Body::Quote { then, .. } = &mut error.body {
                    then.extend([0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 0, 0, 0, 1]);
                }
            })
        }),
    ]
}

fn states(scene: &'static Scene) -> Vec<Case> {
    let flow = scene.flow();
    let moved = flow.on(scene.primary);
    let syn_behind = flow.syn().with(|packet| {
        packet.source = flow.peer;
        packet.destination = flow.backend();
    });
    let about_syn =
        icmp(scene.primary.address, flow.peer.ip(), unreachable(scene), 1).about_first(8, &syn_behind);
    vec![
        Case::of(scene, "an error about a SYN reaches the client, whose handshake goes on")
            .opening(flow)
            .icmp(about_syn)
            .expect(returned_to(scene.client))
            .packet(flow.syn())
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "an error about a SYN-ACK reaches the backend")
            .opening(flow)
            .packet(flow.syn_ack())
            .expect(returned_to(scene.client))
            .icmp(about_response(scene))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "an error about an old backend's flow goes to the old backend")
            .handshake(flow)
            .then(Change::Activate(scene.backup))
            .icmp(about_response(scene))
            .expect(forwarded_to(scene.primary)),
        Case::of(scene, "an error about a flow that is closing is translated")
            .handshake(moved)
            .packet(flow.request().fin())
            .expect(forwarded_to(scene.primary))
            .icmp(about_response(scene))
            .expect(forwarded_to(scene.primary)),
    ]
}

fn kept(scene: &'static Scene) -> Vec<Case> {
    let quoting = |claim: &str, change: fn(&mut Packet)| {
        in_both_directions(scene, claim, |error| error.quoting(change))
    };
    vec![
        in_both_directions(scene, "an error's wrong ICMP checksum stays wrong by as much", |error| {
            error.with(|error| error.checksum_by = 0x0101)
        }),
        in_both_directions(scene, "an error's DSCP and padding are kept", |error| {
            error.with(|error| {
                error.ip.tos = 0xc0;
                error.ethernet.padding = vec![0xee; 9];
            })
        }),
        quoting("a wrong TCP checksum in a quote stays wrong by as much", |quoted| {
            quoted.checksum = Checksum::WrongBy(0x0101);
        }),
        quoting("a quote's TTL is what it was when the packet was lost", |quoted| quoted.ip.ttl = 1),
        quoting("a quote's TTL may be zero", |quoted| quoted.ip.ttl = 0),
        quoting("TCP options in a quote are kept", |quoted| quoted.options = vec![1; 40]),
    ]
}

/// No error is sent about an error (RFC 1122, section 3.2.2).
fn not_on(scene: &'static Scene) -> Vec<Case> {
    vec![
        Case::of(scene, "an error whose hops are used up is dropped, and not answered")
            .handshake(scene.flow())
            .icmp(about_response(scene).with(|error| error.ip.ttl = 1))
            .expect(dropped(Reason::TtlExpired))
            .icmp(about_request(scene).with(|error| error.ip.ttl = 0))
            .expect(dropped(Reason::TtlExpired)),
        Case::of(scene, "an error for a backend without a way to it is dropped")
            .handshake(scene.flow())
            .then(Change::LoseWay(scene.primary))
            .icmp(about_response(scene))
            .expect(dropped(Reason::NoNextHop))
            .icmp(about_request(scene))
            .expect(returned_to(scene.client)),
    ]
}

fn of_ipv4(scene: &'static Scene) -> Vec<Case> {
    let quoting = |claim: &str, change: fn(&mut Packet)| {
        in_both_directions(scene, claim, |error| error.quoting(change))
    };
    vec![
        quoting("a wrong IP checksum in a quote stays wrong by as much", |quoted| {
            quoted.ip.wrong.checksum_by = 0x0202;
        }),
        quoting("IP options in a quote are kept", |quoted| quoted.ip.options = vec![1; 12]),
        in_both_directions(scene, "an error's own IP options are kept", |error| {
            error.with(|error| error.ip.options = vec![1; 8])
        }),
        in_both_directions(scene, "an error's wrong IP checksum stays wrong by as much", |error| {
            error.with(|error| error.ip.wrong.checksum_by = 0x0404)
        }),
    ]
}

fn of_ipv6(scene: &'static Scene) -> Vec<Case> {
    vec![in_both_directions(scene, "an error's own extension headers are kept", |error| {
        error.with(|error| error.ip.extensions = vec![Extension::destination_options(1)])
    })]
}

#[test]
fn errors_about_flows() {
    run_all("icmp", &cases()).unwrap();
}
