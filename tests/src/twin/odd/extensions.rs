//! Odd by their IPv6 extension headers.

use anyhow::Result;

use super::{
    super::{frame::ETHERNET_BYTES, scene::Family},
    Becomes, End, Listed, Odd, Scene, Stage, Talk,
};
use Becomes::{Forwarded, Nothing};

type Frames = Result<Vec<Vec<u8>>>;
type Row = (&'static str, fn(&Talk) -> Frames, Becomes);

const IPV6_HEADER: usize = 40;
/// Where its payload length and next header are.
const LENGTH: usize = ETHERNET_BYTES + 4;
const NEXT_HEADER: usize = ETHERNET_BYTES + 6;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

const REFUSED: Becomes = Becomes::Listed(Listed::ExtensionHeaders);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("hop-by-hop options",              |talk| extended(talk, &[padded(HOP_BY_HOP, 8)]), Forwarded),
    ("destination options of 24 bytes", |talk| extended(talk, &[padded(DESTINATION, 24)]), Forwarded),
    ("six extension headers",           |talk| extended(talk, &vec![padded(DESTINATION, 8); 6]), Forwarded),
    ("seven extension headers",         |talk| extended(talk, &vec![padded(DESTINATION, 8); 7]), REFUSED),
    ("routing header, arrived",         |talk| extended(talk, &[routing(0)]), Forwarded),
    ("routing header, on its way",      |talk| extended(talk, &[routing(1)]), REFUSED),
    ("authentication header",           |talk| extended(talk, &[authentication()]), Forwarded),
    ("fragment header on a whole one",  |talk| extended(talk, &[fragment(0, false)]), Becomes::Listed(Listed::NotReassembled)),
    ("first fragment",                  |talk| Ok(vec![fragments(talk)?.swap_remove(0)]), Nothing),
    ("later fragment",                  |talk| Ok(vec![fragments(talk)?.swap_remove(1)]), Nothing),
    ("both fragments",                  fragments, Becomes::Listed(Listed::NotReassembled)),
];

pub(super) fn table(scene: Scene) -> Vec<Odd> {
    let rows = if scene.family == Family::V6 { ROWS } else { &[] };
    let odd = |&(name, frames, becomes): &Row| Odd {
        name,
        stage: Stage::Established,
        from: End::Client,
        frames,
        becomes,
    };
    rows.iter().map(odd).collect()
}

/// A header's number, and its bytes but for the number of the next one, which is the first byte.
type Header = (u8, Vec<u8>);

/// Options of this number of bytes in all, which are padding.
fn padded(number: u8, bytes: u8) -> Header {
    let padding = bytes - 4;
    (number, [&[0, bytes / 8 - 1, 1, padding], vec![0; usize::from(padding)].as_slice()].concat())
}

fn routing(segments_left: u8) -> Header {
    // Type 2 (mobile IPv6), with one address.
    (ROUTING, [&[0, 2, 2, segments_left, 0, 0, 0, 0], [0xfd; 16].as_slice()].concat())
}

fn authentication() -> Header {
    // Its length is in words of four bytes, less two.
    (AUTHENTICATION, [&[0, 4, 0, 0], [7; 20].as_slice()].concat())
}

fn fragment(offset: u16, more_follow: bool) -> Header {
    let word = (offset | u16::from(more_follow)).to_be_bytes();
    (FRAGMENT, vec![0, 0, word[0], word[1], 0xca, 0xfe, 0xba, 0xbe])
}

/// The client's next segment, with words, behind these headers.
fn extended(talk: &Talk, headers: &[Header]) -> Frames {
    let frame = talk.one(End::Client, |segment| segment.payload = vec![3; 200])?.swap_remove(0);
    Ok(vec![inserted(&frame, &frame[ETHERNET_BYTES + IPV6_HEADER..], headers)])
}

/// A segment in two fragments.
fn fragments(talk: &Talk) -> Frames {
    const FIRST: usize = 96;
    let frame = talk.one(End::Client, |segment| segment.payload = vec![3; 200])?.swap_remove(0);
    let (first, later) = frame[ETHERNET_BYTES + IPV6_HEADER..].split_at(FIRST);
    Ok(vec![
        inserted(&frame, first, &[fragment(0, true)]),
        inserted(&frame, later, &[fragment(FIRST as u16, false)]),
    ])
}

/// The Ethernet and IPv6 header of a frame, these headers, and some of its data.
fn inserted(frame: &[u8], data: &[u8], headers: &[Header]) -> Vec<u8> {
    let mut made = frame[..ETHERNET_BYTES + IPV6_HEADER].to_vec();
    let mut next_header = NEXT_HEADER;
    for (number, bytes) in headers {
        made[next_header] = *number;
        next_header = made.len();
        made.extend(bytes);
    }
    made[next_header] = TCP;
    made.extend(data);
    let length = (made.len() - ETHERNET_BYTES - IPV6_HEADER) as u16;
    made[LENGTH..LENGTH + 2].copy_from_slice(&length.to_be_bytes());
    made
}
