//! Clients' SYNs that wait, on their way again: those that were kept while their pool was on hold, and those that a backend
//! has not answered and that shall go on to another one.
//!
//! Each is put together from what the packet path has kept and comes in once more, as if the client had repeated it: the
//! packet path does with it what it does with any other, makes a flow and sends it, refuses it, or keeps it again. So
//! nothing about flows is decided here, and a client that has gone meanwhile does what it would do about any late answer.
//! Data that a SYN brought (TCP fast open) isn't kept: its client sends it again when it is not acknowledged.
//!
//! Where the kernel can't be given frames (before Linux 5.18), the clients' own repetitions do the same, later.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use balancer_common::abi::{Address4, Address6, Line, NextHop, SavedSyn, WireAddress};

use super::DataplaneError;
use super::attach::Mode;
use super::clock::monotonic_ns;
use super::exits::Exits;
use super::flows::{FamilyTables, FlowTable, is_unanswered};
use super::lines::{MappedTable, Met, seen};
use super::object::Loaded;
use super::repeats::Repeats;
use super::segment::{Header, Segment};

/// Hops that a SYN has left which is expected to get to a backend. Of one with fewer, routers behind the gateway may have said
/// that it went no further; clients begin with 64 or more.
const LEAST_HOPS: u8 = 16;

/// Where SYNs come in.
#[derive(Clone, Copy)]
pub struct Entrance<'a> {
    /// The program that they come before.
    pub program: &'a Loaded,
    /// The interfaces, of this thread's network.
    pub exits: &'a Exits,
    /// On which of them, by the kernel's index, the program runs in generic mode.
    pub generic: &'a BTreeSet<u32>,
    /// Those that came in before.
    pub repeats: &'a Repeats,
}

/// What became of SYNs that waited.
#[derive(Debug, Default)]
pub struct ReplayReport {
    /// Came in once more; what the packet path made of them, its counters tell.
    pub sent: u64,
    /// Didn't: their clients have to repeat them.
    pub failed: u64,
    /// Why, the first time.
    pub problem: Option<DataplaneError>,
}

/// Whose SYNs come in once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Clients' of these services, by slot: those that are held,
    pub services: BTreeSet<u16>,
    /// and those that wait for the answer of another backend than this one, by slot.
    pub not_at: Option<u16>,
}

/// SYNs whose flows are no more, or soon won't be.
#[derive(Debug, Default)]
pub struct Syns {
    pub(super) v4: Vec<Syn<Address4>>,
    pub(super) v6: Vec<Syn<Address6>>,
}

/// A client's SYN, as the packet path has kept it.
#[derive(Debug)]
pub(super) struct Syn<A: WireAddress> {
    /// Where it stood.
    pub(super) met: Met,
    pub(super) line: Line<A>,
    pub(super) sequence: u32,
    saved: SavedSyn,
    /// See `ClientSyn`.
    tried: u64,
}

impl FlowTable {
    /// Has SYNs come in once more, those first whose client has waited for longest since it repeated it. To be called when
    /// the word of their pool says where they shall go. Takes some ten microseconds a SYN.
    pub fn replay(&self, waiting: &Waiting, entrance: Entrance<'_>) -> ReplayReport {
        let mut report = ReplayReport::default();
        self.v4.replay(waiting, entrance, &mut report);
        self.v6.replay(waiting, entrance, &mut report);
        report
    }
}

impl<A: Header> FamilyTables<A> {
    fn replay(&self, waiting: &Waiting, entrance: Entrance<'_>, report: &mut ReplayReport) {
        let table = &self.half_open.table;
        let is_meant = |met: &Met| {
            let (service, backend) = table.slots(*met);
            let waits = || {
                table.is_held(*met)
                    || waiting.not_at.is_some_and(|active| backend != active && is_unanswered(table, *met))
            };
            seen(*met).is_from_client() && waiting.services.contains(&service) && waits()
        };
        let mut meant: Vec<Met> = table.live().filter(is_meant).collect();
        // All of them are minutes old at the most; the clock may wrap, but not within that.
        let newest = meant.iter().map(|met| met.state.last_seen()).max().unwrap_or_default();
        meant.sort_by_key(|met| Reverse(met.state.silent(newest)));
        // One whose line is another by now has been repeated by its client.
        report.take_in(meant.into_iter().filter_map(|met| Syn::of(table, met)), entrance);
    }
}

