//! Ends the flows of a backend at once, all or those of one service, and tells both sides.
//!
//! Lines are taken out, so that whatever the sides still send belongs to no flow and is answered with a RST. Who sends
//! nothing would never learn of it: so each side gets a RST from here, with the sequence number that it expects next. A
//! client that has just received what it hasn't acknowledged yet doesn't believe that number; it has something to say, and
//! is told when it does. Who waits for the answer to its SYN doesn't have to know: if its pool lets it go on to another
//! backend, the SYN is kept, to come in once more.
//!
//! Why three passes. The packet path may be in the middle of anything on other CPUs: it may have read the pool's word when
//! that still named the backend, have looked at a handshake that it is about to make a flow of, or have copied what a packet
//! becomes. But each run of it ends within a grace period of the kernel's RCU, in whose read sections all of them are.
//! 1. When the first pass begins no run that begins later leads a client to the backend. After it, and a grace period,
//!    no run is left that does: no more handshakes are made.
//! 2. The second pass leaves no handshake. After it, and a grace period, no run is left that has seen one: no more flows
//!    are made of handshakes.
//! 3. The third pass leaves no flow. After it, and a grace period, no run is left that has seen one: no packet of any
//!    flow of the backend goes on any more.
//!
//! Deliberately absent: whether flows should end, and the pool's word, which has to name another backend or none before
//! all this begins.

use std::time::Instant;

use balancer_common::abi::{NextHop, WireAddress};
use balancer_common::flow::{Seen, Stage, flags};
use rustix::thread::{MembarrierCommand, membarrier};

use super::DataplaneError;
use super::exits::{Exits, FrameSocket, packet_socket};
use super::flows::{Both, Counted, FamilyTables, FlowTable, both};
use super::held::{Syn, Syns};
use super::lines::{MappedTable, Met, seen};
use super::segment::{Header, Segment};
use super::words::MappedWords;

/// See above.
const PASSES: usize = 3;
/// How often a line is tried to be taken out into which packets keep writing; each try is sixteen of them.
const TRIES: usize = 4096;

/// Whether flows of this service and this backend, by slots, are meant.
type Which<'a> = &'a dyn Fn((u16, u16)) -> bool;

/// What was cut.
#[derive(Debug, Default)]
pub struct CutReport {
    /// Flows that were ended, handshakes included.
    pub flows: u64,
    /// Clients that were sent a RST for theirs; the others get one when they say something.
    pub resets_sent: u64,
    /// Why not all that should be were sent, the first time; without CAP_NET_RAW none are.
    pub problem: Option<DataplaneError>,
}

impl FlowTable {
    /// Ends all flows of the backend in this slot. Its pool's word must have left it before. When this returns without an
    /// error, no packet of a flow of this backend is forwarded any more. Takes some tens of milliseconds, and some
    /// microseconds a flow: nothing for a loop to wait for.
    ///
    /// `unanswered`: where SYNs are kept that the backend has not answered, whose clients are not told then; `None`: they
    /// are. What was kept is to come in once more when this returns, with or without an error. `until`: of [`patience`](super::exits::patience).
    pub(super) fn cut(
        &self,
        backend: u16,
        exits: &Exits,
        unanswered: Option<&mut Syns>,
        until: Instant,
    ) -> Result<CutReport, DataplaneError> {
        self.cut_these(&|(_, of)| of == backend, exits, unanswered, until)
    }

    /// The same of flows of the service in this slot alone, which nothing may lead to any more: not its pool's word, but its
    /// listening address.
    pub(super) fn cut_of_service(
        &self,
        service: u16,
        backend: u16,
        exits: &Exits,
        until: Instant,
    ) -> Result<CutReport, DataplaneError> {
        self.cut_these(&|slots| slots == (service, backend), exits, None, until)
    }

