//! What is measured: the rows of the report, and what is wanted of them.

use super::subject::Subject;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// New connections, one after the other.
    OneByOne,
    /// New connections, 64 at a time.
    Parallel,
    /// From SYN to SYN-ACK, one connection at a time.
    ConnectP50,
    /// As before.
    ConnectP99,
    /// From SYN to the answer.
    AnswerP50,
    /// As before.
    AnswerP99,
    /// A request and its answer in a connection that stands.
    RoundTripP50,
    /// As before.
    RoundTripP99,
    /// One stream.
    Bulk,
    /// Four streams.
    BulkOfFour,
    /// One stream, merged by the gateway.
    BulkMerged,
    /// One stream of packets of 64 KiB.
    BulkWhole,
    /// Frames of 64 bytes.
    Frames,
    /// CPU time of the machine, for a connection of [`Metric::Parallel`].
    CpuPerConnection,
    /// CPU time of the machine, for a gigabyte of [`Metric::Bulk`].
    CpuPerGigabyte,
}

impl Metric {
    /// In the order of the report.
    pub const ALL: [Self; 15] = [
        Self::OneByOne,
        Self::Parallel,
        Self::ConnectP50,
        Self::ConnectP99,
        Self::AnswerP50,
        Self::AnswerP99,
        Self::RoundTripP50,
        Self::RoundTripP99,
        Self::Bulk,
        Self::BulkOfFour,
        Self::BulkMerged,
        Self::BulkWhole,
        Self::Frames,
        Self::CpuPerConnection,
        Self::CpuPerGigabyte,
    ];

    /// What it is, with its unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::OneByOne => "connections/s, 1 at a time",
            Self::Parallel => "connections/s, 64 at a time",
            Self::ConnectP50 => "connect p50, µs",
            Self::ConnectP99 => "connect p99, µs",
            Self::AnswerP50 => "connect and answer p50, µs",
            Self::AnswerP99 => "connect and answer p99, µs",
            Self::RoundTripP50 => "round trip p50, µs",
            Self::RoundTripP99 => "round trip p99, µs",
            Self::Bulk => "bulk, 1 stream, Gbit/s",
            Self::BulkOfFour => "bulk, 4 streams, Gbit/s",
            Self::BulkMerged => "bulk, gateway with GRO, Gbit/s",
            Self::BulkWhole => "bulk, 64 KiB packets, Gbit/s",
            Self::Frames => "frames of 64 bytes, 1000/s",
            Self::CpuPerConnection => "CPU per connection, µs",
            Self::CpuPerGigabyte => "CPU per GB, ms",
        }
    }

    /// Whether more is better.
    #[must_use]
    pub fn is_better_when_more(self) -> bool {
        matches!(
            self,
            Self::OneByOne
                | Self::Parallel
                | Self::Bulk
                | Self::BulkOfFour
                | Self::BulkMerged
                | Self::BulkWhole
                | Self::Frames
        )
    }

    /// The ratio of balancer to this peer that is wanted at least.
    #[must_use]
    pub fn wanted(self, peer: Subject) -> Option<f64> {
        match (self, peer) {
            (Self::OneByOne | Self::Parallel | Self::Bulk, Subject::Routing) => Some(0.95),
            (Self::OneByOne | Self::Parallel, Subject::Nft | Subject::Nginx | Subject::Haproxy)
            | (Self::Bulk, Subject::Nginx) => Some(1.4),
            (Self::Frames, Subject::Redirect) => Some(0.8),
            (Self::Frames, Subject::Nft) => Some(4.0),
            _ => None,
        }
    }
}
