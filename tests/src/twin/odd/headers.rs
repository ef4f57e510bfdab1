//! Odd by their IP header: time to live, length, options, fragments, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::{
    super::{
        frame::ETHERNET_BYTES,
        scene::{Family, Forwarding, LISTEN_PORT},
    },
    Becomes, End, Listed, Odd, SYN, Scene, Segment, Stage, Talk,
};
use Becomes::{Error, Forwarded, Nothing};
use End::{Backend, Client};
use Stage::Established;

type Frames = Result<Vec<Vec<u8>>>;
type Row = (&'static str, Stage, End, fn(&Talk) -> Frames, Becomes);

/// Of the largest frame of `wan0`; `lan0` takes less.
const WAN_MTU: usize = 1500;
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;

const SPOOFED: Becomes = Becomes::Listed(Listed::SpoofedSource);
const PORT: Becomes = Becomes::Listed(Listed::SnatPort);
const OPTIONS: Becomes = Becomes::Listed(Listed::OptionsKept);

#[rustfmt::skip]
const BOTH: &[Row] = &[
    ("TTL 2",                           Established,    Client,  |talk| talk.one(Client, |s| s.envelope.ttl = 2), Forwarded),
    ("TTL 2 of the backend",            Established,    Backend, |talk| talk.one(Backend, |s| s.envelope.ttl = 2), Forwarded),
    ("TTL 1",                           Established,    Client,  |talk| talk.one(Client, |s| s.envelope.ttl = 1), Error),
    ("TTL 1 and a long segment",        Established,    Client,  |talk| talk.one(Client, |s| { s.envelope.ttl = 1; s.payload = vec![9; 1001]; }), Error),
    ("TTL 1 of the backend",            Established,    Backend, |talk| talk.one(Backend, |s| { s.envelope.ttl = 1; s.payload = vec![9; 101]; }), Error),
    ("TTL 0",                           Established,    Client,  |talk| talk.one(Client, |s| s.envelope.ttl = 0), Error),
    ("SYN with TTL 1",                  Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.envelope.ttl = 1), Error),
    ("a RST with TTL 1",                Established,    Client,  |talk| talk.one(Client, |s| { s.envelope.ttl = 1; s.flags = 4; }), Error),
    ("as long as the way out takes",    Established,    Client,  |talk| talk.one(Client, |s| fill(talk, s, usize::from(talk.scene.lan_mtu))), Forwarded),
    ("a byte longer than that",         Established,    Client,  |talk| talk.one(Client, |s| fill(talk, s, usize::from(talk.scene.lan_mtu) + 1)), Error),
    ("as long as the way in gives",     Established,    Client,  |talk| talk.one(Client, |s| fill(talk, s, WAN_MTU)), Error),
    ("source is the backend's",         Stage::Nothing, Client,  |talk| from_address(talk, talk.scene.backend().ip()), SPOOFED),
    ("longer than its frame",           Established,    Client,  longer_than_its_frame, Nothing),
    ("padding after the packet",        Established,    Client,  |talk| talk.one(Client, |s| s.padding = 6), Becomes::Listed(Listed::Padding)),
    ("padding of the backend",          Established,    Backend, |talk| talk.one(Backend, |s| s.padding = 46), Becomes::Listed(Listed::Padding)),
    ("TCP header too short",            Established,    Client,  |talk| tcp_header_words(talk, 4), Nothing),
    ("TCP header longer than packet",   Established,    Client,  |talk| tcp_header_words(talk, 15), Nothing),
];

