//! ICMP errors about a connection, from either side, and forged ones about none.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    super::{
        frame::{ETHERNET_BYTES, Envelope},
        icmp::Error,
        scene::Family,
    },
    Becomes, End, Listed, Odd, Scene, Stage, Talk,
};
use Becomes::{Forwarded, Nothing};
use End::{Backend, Client};
use Stage::{Established, SynAnswered, SynSent};

type Frames = Result<Vec<Vec<u8>>>;
type Row = (&'static str, Stage, End, fn(&Talk) -> Frames, Becomes);

/// Kinds of errors, by what they mean in both families.
#[derive(Clone, Copy)]
enum About {
    Host,
    Port,
    TooBig,
    TimeExceeded,
    Parameter,
}
use About::{Host, Parameter, Port, TimeExceeded, TooBig};

/// How much is quoted.
#[derive(Clone, Copy)]
enum Quote {
    /// The IP header and this many bytes.
    Bytes(usize),
    Whole,
}
use Quote::{Bytes, Whole};

#[rustfmt::skip]
const BOTH: &[Row] = &[
    ("host unreachable, 8 bytes",       Established, Client,  |talk| about(talk, Client, Host, Bytes(8)), Forwarded),
    ("host unreachable, all quoted",    Established, Client,  |talk| about(talk, Client, Host, Whole), Forwarded),
    ("port unreachable, 8 bytes",       Established, Client,  |talk| about(talk, Client, Port, Bytes(8)), Forwarded),
    ("too big, 8 bytes",                Established, Client,  |talk| about(talk, Client, TooBig, Bytes(8)), Forwarded),
    ("too big, all quoted",             Established, Client,  |talk| about(talk, Client, TooBig, Whole), Forwarded),
    ("too big, TCP header quoted",      Established, Client,  |talk| about(talk, Client, TooBig, Bytes(20)), Forwarded),
    ("too big, an odd number quoted",   Established, Client,  |talk| about(talk, Client, TooBig, Bytes(33)), Forwarded),
    ("time exceeded, all quoted",       Established, Client,  |talk| about(talk, Client, TimeExceeded, Whole), Forwarded),
    ("parameter problem",               Established, Client,  |talk| about(talk, Client, Parameter, Whole), Forwarded),
    ("host unreachable of the LAN",     Established, Backend, |talk| about(talk, Backend, Host, Bytes(8)), Forwarded),
    ("host unreachable of the LAN, all",Established, Backend, |talk| about(talk, Backend, Host, Whole), Forwarded),
    ("port unreachable of the backend", Established, Backend, |talk| about(talk, Backend, Port, Whole), Forwarded),
    ("too big in the LAN",              Established, Backend, |talk| about(talk, Backend, TooBig, Bytes(8)), Forwarded),
    ("too big in the LAN, all quoted",  Established, Backend, |talk| about(talk, Backend, TooBig, Whole), Forwarded),
    ("time exceeded in the LAN",        Established, Backend, |talk| about(talk, Backend, TimeExceeded, Whole), Forwarded),
    ("parameter problem in the LAN",    Established, Backend, |talk| about(talk, Backend, Parameter, Whole), Forwarded),
    ("SYN: host unreachable",           SynSent,     Backend, |talk| about(talk, Backend, Host, Whole), Forwarded),
    ("SYN: port unreachable",           SynSent,     Backend, |talk| about(talk, Backend, Port, Bytes(8)), Forwarded),
    ("SYN-ACK: host unreachable",       SynAnswered, Client,  |talk| about(talk, Client, Host, Whole), Forwarded),
    ("an error with TTL 2",             Established, Client,  |talk| enveloped(talk, Client, |e| e.ttl = 2), Forwarded),
    ("an error with TTL 1",             Established, Client,  |talk| enveloped(talk, Client, |e| e.ttl = 1), Nothing),
    ("an error with TOS",               Established, Client,  |talk| enveloped(talk, Client, |e| e.tos = 0xc0), Forwarded),
    ("wrong ICMP checksum",             Established, Client,  |talk| poked(talk, ICMP_CHECKSUM), Becomes::Listed(Listed::IcmpChecksum)),
    ("wrong checksum in the quote",     Established, Client,  |talk| quoted_checksum(talk), Forwarded),
    ("forged, about nobody's port",     Established, Client,  |talk| forged(talk), Nothing),
    ("quote of less than the ports",    Established, Client,  |talk| about(talk, Client, Host, Bytes(3)), Nothing),
    ("no quote at all",                 Established, Client,  |talk| no_quote(talk), Nothing),
];

#[rustfmt::skip]
const V4: &[Row] = &[
    ("source quench",                   Established, Client,  |talk| raw(talk, Client, 4, 0), Becomes::Listed(Listed::ObsoleteIcmp)),
    ("communication prohibited",        Established, Backend, |talk| raw(talk, Backend, 3, 13), Forwarded),
    ("reassembly time exceeded",        Established, Client,  |talk| raw(talk, Client, 11, 1), Forwarded),
    ("an error with options",           Established, Client,  |talk| enveloped(talk, Client, |e| e.options = vec![148, 4, 0, 0]), Forwarded),
];

/// Of the ICMP checksum's second byte, in a message.
const ICMP_CHECKSUM: usize = 3;

pub(super) fn table(scene: Scene) -> Vec<Odd> {
    let own = match scene.family {
        Family::V4 => V4,
        Family::V6 => &[],
    };
    let odd = |&(name, stage, from, frames, becomes): &Row| Odd { name, stage, from, frames, becomes };
    BOTH.iter().chain(own).map(odd).collect()
}

/// The packet that an error from this end is about: the last that arrived there.
fn quoted(talk: &Talk, from: End) -> &[u8] {
    match from {
        Client => &talk.at_client,
        Backend => &talk.at_backend,
    }
}

fn ip_header(scene: Scene) -> usize {
    match scene.family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

fn error(talk: &Talk, from: End, about: About, quote: Quote) -> Error {
    let (kind, code, word) = match (talk.scene.family, about) {
        (Family::V4, Host) => (3, 1, 0),
        (Family::V4, Port) => (3, 3, 0),
        (Family::V4, TooBig) => (3, 4, 1300),
        (Family::V4, TimeExceeded) => (11, 0, 0),
        (Family::V4, Parameter) => (12, 0, 0x1400_0000),
        (Family::V6, Host) => (1, 3, 0),
        (Family::V6, Port) => (1, 4, 0),
        (Family::V6, TooBig) => (2, 0, 1300),
        (Family::V6, TimeExceeded) => (3, 0, 0),
        (Family::V6, Parameter) => (4, 1, 40),
    };
    let packet = quoted(talk, from);
    let length = match quote {
        Whole => packet.len(),
        Bytes(bytes) => packet.len().min(ip_header(talk.scene) + bytes),
    };
    Error { kind, code, word: u32::to_be_bytes(word), quote: packet[..length].to_vec() }
}

/// Sent by a router on the way: to the sender of the quoted packet, from an address that has no part in the connection.
fn sent(talk: &Talk, from: End, error: &Error, envelope: &Envelope) -> Frames {
    let source: IpAddr = match from {
        Client => talk.scene.router(),
        Backend => talk.scene.lan_stranger(),
    };
    let (_, destination) = talk.flow.way(from);
    Ok(vec![error.to_frame(from, envelope, source, destination.ip())?])
}

fn about(talk: &Talk, from: End, about: About, quote: Quote) -> Frames {
    sent(talk, from, &error(talk, from, about, quote), &Envelope::plain())
}

fn raw(talk: &Talk, from: End, kind: u8, code: u8) -> Frames {
    let error = Error { kind, code, ..error(talk, from, Host, Whole) };
    sent(talk, from, &error, &Envelope::plain())
}

fn enveloped(talk: &Talk, from: End, change: impl FnOnce(&mut Envelope)) -> Frames {
    let mut envelope = Envelope::plain();
    change(&mut envelope);
    sent(talk, from, &error(talk, from, Host, Whole), &envelope)
}

/// With a byte of the ICMP message flipped.
fn poked(talk: &Talk, at: usize) -> Frames {
    let mut frames = about(talk, Client, Host, Whole)?;
    frames[0][ETHERNET_BYTES + ip_header(talk.scene) + at] ^= 0x55;
    Ok(frames)
}

/// The quoted segment's checksum was wrong already.
fn quoted_checksum(talk: &Talk) -> Frames {
    let mut error = error(talk, Client, Host, Whole);
    error.quote[ip_header(talk.scene) + 16] ^= 0x55;
    sent(talk, Client, &error, &Envelope::plain())
}

/// About a packet to a port that no connection has.
fn forged(talk: &Talk) -> Frames {
    let mut error = error(talk, Client, Host, Whole);
    let port = ip_header(talk.scene) + 2;
    error.quote[port..port + 2].copy_from_slice(&64999_u16.to_be_bytes());
    sent(talk, Client, &error, &Envelope::plain())
}

fn no_quote(talk: &Talk) -> Frames {
    let error = Error { quote: Vec::new(), ..error(talk, Client, Host, Whole) };
    sent(talk, Client, &error, &Envelope::plain())
}
