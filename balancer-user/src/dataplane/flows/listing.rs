//! Every flow with all that is told of it, a million of them in less than a tenth of a second.
//!
//! Most of that time is the memory's: clients' lines are met in the order in which they lie there, but what the backends' lines
//! have is anywhere, so those of many flows are fetched at once. Nothing here may wait for one flow before it looks at the
//! next; see [`Copied`]. Deliberately absent: names, and who wants which flow.

use std::net::SocketAddr;
use std::time::Duration;

use balancer_common::abi::{Carried, FlowKey, WireAddress, socket};
use balancer_common::flow::Stage;
use balancer_common::table::State;

use super::FamilyTables;
use super::age::Ager;
use super::both::stage;
use crate::dataplane::lines::{Copied, MappedTable, Met, seen};

/// Flows whose other directions are fetched at once: more than a processor has loads under way, and, with all that is
/// read of them, a quarter of a usual first-level cache.
const BATCH: usize = 64;

/// How far a flow is, as people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The handshake is under way.
    HalfOpen,
    /// Both directions are open.
    Established,
    /// One side has ended it, or both.
    Closing,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who connected.
    pub client: SocketAddr,
    /// To which address and port.
    pub listen: SocketAddr,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend; 0: it has none yet, its SYN is held.
    pub backend: u16,
    /// How far it is.
    pub state: FlowState,
    /// Since its SYN.
    pub age: Duration,
    /// Since its last packet.
    pub idle: Duration,
    /// Packets of both directions.
    pub packets: u64,
    /// Their bytes, whole frames.
    pub bytes: u64,
}

impl<A: WireAddress> FamilyTables<A> {
    pub(super) fn for_each(&self, ager: &Ager, visit: &mut impl FnMut(Flow)) {
        for (table, is_established) in [(&self.half_open.table, false), (&self.established.table, true)] {
            let mut teller = Teller { table, ager, is_established, copies: [Copied::new(), Copied::new()] };
            let mut batch = [Met { line: 0, index: 0, state: State::default() }; BATCH];
            let mut clients = 0;
            for met in table.live() {
                // Kept or written over, and not asked which: it is chance.
                batch[clients] = met;
                clients += usize::from(seen(met).is_from_client());
                if clients == BATCH {
                    teller.tell(&batch, visit);
                    clients = 0;
                }
            }
            teller.tell(&batch[..clients], visit);
        }
    }
}

/// Tells of flows, by their clients' lines.
struct Teller<'a, A: WireAddress> {
    table: &'a MappedTable<A>,
    ager: &'a Ager,
    is_established: bool,
    copies: [Copied<A>; 2],
}

impl<A: WireAddress> Teller<'_, A> {
    fn tell(&mut self, clients: &[Met], visit: &mut impl FnMut(Flow)) {
        self.table.fetch(clients.iter().map(|met| self.table.twin_of(met.index)));
        for met in clients {
            self.tell_of(*met, visit);
        }
    }

    /// The flow is put together at the end and handed on from there: a copy of it would wait, as one of a line.
    #[inline]
    fn tell_of(&mut self, met: Met, visit: &mut impl FnMut(Flow)) {
        let Self { table, ager, is_established, copies: [client, backend] } = self;
        let Some(client) = table.read_into(met, client) else { return };
        let past = table.past(met);
        let idle = ager.since(met.state.last_seen());
        let (state, idle, packets, bytes) = match table.twin_into(client, &past, backend) {
            Some((twin, backend)) => {
                let state = if !*is_established {
                    FlowState::HalfOpen
                } else if !seen(met).may_end() {
                    // Of most there is no more to be known, and what is kept apart from the other line is far away.
                    FlowState::Established
                } else {
                    match stage((met, client, &past), (twin, backend, &table.past(twin))) {
                        Stage::Established => FlowState::Established,
                        Stage::HalfClosed | Stage::Closed => FlowState::Closing,
                    }
                };
                let [forth, back] =
                    [client, backend].map(|line| Carried { low: line.packets, high: line.bytes });
                let idle = idle.min(ager.since(twin.state.last_seen()));
                (state, idle, forth.packets() + back.packets(), forth.bytes() + back.bytes())
            }
            // It waits for a backend, and nothing of it has gone on.
            None if !*is_established && client.backend == 0 => (FlowState::HalfOpen, idle, 0, 0),
            // Half a flow.
            None => return,
        };
        let FlowKey { source, destination, source_port, destination_port } = client.key;
        visit(Flow {
            client: socket(source.into(), source_port),
            listen: socket(destination.into(), destination_port),
            service: client.service,
            backend: client.backend,
            state,
            age: ager.since(past.began),
            idle,
            packets,
            bytes,
        });
    }
}