    fn cut_these(
        &self,
        which: Which<'_>,
        exits: &Exits,
        mut unanswered: Option<&mut Syns>,
        until: Instant,
    ) -> Result<CutReport, DataplaneError> {
        let mut resets = Resets::new(exits, until);
        let mut flows = 0;
        let mut left = 0;
        for _ in 0..PASSES {
            let (kept_4, kept_6) = match &mut unanswered {
                Some(syns) => (Some(&mut syns.v4), Some(&mut syns.v6)),
                None => (None, None),
            };
            let (cut_4, left_4) = self.v4.cut(which, &mut resets, kept_4);
            let (cut_6, left_6) = self.v6.cut(which, &mut resets, kept_6);
            flows += cut_4 + cut_6;
            left = left_4 + left_6;
            outlast_runs()?;
        }
        if left > 0 {
            let problem = format!("packets keep coming into {left} of them; try again");
            let what = "cutting a backend's flows".to_owned();
            return Err(DataplaneError::Io { what, source: std::io::Error::other(problem) });
        }
        Ok(CutReport { flows, resets_sent: resets.sent, problem: resets.problem })
    }
}

/// Waits for a grace period: until every run of the packet path that is under way has ended. The barrier over all
/// processes is made of one; it isn't allowed where CPUs run without a tick (`nohz_full`), and there the end of a packet
/// socket, which waits for one too, does it.
fn outlast_runs() -> Result<(), DataplaneError> {
    if membarrier(MembarrierCommand::Global).is_err() {
        drop(packet_socket()?);
    }
    Ok(())
}

impl<A: Header> FamilyTables<A> {
    /// Handshakes first: one that becomes a flow meanwhile is met as such. Returns how many were ended, and how many lines
    /// could not be.
    fn cut(
        &self,
        which: Which<'_>,
        resets: &mut Resets<'_>,
        unanswered: Option<&mut Vec<Syn<A>>>,
    ) -> (u64, u64) {
        let (handshakes, left) = self.half_open.cut(&self.counts, which, resets, unanswered);
        let (flows, more) = self.established.cut(&self.counts, which, resets, None);
        (handshakes + flows, left + more)
    }
}

impl<A: Header> Counted<A> {
    /// `unanswered`: of handshakes alone.
    fn cut(
        &self,
        counts: &MappedWords,
        which: Which<'_>,
        resets: &mut Resets<'_>,
        mut unanswered: Option<&mut Vec<Syn<A>>>,
    ) -> (u64, u64) {
        let table = &self.table;
        let meant = || table.live().filter(|met| which(table.slots(*met)));
        let (mut cut, mut left) = (0, 0);
        for client in meant().filter(|met| seen(*met).is_from_client()) {
            let both = both(table, client);
            let syn = unanswered.as_ref().and_then(|_| Syn::of(table, client));
            if take_out(table, client) {
                cut += 1;
                if let Some(mut both) = both {
                    // It may have been answered meanwhile.
                    let before = both.backend.0;
                    let now = table.met(before.index).filter(|now| now.state.is_same_life(before.state));
                    if let Some((now, line)) = now.and_then(|now| Some((now, table.read(now)?))) {
                        both.backend = (now, line, table.past(now));
                    }
                    table.remove(both.backend.0);
                    match (&mut unanswered, syn) {
                        (Some(kept), Some(syn)) if !both.is_answered() => {
                            resets.tell_backend(&both);
                            kept.push(syn);
                        }
                        _ => resets.tell(client, &both),
                    }
                }
            } else {
                left += u64::from(table.is_there(client));
            }
        }
        self.count_swept(counts, cut);
        // Halves without a client's line, which lead a backend's packets to the client all the same.
        for half in meant() {
            left += u64::from(!take_out(table, half) && table.is_there(half));
        }
        (cut, left)
    }
}

/// Takes a line out into which packets may be writing; `false`: somebody else has, or they write too much.
fn take_out<A: WireAddress>(table: &MappedTable<A>, met: Met) -> bool {
    (0..TRIES).take_while(|_| table.is_there(met)).any(|_| table.remove(met))
}

/// Tells both sides of flows that they have ended.
pub(super) struct Resets<'a> {
    exits: &'a Exits,
    socket: Option<FrameSocket>,
    frame: Vec<u8>,
    sent: u64,
    problem: Option<DataplaneError>,
}

impl<'a> Resets<'a> {
    pub(super) fn new(exits: &'a Exits, until: Instant) -> Self {
        let (socket, problem) = match FrameSocket::open(until) {
            Ok(socket) => (Some(socket), None),
            Err(problem) => (None, Some(problem)),
        };
        Self { exits, socket, frame: Vec::new(), sent: 0, problem }
    }

