//! Both directions of a flow, met by the client's line, and how far the flow is.
//!
//! Deliberately absent: what follows from that. The other line is read for whoever ends flows or judges them; a listing,
//! which passes many, reads it in a way of its own.

use balancer_common::abi::{Line, Past, WireAddress};
use balancer_common::flow::{Progress, Seen, Stage};

use crate::dataplane::lines::{MappedTable, Met, seen};

/// Both directions of a flow.
pub(in crate::dataplane) struct Both<A: WireAddress> {
    pub(in crate::dataplane) client: Line<A>,
    pub(in crate::dataplane) past: Past,
    pub(in crate::dataplane) backend: (Met, Line<A>, Past),
}

impl<A: WireAddress> Both<A> {
    /// Whether the backend has answered the client's SYN.
    pub(in crate::dataplane) fn is_answered(&self) -> bool {
        seen(self.backend.0).has(Seen::OPENED)
    }

    /// Whether the backend has refused the client's SYN, which goes on to another one when it comes again.
    pub(in crate::dataplane) fn is_refused(&self) -> bool {
        seen(self.backend.0).has(Seen::RST)
    }

    pub(in crate::dataplane) fn stage(&self, client: Met) -> Stage {
        let (backend, line, past) = &self.backend;
        stage((client, &self.client, &self.past), (*backend, line, past))
    }
}

/// How far a flow is of which both directions were met.
pub(super) fn stage<A: WireAddress>(
    client: (Met, &Line<A>, &Past),
    backend: (Met, &Line<A>, &Past),
) -> Stage {
    let [client, backend] = [client, backend].map(|(met, line, past)| Progress::of(seen(met), line, past));
    Stage::of(&client, &backend)
}

/// Whether the client of a handshake waits for the answer to its SYN, of a backend that has got it.
pub(in crate::dataplane) fn is_unanswered<A: WireAddress>(table: &MappedTable<A>, client: Met) -> bool {
    both(table, client).is_some_and(|both| !both.is_answered())
}

/// Both directions of the flow that has this line of a client's.
pub(in crate::dataplane) fn both<A: WireAddress>(table: &MappedTable<A>, client: Met) -> Option<Both<A>> {
    let line = table.read(client)?;
    let past = table.past(client);
    let (backend, twin) = table.twin(&line, &past)?;
    Some(Both { client: line, past, backend: (backend, twin, table.past(backend)) })
}
