//! A packet's fate, and the reason for it.
//!
//! Every drop has a [`Reason`], every reason a counter, a line in `stats` and a packet case that provokes it.

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten; leaves through the interface in this slot.
    Forward(u16),
    /// Not for a service: the kernel gets it byte-identical.
    Pass,
    /// For a service, and can't be translated.
    Drop(Reason),
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $meaning:literal;)+) => {
        /// Why a packet for a service was dropped.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in `stats`, `status` and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// One line for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }
        }
    };
}

reasons! {
    /// A TCP fragment to a listen address: only the first one has ports.
    Fragment = "fragment", "TCP fragment to a listen address";
    /// A header that is too short, or longer than its packet, or a packet longer than its frame.
    BadLength = "bad_length", "header or packet length that can't be";
    /// SYN with FIN or RST, FIN with RST, or no ACK where TCP wants one.
    BadFlags = "bad_flags", "TCP flags that no client sends (SYN+FIN, NULL, Xmas)";
    /// A source that can't be a client: loopback, multicast, a listen address, or the destination itself.
    SpoofedSource = "spoofed_source", "source address that can't be a client's";
    /// A SYN-ACK that answers no flow.
    StraySynAck = "stray_syn_ack", "SYN-ACK that answers no SYN of a flow";
    /// Mid-stream, for a service, of no flow.
    NoFlow = "no_flow", "segment of a connection that isn't known here";
    /// In a half-open flow, and doesn't answer the other side's SYN.
    BadHandshake = "bad_handshake", "acknowledges another handshake than the flow's";
    /// The pool has no active backend.
    NoBackend = "no_backend", "new connection while the pool has no active backend";
    /// Route or neighbour towards the backend isn't resolved.
    NoNextHop = "no_next_hop", "route or neighbour to the backend isn't resolved";
    /// No SNAT port was free in as many tries as a packet may make.
    SnatExhausted = "snat_exhausted", "no SNAT port was free";
    /// As many handshakes are under way as `max_half_open` allows.
    HalfOpenFull = "half_open_full", "new connection while max_half_open handshakes are under way";
    /// As many flows exist as `max_flows` allows.
    FlowTableFull = "flow_table_full", "handshake completed while max_flows flows exist";
    /// TTL 1 or 0.
    TtlExpired = "ttl_expired", "TTL used up";
    /// Larger than the way out takes.
    TooBig = "too_big", "larger than the MTU of the way out";
    /// The kernel has no interface in the slot that the packet should leave through.
    RedirectFailed = "redirect_failed", "the interface to leave through is gone";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Reason;

    #[test]
    fn counters_and_names_are_one_each() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