#[rustfmt::skip]
const V4: &[Row] = &[
    ("too long, may be fragmented",     Established,    Client,  |talk| talk.one(Client, |s| { s.envelope.dont_fragment = false; fill(talk, s, WAN_MTU); }), Becomes::Listed(Listed::NotFragmented)),
    ("first fragment",                  Established,    Client,  |talk| Ok(vec![fragments(talk)?.swap_remove(0)]), Nothing),
    ("later fragment",                  Established,    Client,  |talk| Ok(vec![fragments(talk)?.swap_remove(1)]), Nothing),
    ("both fragments",                  Established,    Client,  fragments, Becomes::Listed(Listed::NotReassembled)),
    ("wrong IP checksum",               Established,    Client,  |talk| poked(talk, 10, 0x55), Becomes::Listed(Listed::IpChecksum)),
    ("IP header too short",             Established,    Client,  |talk| poked(talk, 0, 0x45 ^ 0x44), Nothing),
    ("IP version 5",                    Established,    Client,  |talk| poked(talk, 0, 0x45 ^ 0x55), Nothing),
    ("reserved bit of the fragments",   Established,    Client,  |talk| fragment_word(talk, 0x8000), Forwarded),
    ("record route",                    Established,    Client,  |talk| options(talk, &[7, 7, 4, 0, 0, 0, 0, 0]), OPTIONS),
    ("timestamp of routers",            Established,    Client,  |talk| options(talk, &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), OPTIONS),
    ("loose source route",              Established,    Client,  |talk| options(talk, &[131, 7, 4, 10, 0, 2, 99, 0]), OPTIONS),
    ("an option that is cut",           Established,    Client,  |talk| options(talk, &[1, 1, 7, 40]), OPTIONS),
    ("source is the listen address",    Stage::Nothing, Client,  |talk| from_address(talk, talk.scene.listen().ip()), Nothing),
    ("source is the destination",       Stage::Nothing, Client,  land, Nothing),
    ("source 0.0.0.0",                  Stage::Nothing, Client,  |talk| from_address(talk, Ipv4Addr::UNSPECIFIED.into()), Nothing),
    ("source 127.0.0.1",                Stage::Nothing, Client,  |talk| from_address(talk, Ipv4Addr::LOCALHOST.into()), Nothing),
    ("source of multicast",             Stage::Nothing, Client,  |talk| from_address(talk, Ipv4Addr::new(224, 0, 0, 5).into()), Nothing),
    ("source is broadcast",             Stage::Nothing, Client,  |talk| from_address(talk, Ipv4Addr::BROADCAST.into()), Nothing),
    ("source of class E",               Stage::Nothing, Client,  |talk| from_address(talk, Ipv4Addr::new(240, 0, 0, 5).into()), SPOOFED),
];

#[rustfmt::skip]
const V6: &[Row] = &[
    ("source is the listen address",    Stage::Nothing, Client,  |talk| from_address(talk, talk.scene.listen().ip()), SPOOFED),
    ("source is the destination",       Stage::Nothing, Client,  land, SPOOFED),
    ("source ::",                       Stage::Nothing, Client,  |talk| from_address(talk, Ipv6Addr::UNSPECIFIED.into()), Nothing),
    ("source ::1",                      Stage::Nothing, Client,  |talk| from_address(talk, Ipv6Addr::LOCALHOST.into()), Nothing),
    ("source of multicast",             Stage::Nothing, Client,  |talk| from_address(talk, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5).into()), Nothing),
];

/// What needs a source address of the gateway's.
#[rustfmt::skip]
const SNAT: &[Row] = &[
    ("a port that is not for snat",     Stage::Nothing, Client,  |talk| syn_from(talk, SocketAddr::new(talk.flow.client.ip(), 40000)), PORT),
    ("a port below 1024",               Stage::Nothing, Client,  |talk| syn_from(talk, SocketAddr::new(talk.flow.client.ip(), 1023)), PORT),
    ("another client with the port",    Established,    Client,  |talk| syn_from(talk, SocketAddr::new(talk.scene.router(), talk.flow.client.port())), PORT),
];

