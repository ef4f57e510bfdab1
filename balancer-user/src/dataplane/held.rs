//! Clients' SYNs that were kept while their pool was on hold, on their way again.
//!
//! Each is put together from what the packet path has kept and comes in once more, as if the client had repeated it: the
//! packet path does with it what it does with any other, makes a flow and sends it, refuses it, or keeps it again. So
//! nothing about flows is decided here, and a client that has gone meanwhile does what it would do about any late answer.
//! Data that a SYN brought (TCP fast open) isn't kept: its client sends it again when it is not acknowledged.
//!
//! Where the kernel can't be given frames (before Linux 5.18), the clients' own repetitions do the same, later.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use balancer_common::abi::{Line, NextHop, SavedSyn};

use super::DataplaneError;
use super::attach::Mode;
use super::exits::Exits;
use super::flows::{FamilyTables, FlowTable, seen};
use super::lines::Met;
use super::object::Loaded;
use super::segment::{Header, Segment};

/// Where SYNs come in.
#[derive(Clone, Copy)]
pub struct Entrance<'a> {
    /// The program that they come before.
    pub program: &'a Loaded,
    /// The interfaces, of this thread's network.
    pub exits: &'a Exits,
    /// On which of them, by the kernel's index, the program runs in generic mode.
    pub generic: &'a BTreeSet<u32>,
}

/// What became of held SYNs.
#[derive(Debug, Default)]
pub struct ReplayReport {
    /// Came in once more; what the packet path made of them, its counters tell.
    pub sent: u64,
    /// Didn't: their clients have to repeat them.
    pub failed: u64,
    /// Why, the first time.
    pub problem: Option<DataplaneError>,
}

impl FlowTable {
    /// Has all SYNs that are held for these services, by slot, come in once more, those first whose client has waited for
    /// longest since it repeated it. To be called when their pool is not on hold any more. Takes some ten microseconds a
    /// SYN.
    pub fn replay(&self, services: &BTreeSet<u16>, entrance: Entrance<'_>) -> ReplayReport {
        let mut report = ReplayReport::default();
        self.v4.replay(services, entrance, &mut report);
        self.v6.replay(services, entrance, &mut report);
        report
    }
}

impl<A: Header> FamilyTables<A> {
    fn replay(&self, services: &BTreeSet<u16>, entrance: Entrance<'_>, report: &mut ReplayReport) {
        let table = &self.half_open.table;
        let is_meant = |met: &Met| {
            seen(*met).is_from_client() && table.is_held(*met) && services.contains(&table.slots(*met).0)
        };
        let mut held: Vec<Met> = table.live().filter(is_meant).collect();
        // All of them are minutes old at the most; the clock may wrap, but not within that.
        let newest = held.iter().map(|met| met.state.last_seen()).max().unwrap_or_default();
        held.sort_by_key(|met| Reverse(met.state.silent(newest)));
        let mut frame = Vec::new();
        for met in held {
            let (past, syn) = (table.past(met.index), table.saved_syn(met.index));
            // Read last: if the line is still the same, so was the SYN. If not, its client has repeated it.
            let Some(line) = table.read(met) else { continue };
            match come_in(&line, past.first_sequence, &syn, entrance, &mut frame) {
                Ok(()) => report.sent += 1,
                Err(problem) => {
                    report.failed += 1;
                    report.problem.get_or_insert(problem);
                }
            }
        }
    }
}

fn come_in<A: Header>(
    line: &Line<A>,
    sequence: u32,
    syn: &SavedSyn,
    entrance: Entrance<'_>,
    frame: &mut Vec<u8>,
) -> Result<(), DataplaneError> {
    let client = NextHop::from_word(line.client);
    let interface = entrance.exits.interface(client.interface);
    let interface =
        interface.ok_or(DataplaneError::NoInterface(format!("in the client's slot {}", client.interface)))?;
    let options = syn.options.map(u32::to_ne_bytes);
    let options = options.as_flattened();
    let options = &options[..options.len().min(usize::from(syn.options_length) & !3)];
    let segment = Segment {
        sequence,
        flags: syn.flags,
        window: syn.window,
        options,
        hops: syn.hops,
        traffic_class: syn.traffic_class,
        ..Segment::new(line.key, client.mac, interface.mac)
    };
    segment.write(frame);
    let is_generic = entrance.generic.contains(&interface.ifindex);
    let mode = if is_generic { Mode::Generic } else { Mode::Native };
    entrance.program.feed(frame, interface.ifindex, mode)
}