    /// A flow that both sides have closed is no news to them.
    fn tell<A: Header>(&mut self, client: Met, both: &Both<A>) {
        if both.stage(client) == Stage::Closed {
            return;
        }
        let line = &both.client;
        let expected = Expected::of(both);
        let to_client = Segment {
            sequence: expected.by_client.unwrap_or_default(),
            acknowledgement: expected.by_backend,
            flags: flags::RST | flags::ACK,
            ..Segment::new(line.key.reversed(), [0; 6], [0; 6])
        };
        self.sent += u64::from(self.send(to_client, NextHop::from_word(line.client)));
        self.tell_backend(both);
    }

    fn tell_backend<A: Header>(&mut self, both: &Both<A>) {
        let expected = Expected::of(both);
        let to_backend = Segment {
            sequence: expected.by_backend,
            acknowledgement: expected.by_client.unwrap_or_default(),
            flags: if expected.by_client.is_some() { flags::RST | flags::ACK } else { flags::RST },
            ..Segment::new(both.client.becomes, [0; 6], [0; 6])
        };
        self.send(to_backend, self.exits.backend);
    }

    /// Sends a segment this way; `false`: it didn't leave.
    pub(super) fn send<A: Header>(&mut self, segment: Segment<'_, A>, hop: NextHop) -> bool {
        let (Some(socket), Some(interface)) = (&mut self.socket, self.exits.interface(hop.interface)) else {
            return false;
        };
        let segment = Segment { source_mac: interface.mac, destination_mac: hop.mac, ..segment };
        segment.write(&mut self.frame);
        match socket.send(interface.ifindex, &self.frame) {
            Ok(()) => true,
            Err(problem) => {
                self.problem.get_or_insert(problem);
                false
            }
        }
    }
}

/// The sequence numbers that the sides of a flow expect next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// Nothing, as long as it waits for an answer to its SYN.
    by_client: Option<u32>,
    by_backend: u32,
}

impl Expected {
    /// By what each side has acknowledged; by the other's SYN, if it has acknowledged nothing.
    fn of<A: WireAddress>(both: &Both<A>) -> Self {
        let (met, backend, past) = &both.backend;
        let acknowledged = |number: u32| Some(number).filter(|number| *number != 0);
        let opened = seen(*met).has(Seen::OPENED).then(|| past.first_sequence.wrapping_add(1));
        Self {
            by_client: acknowledged(both.client.acknowledged).or(opened),
            by_backend: acknowledged(backend.acknowledged)
                .unwrap_or_else(|| both.past.first_sequence.wrapping_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use balancer_common::abi::{Address4, Line, Past};
    use balancer_common::table::{Place, State};

    use super::*;

    const CLIENT_ISN: u32 = u32::MAX;
    const BACKEND_ISN: u32 = 7000;

    fn both(client: u32, backend: u32, seen: Seen) -> Both<Address4> {
        let line = |acknowledged| Line { acknowledged, ..Line::default() };
        let past = |first_sequence| Past { first_sequence, ..Past::default() };
        let state = State::default().born(Seen::FROM_BACKEND.and(seen).0, 0);
        let met = Place { line: 0, index: 0, state };
        Both {
            client: line(client),
            past: past(CLIENT_ISN),
            backend: (met, line(backend), past(BACKEND_ISN)),
        }
    }

    #[test]
    fn each_side_expects_what_it_has_acknowledged_and_else_what_follows_the_others_syn() {
        let opened = Seen::OPENED;
        let cases = [
            ("unanswered", both(0, 0, Seen::default()), (None, 0)),
            ("answered", both(0, 0, opened), (Some(BACKEND_ISN + 1), 0)),
            ("established", both(7500, 33, opened), (Some(7500), 33)),
            ("not yet acknowledged by the client", both(0, 33, opened), (Some(BACKEND_ISN + 1), 33)),
        ];
        for (what, both, (by_client, by_backend)) in cases {
            assert_eq!(Expected::of(&both), Expected { by_client, by_backend }, "{what}");
        }
    }
}
