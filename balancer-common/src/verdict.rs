//! A packet's fate, and the reason for it.
//!
//! Every drop and every answer has a [`Reason`], every reason a counter, a line in `stats` and a packet case that
//! provokes it. The one table below says what may become of a packet for each of them.

use core::num::NonZeroU64;

/// What becomes of a packet, as one word: subprograms of the packet path return it, and of a word every part is always
/// there, as the verifier wants it of what is copied.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(NonZeroU64);

/// Where a packet goes on that isn't decided about; most are in the first of these, and end there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Which flow it belongs to, if any, has to be looked for.
    Flow,
    /// The packet belongs to a flow whose handshake is under way, and was met in this line.
    Handshake(u32),
    /// It belongs to a flow whose handshake is complete, and was met in this line.
    Established(u32),
    /// It belongs to no flow. With the sequence number that the lock of its tuple had before it was looked for.
    Unknown(u32),
    /// It refuses a SYN, which it is to become once more.
    Retry,
    /// It is a SYN that a backend did not take; this CPU's draft knows which did not.
    Again,
    /// It opens a flow to a backend, as this CPU's draft describes it.
    Open,
    /// It opens a flow of a pool that is on hold.
    Hold,
    /// It is an ICMP message.
    Icmp,
}

/// What a [`Verdict`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Rewritten; leaves through the interface that the kernel was told.
    Forward,
    /// Not for a service: the kernel gets it byte-identical.
    Pass,
    /// The same, and counted, as people wonder about it.
    PassCounted(Reason),
    /// For a service, and can't be translated.
    Drop(Reason),
    /// The same, and its sender is told, as long as there are not too many of them.
    Answer(Answer),
    /// Not yet decided.
    Next(Stage),
}

const FORWARD: u32 = 1;
const PASS: u32 = 2;
const PASS_COUNTED: u32 = 3;
const DROP: u32 = 4;
const TIME_EXCEEDED: u32 = 5;
const TOO_BIG: u32 = 6;
const RESET: u32 = 7;
const FLOW: u32 = 8;
const HANDSHAKE: u32 = 9;
const UNKNOWN: u32 = 10;
const ICMP: u32 = 11;
const HOLD: u32 = 12;
const REFUSAL: u32 = 13;
const RETRY: u32 = 14;
const AGAIN: u32 = 15;
const OPEN: u32 = 16;
const ESTABLISHED: u32 = 17;

impl Verdict {
    /// [`Outcome::Pass`].
    pub const PASS: Self = Self::of(PASS, 0);

    /// [`Outcome::Forward`].
    pub const FORWARD: Self = Self::of(FORWARD, 0);

    /// [`Outcome::PassCounted`].
    #[inline(always)]
    pub const fn pass_counted(reason: Reason) -> Self {
        Self::of(PASS_COUNTED, reason as u32)
    }

