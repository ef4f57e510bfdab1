//! Odd by their TCP header: flags, sequence numbers, and segments that no connection expects.

use super::super::scene::Forwarding;
use super::{Becomes, End, Listed, Odd, SYN, Scene, Stage, Talk};
use crate::packet::flags::{ACK, FIN, PSH, RST, URG};
use Becomes::{Answered, Forwarded, Nothing};
use End::{Backend, Client};
use Stage::{Established, SynAnswered, SynSent};
use anyhow::Result;

type Row = (&'static str, Stage, End, fn(&Talk) -> Result<Vec<Vec<u8>>>, Becomes);

const NONSENSE: Becomes = Becomes::Listed(Listed::StacksReset);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Nothing is known of the connection.
    ("NULL scan",                       Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = 0), NONSENSE),
    ("Xmas scan",                       Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = FIN | PSH | URG), NONSENSE),
    ("SYN with FIN",                    Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = SYN | FIN), NONSENSE),
    ("SYN with RST",                    Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = SYN | RST), Nothing),
    ("bare FIN",                        Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = FIN), Answered),
    ("all flags",                       Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = 0xff), Nothing),
    ("stray SYN-ACK of a client",       Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = SYN | ACK), NONSENSE),
    ("stray SYN-ACK of the backend",    Stage::Nothing, Backend, |talk| talk.one(Backend, |_| {}), NONSENSE),
    ("bare RST of a client",            Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = RST), Nothing),
    ("bare RST of the backend",         Stage::Nothing, Backend, |talk| talk.one(Backend, |s| s.flags = RST), Nothing),
    ("RST with ACK of a client",        Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.flags = RST | ACK), Nothing),
    ("mid-stream ACK",                  Stage::Nothing, Client,  |talk| talk.one(Client, |s| mid_stream(s, ACK, b"")), Answered),
    ("mid-stream data",                 Stage::Nothing, Client,  |talk| talk.one(Client, |s| mid_stream(s, ACK | PSH, b"words")), Answered),
    ("mid-stream with TOS",             Stage::Nothing, Client,  |talk| talk.one(Client, |s| { mid_stream(s, ACK, b""); s.envelope.tos = 0xb9; }), Becomes::Listed(Listed::ResetsTos)),
    ("mid-stream with options",         Stage::Nothing, Client,  |talk| talk.one(Client, |s| { mid_stream(s, ACK, b""); s.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]; }), Answered),
    ("mid-stream with TTL 1",           Stage::Nothing, Client,  |talk| talk.one(Client, |s| { mid_stream(s, ACK, b""); s.envelope.ttl = 1; }), Answered),
    ("mid-stream FIN",                  Stage::Nothing, Client,  |talk| talk.one(Client, |s| mid_stream(s, ACK | FIN, b"")), Answered),
    ("mid-stream ACK of the backend",   Stage::Nothing, Backend, |talk| talk.one(Backend, |s| mid_stream(s, ACK, b"")), Answered),
    ("mid-stream data of the backend",  Stage::Nothing, Backend, |talk| talk.one(Backend, |s| mid_stream(s, ACK, b"words")), Answered),
    // The handshake is under way.
    ("SYN with data",                   Stage::Nothing, Client,  |talk| talk.one(Client, |s| s.payload = vec![7; 100]), Forwarded),
    ("SYN repeated",                    SynSent,     Client,  |talk| talk.one(Client, |s| (s.flags, s.sequence) = (SYN, 1000)), Forwarded),
    ("refusal",                         SynSent,     Backend, |talk| talk.one(Backend, |s| (s.flags, s.sequence) = (RST | ACK, 0)), Forwarded),
    ("client gives up",                 SynSent,     Client,  |talk| talk.one(Client, |s| s.flags = RST), Forwarded),
    ("client gives up after SYN-ACK",   SynAnswered, Client,  |talk| talk.one(Client, |s| s.flags = RST), Forwarded),
    ("ACK before the SYN-ACK",          SynSent,     Client,  |talk| talk.one(Client, |_| {}), NONSENSE),
    ("SYN-ACK of the client",           SynSent,     Client,  |talk| talk.one(Client, |s| s.flags = SYN | ACK), NONSENSE),
    ("SYN-ACK to another SYN",          SynSent,     Backend, |talk| talk.one(Backend, |s| s.acknowledgement += 0x10_0000), Becomes::Listed(Listed::HandshakeChecked)),
    ("ACK of another SYN-ACK",          SynAnswered, Client,  |talk| talk.one(Client, |s| s.acknowledgement += 0x10_0000), Becomes::Listed(Listed::HandshakeChecked)),
    ("challenge of the backend",        SynSent,     Backend, |talk| talk.one(Backend, |s| (s.flags, s.acknowledgement) = (ACK, 77)), Forwarded),
    // The connection is established.
    ("SYN of the same connection",      Established, Client,  |talk| talk.one(Client, |s| (s.flags, s.sequence) = (SYN, 1000)), Forwarded),
    ("SYN out of nowhere",              Established, Client,  |talk| talk.one(Client, |s| (s.flags, s.sequence) = (SYN, 77)), Forwarded),
    ("SYN-ACK repeated",                Established, Backend, |talk| talk.one(Backend, |s| (s.flags, s.sequence) = (SYN | ACK, 5_000_000)), Forwarded),
    ("NULL in a connection",            Established, Client,  |talk| talk.one(Client, |s| s.flags = 0), NONSENSE),
    ("Xmas in a connection",            Established, Client,  |talk| talk.one(Client, |s| s.flags = FIN | PSH | URG), NONSENSE),
    ("NULL of the backend",             Established, Backend, |talk| talk.one(Backend, |s| s.flags = 0), NONSENSE),
    ("RST far from the window",         Established, Client,  |talk| talk.one(Client, |s| (s.flags, s.sequence) = (RST, 0x8000_0000)), Forwarded),
    ("RST of the backend far away",     Established, Backend, |talk| talk.one(Backend, |s| (s.flags, s.sequence) = (RST, 1)), Forwarded),
    ("data far from the window",        Established, Client,  |talk| talk.one(Client, |s| (s.sequence, s.payload) = (0x8000_0000, vec![1])), Forwarded),
    ("ACK of what was never sent",      Established, Client,  |talk| talk.one(Client, |s| s.acknowledgement = 0x7000_0000), Forwarded),
    ("reserved bits and no data",       Established, Client,  reserved_bits, Forwarded),
];

