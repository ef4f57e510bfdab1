//! Which SYNs came in once more in their clients' name, and since when.
//!
//! To the packet path each is a SYN like any other: an attempt that begins now. So it is known here alone that its client may
//! be gone for long, and that a backend before has not answered it either. In memory: after a restart each may come in once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use balancer_common::abi::{Address, FlowKey, Port, WireAddress};
use balancer_common::limits::HELD_IDLE_NS;
use balancer_common::table::since;

use super::clock::FlowClock;
use super::flows::FlowTable;

/// More than come in while one is remembered, unless somebody floods the gateway.
const MOST: usize = 1 << 17;

/// A line that was seen so much later than its SYN came in was seen by its client's own.
const OWN_WORD_NS: u64 = 500_000_000;

/// A walk over all of them takes milliseconds.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// A client's SYN: its tuple and its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    client: (Address, Port),
    listen: (Address, Port),
    sequence: u32,
}

impl Known {
    fn new<A: WireAddress>(key: &FlowKey<A>, sequence: u32) -> Self {
        Self {
            client: (key.source.into(), key.source_port),
            listen: (key.destination.into(), key.destination_port),
            sequence,
        }
    }
}

/// When its client last spoke, and when it came in for it (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug)]
struct Repeat {
    spoke: u64,
    came_in: u64,
    /// A backend had it before: it didn't only wait for one.
    was_sent: bool,
}

#[derive(Debug, Default)]
struct Table {
    all: HashMap<Known, Repeat>,
    /// When those were looked for that are over.
    swept: u64,
}

/// Each that came in once more. Of clones each knows what any other does.
#[derive(Clone, Debug)]
pub struct Repeats {
    clock: FlowClock,
    known: Arc<Mutex<Table>>,
}

impl Repeats {
    /// None yet, of flows in these tables.
    #[must_use]
    pub fn new(flows: &FlowTable) -> Self {
        Self { clock: flows.clock, known: Arc::default() }
    }

    /// Whether this one may come in now, whose line was last seen in this tick: for as long after its client's own last word as
    /// a SYN is kept. `was_sent`: it has been with a backend.
    pub(super) fn may_come_in<A: WireAddress>(
        &self,
        key: &FlowKey<A>,
        sequence: u32,
        last_seen: u32,
        was_sent: bool,
        now_ns: u64,
    ) -> bool {
        let silent = self.clock.duration(since(last_seen, self.clock.tick_at(now_ns)));
        let spoke = now_ns.saturating_sub(silent.as_nanos() as u64);
        let is_over = |repeat: &Repeat| now_ns.saturating_sub(repeat.spoke) > HELD_IDLE_NS;
        let mut table = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if table.all.len() >= MOST && now_ns.saturating_sub(table.swept) > SWEEP_EVERY_NS {
            table.all.retain(|_, repeat| !is_over(repeat));
            table.swept = now_ns;
        }
        let known = Known::new(key, sequence);
        if let Some(repeat) = table.all.get_mut(&known) {
            // What came in for it is not its own word.
            if spoke > repeat.came_in + OWN_WORD_NS {
                repeat.spoke = spoke;
            }
            (repeat.came_in, repeat.was_sent) = (now_ns, repeat.was_sent || was_sent);
            return !is_over(repeat);
        }
        if table.all.len() < MOST {
            table.all.insert(known, Repeat { spoke, came_in: now_ns, was_sent });
        }
        true
    }

    /// Whether this one has, after a backend had had it.
    pub(super) fn was_sent<A: WireAddress>(&self, key: &FlowKey<A>, sequence: u32) -> bool {
        let table = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        table.all.get(&Known::new(key, sequence)).is_some_and(|repeat| repeat.was_sent)
    }
}

#[cfg(test)]
mod tests {
    use balancer_common::abi::Address4;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(port: u16) -> FlowKey<Address4> {
        FlowKey { source_port: Port::new(port), ..FlowKey::default() }
    }

    #[test]
    fn a_syn_comes_in_until_its_client_has_been_silent_for_as_long_as_one_is_kept() {
        let clock = FlowClock::of_ticks_since(SECOND);
        let repeats = Repeats { clock, known: Arc::default() };
        let at = |seconds: u64| seconds * SECOND;
        let comes_in = |port, sequence, last_seen: u64, now: u64| {
            repeats.may_come_in(&key(port), sequence, clock.tick_at(at(last_seen)), port == 1, at(now))
        };
        let idle = HELD_IDLE_NS / SECOND;
        assert!(!repeats.was_sent(&key(1), 7));
        assert!(comes_in(1, 7, 10, 15));
        assert!(repeats.was_sent(&key(1), 7) && !repeats.was_sent(&key(1), 8));
        assert!(comes_in(2, 7, 10, 15) && !repeats.was_sent(&key(2), 7), "it only waited");
        // Its line was last seen when it came in.
        assert!(comes_in(1, 7, 15, 9 + idle) && !comes_in(1, 7, 9 + idle, 12 + idle));
        assert!(comes_in(1, 8, 12 + idle, 12 + idle), "its client's next attempt");
        // It has repeated itself.
        assert!(comes_in(1, 7, 20 + idle, 21 + idle) && comes_in(1, 7, 21 + idle, 19 + 2 * idle));
    }
}