pub(super) fn table(scene: Scene) -> Vec<Odd> {
    let (own, own_address) = match scene.family {
        Family::V4 => (V4, Nothing),
        Family::V6 => (V6, SPOOFED),
    };
    let snat: Row = (
        "source is the snat address",
        Stage::Nothing,
        Client,
        |talk| from_address(talk, talk.scene.lan()),
        own_address,
    );
    let of_snat = match scene.forwarding {
        Forwarding::Snat => SNAT.iter().chain([&snat]).collect(),
        Forwarding::Dnat => Vec::new(),
    };
    let odd = |&(name, stage, from, frames, becomes): &Row| Odd { name, stage, from, frames, becomes };
    BOTH.iter().chain(own).chain(of_snat).map(odd).collect()
}

/// As much data as makes the IP packet so long.
fn fill(talk: &Talk, segment: &mut Segment, bytes: usize) {
    let header = match talk.scene.family {
        Family::V4 => IPV4_HEADER,
        Family::V6 => 40,
    };
    segment.payload = vec![0xa5; bytes - header - TCP_HEADER];
}

/// A SYN from this address.
fn from_address(talk: &Talk, source: IpAddr) -> Frames {
    syn_from(talk, SocketAddr::new(source, talk.flow.client.port()))
}

fn syn_from(talk: &Talk, source: SocketAddr) -> Frames {
    let syn = Segment::plain(SYN);
    Ok(vec![syn.to_frame(Client, source, talk.scene.listen())?])
}

fn land(talk: &Talk) -> Frames {
    let listen = SocketAddr::new(talk.scene.listen().ip(), LISTEN_PORT);
    Ok(vec![talk.client.to_frame(Client, listen, listen)?])
}

fn options(talk: &Talk, options: &[u8]) -> Frames {
    talk.one(Client, |segment| segment.envelope.options = options.to_vec())
}

/// The client's next segment with a byte of its IP header changed by exclusive or.
fn poked(talk: &Talk, at: usize, change: u8) -> Frames {
    let mut frames = talk.one(Client, |_| {})?;
    frames[0][ETHERNET_BYTES + at] ^= change;
    Ok(frames)
}

fn longer_than_its_frame(talk: &Talk) -> Frames {
    let mut frames = talk.one(Client, |segment| segment.payload = vec![1; 200])?;
    frames[0].truncate(120);
    Ok(frames)
}

fn tcp_header_words(talk: &Talk, words: u8) -> Frames {
    let mut frames = talk.one(Client, |_| {})?;
    let at = frames[0].len() - TCP_HEADER + 12;
    frames[0][at] = words << 4;
    Ok(frames)
}

/// The client's next segment with this fragment word instead of don't-fragment.
fn fragment_word(talk: &Talk, word: u16) -> Frames {
    let mut frames = talk.one(Client, |_| {})?;
    set_fragment_word(&mut frames[0], word);
    Ok(frames)
}

/// A segment in two fragments.
fn fragments(talk: &Talk) -> Frames {
    /// In words of eight bytes.
    const FIRST: usize = 12;
    const MORE: u16 = 0x2000;
    let whole = talk.one(Client, |segment| segment.payload = vec![3; 200])?.swap_remove(0);
    let (headers, data) = whole.split_at(ETHERNET_BYTES + IPV4_HEADER);
    let (first, later) = data.split_at(FIRST * 8);
    Ok([(first, MORE), (later, FIRST as u16)]
        .map(|(part, word)| {
            let mut frame = [headers, part].concat();
            let total = (IPV4_HEADER + part.len()) as u16;
            frame[ETHERNET_BYTES + 2..ETHERNET_BYTES + 4].copy_from_slice(&total.to_be_bytes());
            set_fragment_word(&mut frame, word);
            frame
        })
        .to_vec())
}

fn set_fragment_word(frame: &mut [u8], word: u16) {
    let header = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_HEADER];
    header[6..8].copy_from_slice(&word.to_be_bytes());
    header[10..12].fill(0);
    let checksum = super::super::icmp::checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