impl Syns {
    /// Has them come in once more, in their order.
    pub fn come_in(&self, entrance: Entrance<'_>) -> ReplayReport {
        let mut report = ReplayReport::default();
        report.take_in(self.v4.iter(), entrance);
        report.take_in(self.v6.iter(), entrance);
        report
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl ReplayReport {
    fn take_in<A: Header>(&mut self, syns: impl Iterator<Item: Borrow<Syn<A>>>, entrance: Entrance<'_>) {
        let mut frame = Vec::new();
        for syn in syns {
            match syn.borrow().come_in(entrance, &mut frame) {
                Ok(comes_in) => self.sent += u64::from(comes_in),
                Err(problem) => {
                    self.failed += 1;
                    self.problem.get_or_insert(problem);
                }
            }
        }
    }
}

impl<A: Header> Syn<A> {
    /// The one beside a client's line, if that is still the same.
    pub(super) fn of(table: &MappedTable<A>, met: Met) -> Option<Self> {
        let (sequence, saved) = (table.past(met).first_sequence, table.saved_syn(met.index));
        let tried = table.tried(met.index);
        // Read last: if the line is still the same, so was the SYN.
        Some(Self { met, line: table.read(met)?, sequence, saved, tried })
    }

    /// Whether a server had to answer it: it got there, its checksum was right, and it asked for no signature that only some may
    /// ask for. One with data or IP options is not judged, so it isn't taken for one.
    pub(super) fn deserves_an_answer(&self) -> bool {
        let had_more = self.saved.options_length & (SavedSyn::HAD_DATA | SavedSyn::HAD_IP_OPTIONS) != 0;
        if had_more || self.saved.hops < LEAST_HOPS {
            return false;
        }
        let options = self.options();
        let checksum = self.segment(&options, [0; 6], [0; 6]).checksum();
        checksum == self.saved.check && !asks_for_signature(&options)
    }

    /// Whether another backend has not taken the same attempt before.
    pub(super) fn is_again(&self, repeats: &Repeats) -> bool {
        self.tried != 0 || repeats.was_sent(&self.line.key, self.sequence)
    }

    /// As they stand in its header.
    fn options(&self) -> Vec<u8> {
        let options = self.saved.options.map(u32::to_ne_bytes);
        let options = options.as_flattened();
        options[..options.len().min(usize::from(self.saved.options_length) & !3)].to_vec()
    }

    fn segment<'a>(
        &self,
        options: &'a [u8],
        source_mac: [u8; 6],
        destination_mac: [u8; 6],
    ) -> Segment<'a, A> {
        let Self { line, sequence, saved, .. } = self;
        Segment {
            sequence: *sequence,
            flags: saved.flags,
            window: saved.window,
            options,
            hops: saved.hops,
            traffic_class: saved.traffic_class,
            ..Segment::new(line.key, source_mac, destination_mac)
        }
    }

    /// `false`: its time is over, and so it doesn't.
    fn come_in(&self, entrance: Entrance<'_>, frame: &mut Vec<u8>) -> Result<bool, DataplaneError> {
        let last_seen = self.met.state.last_seen();
        let was_sent = self.line.backend != 0;
        if !entrance.repeats.may_come_in(&self.line.key, self.sequence, last_seen, was_sent, monotonic_ns()) {
            return Ok(false);
        }
        let client = NextHop::from_word(self.line.client);
        let interface = entrance.exits.interface(client.interface);
        let interface = interface
            .ok_or(DataplaneError::NoInterface(format!("in the client's slot {}", client.interface)))?;
        self.segment(&self.options(), client.mac, interface.mac).write(frame);
        let is_generic = entrance.generic.contains(&interface.ifindex);
        let mode = if is_generic { Mode::Generic } else { Mode::Native };
        entrance.program.feed(frame, interface.ifindex, mode).map(|()| true)
    }
}

/// Whether a SYN with these options is signed (TCP MD5 and TCP-AO): a server that has no key for its client drops it without
/// a word.
fn asks_for_signature(options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const MD5: u8 = 19;
    const AO: u8 = 29;
    let mut rest = options;
    while let [kind, behind @ ..] = rest {
        rest = match (*kind, behind) {
            (END, _) => return false,
            (NOTHING, _) => behind,
            (MD5 | AO, _) => return true,
            // The length counts kind and length.
            (_, [length, ..]) if *length >= 2 => rest.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_signature_is_found_behind_other_options() {
        let usual = [2, 4, 5, 0xb4, 4, 2, 8, 10, 19, 29, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
        let md5: Vec<u8> = [&usual[..], &[1, 1, 19, 18], &[0; 16]].concat();
        let cases: [(&[u8], bool); 8] = [
            (&[], false),
            (&usual, false),
            (&md5, true),
            (&[29, 16, 0, 0], true),
            (&[1, 1, 0, 19], false),
            (&[2, 0, 19, 18], false),
            (&[2, 200, 19, 18], false),
            (&[2], false),
        ];
        for (options, is_signed) in cases {
            assert_eq!(asks_for_signature(options), is_signed, "{options:?}");
        }
    }
}