pub(super) fn table(scene: Scene) -> Vec<Odd> {
    let odd = |&(name, stage, from, frames, becomes): &Row| {
        let becomes = if scene.forwarding == Forwarding::Dnat && is_for_the_gateway(from, becomes) {
            Becomes::Listed(Listed::NotRouted)
        } else {
            becomes
        };
        Odd { name, stage, from, frames, becomes }
    };
    ROWS.iter().map(odd).collect()
}

/// Whether a backend's segment is for the gateway's own stack in snat; in dnat it is to a client's address.
fn is_for_the_gateway(from: End, becomes: Becomes) -> bool {
    from == Backend && (becomes == NONSENSE || matches!(becomes, Answered | Nothing))
}

fn mid_stream(segment: &mut super::Segment, flags: u8, payload: &[u8]) {
    (segment.flags, segment.sequence, segment.acknowledgement) = (flags, 7000, 9000);
    segment.payload = payload.to_vec();
}

/// The four bits between header length and flags, of which one was a nonce once. The checksum is wrong then, and stays
/// so.
fn reserved_bits(talk: &Talk) -> Result<Vec<Vec<u8>>> {
    let mut frames = talk.one(Client, |_| {})?;
    // Byte 12 of a TCP header of 20 bytes, after which nothing follows.
    let at = frames[0].len() - 8;
    frames[0][at] |= 0x0f;
    Ok(frames)
}