    /// [`Outcome::Drop`].
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self::of(DROP, reason as u32)
    }

    /// [`Outcome::Answer`].
    #[inline(always)]
    pub const fn answer(answer: Answer) -> Self {
        match answer {
            Answer::TimeExceeded => Self::of(TIME_EXCEEDED, 0),
            Answer::TooBig(mtu) => Self::of(TOO_BIG, mtu),
            Answer::Reset(at) => Self::of(RESET, at),
            Answer::Refusal(at) => Self::of(REFUSAL, at),
        }
    }

    /// [`Outcome::Next`].
    #[inline(always)]
    pub const fn next(stage: Stage) -> Self {
        match stage {
            Stage::Flow => Self::of(FLOW, 0),
            Stage::Handshake(line) => Self::of(HANDSHAKE, line),
            Stage::Established(line) => Self::of(ESTABLISHED, line),
            Stage::Unknown(sequence) => Self::of(UNKNOWN, sequence),
            Stage::Retry => Self::of(RETRY, 0),
            Stage::Again => Self::of(AGAIN, 0),
            Stage::Open => Self::of(OPEN, 0),
            Stage::Hold => Self::of(HOLD, 0),
            Stage::Icmp => Self::of(ICMP, 0),
        }
    }

    #[inline(always)]
    const fn of(kind: u32, value: u32) -> Self {
        match NonZeroU64::new((kind as u64) << 32 | value as u64) {
            Some(word) => Self(word),
            None => Self(NonZeroU64::MAX),
        }
    }

    /// As a word, which is never 0.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0.get()
    }

    /// From its word; 0: none.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// What it says.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        let value = self.0.get() as u32;
        let reason = match Reason::from_number(value as u8) {
            Some(reason) => reason,
            None => Reason::NoFlow,
        };
        match (self.0.get() >> 32) as u32 {
            FORWARD => Outcome::Forward,
            PASS_COUNTED => Outcome::PassCounted(reason),
            DROP => Outcome::Drop(reason),
            TIME_EXCEEDED => Outcome::Answer(Answer::TimeExceeded),
            TOO_BIG => Outcome::Answer(Answer::TooBig(value)),
            RESET => Outcome::Answer(Answer::Reset(value)),
            REFUSAL => Outcome::Answer(Answer::Refusal(value)),
            FLOW => Outcome::Next(Stage::Flow),
            HANDSHAKE => Outcome::Next(Stage::Handshake(value)),
            ESTABLISHED => Outcome::Next(Stage::Established(value)),
            UNKNOWN => Outcome::Next(Stage::Unknown(value)),
            RETRY => Outcome::Next(Stage::Retry),
            AGAIN => Outcome::Next(Stage::Again),
            OPEN => Outcome::Next(Stage::Open),
            HOLD => Outcome::Next(Stage::Hold),
            ICMP => Outcome::Next(Stage::Icmp),
            _ => Outcome::Pass,
        }
    }

    /// Whether the packet goes on.
    #[inline(always)]
    pub const fn is_forward(self) -> bool {
        (self.0.get() >> 32) as u32 == FORWARD
    }

    /// The same for a packet that deserves no answer.
    #[inline(always)]
    #[must_use]
    pub const fn unanswered(self) -> Self {
        match (self.0.get() >> 32) as u32 {
            TIME_EXCEEDED => Self::drop(Reason::TtlExpired),
            TOO_BIG => Self::drop(Reason::TooBig),
            RESET => Self::drop(Reason::NoFlow),
            REFUSAL => Self::drop(Reason::AllDown),
            _ => self,
        }
    }
}

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// ICMP: its TTL was used up here.
    TimeExceeded,
    /// ICMP: the way out takes packets of so many bytes.
    TooBig(u32),
    /// TCP RST: there is no such connection. Where the segment's TCP header begins in the frame.
    Reset(u32),
    /// TCP RST: nobody is there to connect to. Where the SYN's TCP header begins in the frame.
    Refusal(u32),
}

impl Answer {
    /// Why.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::TimeExceeded => Reason::TtlExpired,
            Self::TooBig(_) => Reason::TooBig,
            Self::Reset(_) => Reason::NoFlow,
            Self::Refusal(_) => Reason::AllDown,
        }
    }
}

/// What may become of a packet for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Dropped.
    Drop,
    /// Answered; dropped where it deserves no answer, and beyond the limit of answers.
    Answer,
    /// Passed.
    Pass,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $fate:ident = $text:literal, $meaning:literal;)+) => {
        /// Why a packet was neither forwarded nor simply passed.
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

            /// The reason that stands at this place of [`Self::ALL`].
            pub const fn from_number(number: u8) -> Option<Self> {
                $(if number == Self::$name as u8 { return Some(Self::$name); })+
                None
            }

            /// One line for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

            /// What may become of a packet for it.
            pub const fn fate(self) -> Fate {
                match self { $(Self::$name => Fate::$fate),+ }
            }
        }
    };
}

