//! Which SYNs came in once more in their clients' name, and since when.
//!
//! To the packet path each is a SYN like any other: an attempt that begins now. So it is known here alone that its client may
//! be gone for long, and that a backend before has not answered it either. In memory: after a restart each may come in once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use balancer_common::abi::{Address, FlowKey, Port, WireAddress};
use balancer_common::limits::HALF_OPEN_IDLE_NS;

/// More than come in while one is remembered, unless somebody floods the gateway.
const MOST: usize = 1 << 17;

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

/// When each came in once more for the first time (`CLOCK_MONOTONIC`). Of clones each knows what any other does.
#[derive(Clone, Debug, Default)]
pub struct Repeats(Arc<Mutex<HashMap<Known, u64>>>);

impl Repeats {
    /// Whether this one may come in now: for as long as a handshake may be under way.
    pub(super) fn may_come_in<A: WireAddress>(&self, key: &FlowKey<A>, sequence: u32, now_ns: u64) -> bool {
        let mut repeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: u64| now_ns.saturating_sub(since) > HALF_OPEN_IDLE_NS;
        if repeats.len() >= MOST {
            // One that has just ended may still be under way as another handshake, which ends as others do.
            repeats.retain(|_, since| !is_over(*since));
        }
        let known = Known::new(key, sequence);
        if let Some(since) = repeats.get(&known) {
            return !is_over(*since);
        }
        if repeats.len() < MOST {
            repeats.insert(known, now_ns);
        }
        true
    }

    /// Whether this one has.
    pub(super) fn has<A: WireAddress>(&self, key: &FlowKey<A>, sequence: u32) -> bool {
        let repeats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        repeats.contains_key(&Known::new(key, sequence))
    }
}

#[cfg(test)]
mod tests {
    use balancer_common::abi::Address4;

    use super::*;

    fn key(port: u16) -> FlowKey<Address4> {
        FlowKey { source_port: Port::new(port), ..FlowKey::default() }
    }

    #[test]
    fn a_syn_comes_in_for_as_long_as_its_handshake_may_be_under_way() {
        let repeats = Repeats::default();
        assert!(!repeats.has(&key(1), 7));
        assert!(repeats.may_come_in(&key(1), 7, 5));
        assert!(repeats.may_come_in(&key(1), 7, 5 + HALF_OPEN_IDLE_NS));
        assert!(!repeats.may_come_in(&key(1), 7, 6 + HALF_OPEN_IDLE_NS));
        assert!(repeats.has(&key(1), 7) && !repeats.has(&key(1), 8) && !repeats.has(&key(2), 7));
        assert!(repeats.may_come_in(&key(1), 8, 6 + HALF_OPEN_IDLE_NS), "its client's next attempt");
    }
}
