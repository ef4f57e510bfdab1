//! Servers whose clients went on to another one, as they had not answered in time, are told that nobody waits.
//!
//! In snat the packet path does so when such an answer comes, late. In dnat an answer is addressed to the client, and no
//! different from that of a connection past the gateway's services: so there the server is told at once, and forgets
//! the connection attempt, if it ever heard of it.

use std::collections::BTreeMap;

use balancer_common::abi::NextHop;
use balancer_common::flow::flags;

use super::cut::Resets;
use super::exits::{Exits, patience};
use super::flows::{FamilyTables, FlowTable};
use super::held::{Syn, Syns};
use super::segment::{Header, Segment};

impl FlowTable {
    /// After these SYNs have come in once more: tells those backends, of these by slot, that were left by that, each the way
    /// that leads to it.
    pub fn tell_left(&self, syns: &Syns, ways: &BTreeMap<u16, NextHop>, exits: &Exits) {
        if ways.is_empty() || syns.is_empty() {
            return;
        }
        let mut resets = Resets::new(exits, patience());
        self.v4.tell_left(&syns.v4, ways, &mut resets);
        self.v6.tell_left(&syns.v6, ways, &mut resets);
    }
}

impl<A: Header> FamilyTables<A> {
    fn tell_left(&self, syns: &[Syn<A>], ways: &BTreeMap<u16, NextHop>, resets: &mut Resets<'_>) {
        let has_left = |syn: &&Syn<A>| !self.half_open.table.is_there(syn.met);
        for syn in syns.iter().filter(has_left) {
            let Some(way) = ways.get(&syn.line.backend) else { continue };
            let reset = Segment {
                sequence: syn.sequence.wrapping_add(1),
                flags: flags::RST,
                ..Segment::new(syn.line.becomes, [0; 6], [0; 6])
            };
            resets.send(reset, *way);
        }
    }
}