reasons! {
    /// A TCP fragment to a listen address: only the first one has ports.
    Fragment: Drop = "fragment", "TCP fragment to a listen address";
    /// A header that is too short, or longer than its packet, or a packet longer than its frame.
    BadLength: Drop = "bad_length", "header or packet length that can't be";
    /// More IPv6 extension headers than are looked at, or a routing header that leads elsewhere first.
    ExtensionHeaders: Drop = "extension_headers", "IPv6 extension headers: more than six, or a route still to go";
    /// SYN with FIN or RST, FIN with RST, or no ACK where TCP wants one.
    BadFlags: Drop = "bad_flags", "TCP flags that no client sends (SYN+FIN, NULL, Xmas)";
    /// A source that can't be a client: loopback, multicast, an address of the gateway, a backend in another place.
    SpoofedSource: Drop = "spoofed_source", "source address that can't be a client's";
    /// A SYN-ACK that answers no flow.
    StraySynAck: Drop = "stray_syn_ack", "SYN-ACK that answers no SYN of a flow";
    /// Mid-stream, for a service, of no flow; answered with RST, which a RST is not.
    NoFlow: Answer = "no_flow", "segment of a connection that isn't known here";
    /// An ICMP error about a connection of a service that isn't known here.
    IcmpNoFlow: Drop = "icmp_no_flow", "ICMP error about a connection that isn't known here";
    /// In a half-open flow, and doesn't answer the other side's SYN.
    BadHandshake: Drop = "bad_handshake", "acknowledges another handshake than the flow's";
    /// A SYN or SYN-ACK whose sender left its checksum to hardware that isn't there.
    PartialChecksum: Drop = "partial_checksum", "checksum left to hardware: `ethtool -K IF tx off` on its sender";
    /// The pool has no active backend.
    NoBackend: Drop = "no_backend", "new connection while the pool has no active backend";
    /// The pool is on hold: the SYN is kept, and sent when a backend is active.
    Held: Drop = "held", "SYN kept while its pool is on hold; it is sent at the switch";
    /// The pool's backends are all down, and it refuses connections meanwhile; answered with RST.
    AllDown: Answer = "all_down", "new connection while all backends are down";
    /// A backend's refusal of a SYN that goes on to another backend later: when its client repeats it, or at the switch.
    Refused: Drop = "refused", "refusal kept from its client, whose SYN goes on to another backend";
    /// The same where the SYN should have gone on at once, in the refusal's frame, which has no room for it.
    NoHeadRoom: Drop = "no_head_room", "refusal whose frame can't become the SYN again; its client repeats it";
    /// Route or neighbour towards the backend isn't resolved.
    NoNextHop: Drop = "no_next_hop", "route or neighbour to the backend isn't resolved";
    /// No SNAT port was free in as many tries as a packet may make.
    SnatExhausted: Drop = "snat_exhausted", "no SNAT port was free";
    /// Another CPU was making a flow of the same tuple, or of one that shares its lock, and took too long.
    Contended: Drop = "contended", "another CPU was at the same flow for too long; the sender tries again";
    /// As many handshakes are under way as `max_half_open` allows, and none could make room.
    HalfOpenFull: Drop = "half_open_full", "new connection while max_half_open handshakes are under way";
    /// As many flows exist as `max_flows` allows.
    FlowTableFull: Drop = "flow_table_full", "handshake completed while max_flows flows exist";
    /// TTL or hop limit 1 or 0; answered with ICMP, but for ICMP errors.
    TtlExpired: Answer = "ttl_expired", "TTL used up";
    /// Larger than the way out takes; answered with ICMP if it may not be fragmented.
    TooBig: Answer = "too_big", "larger than the MTU of the way out";
    /// The kernel has no interface in the slot that the packet should leave through.
    RedirectFailed: Drop = "redirect_failed", "the interface to leave through is gone";
    /// A frame with a VLAN tag: its VLAN's device may have a program of its own.
    Tagged: Pass = "tagged", "VLAN-tagged frame, left to the kernel";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Answer, Outcome, Reason, Stage, Verdict};

    #[test]
    fn a_verdict_says_what_it_was_made_of() {
        assert_eq!(Verdict::PASS.outcome(), Outcome::Pass);
        assert_eq!(Verdict::FORWARD.outcome(), Outcome::Forward);
        for answer in [Answer::TimeExceeded, Answer::TooBig(65_575), Answer::Reset(54), Answer::Refusal(74)] {
            assert_eq!(Verdict::answer(answer).outcome(), Outcome::Answer(answer));
            assert_eq!(Verdict::answer(answer).unanswered(), Verdict::drop(answer.reason()));
        }
        let stages = [
            Stage::Flow,
            Stage::Handshake(7),
            Stage::Established(u32::MAX),
            Stage::Unknown(u32::MAX),
            Stage::Open,
            Stage::Retry,
            Stage::Again,
            Stage::Hold,
            Stage::Icmp,
        ];
        for stage in stages {
            assert_eq!(Verdict::next(stage).outcome(), Outcome::Next(stage));
        }
        for reason in Reason::ALL {
            assert_eq!(Verdict::drop(*reason).outcome(), Outcome::Drop(*reason));
            assert_eq!(Verdict::pass_counted(*reason).outcome(), Outcome::PassCounted(*reason));
            assert_eq!(Verdict::drop(*reason).unanswered(), Verdict::drop(*reason));
        }
    }

    #[test]
    fn counters_and_names_are_one_each() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
