//! Packets as they were decided about, one by one, and which of them somebody wants to see.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Timestamp, query};

/// `GET /v1/trace`: packets from now on, one a line, without an end.
pub const TRACE_PATH: &str = "/v1/trace";

/// A line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TraceLine {
    /// A packet.
    Packet(Box<Traced>),
    /// What is to be said without one.
    Note(TraceNote),
}

/// What a trace says where no packet is shown that would say it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct TraceNote {
    /// When.
    pub at: Timestamp,
    /// As in [`Traced`].
    pub missed: u64,
    /// Why the trace ends with this; `None`: it goes on.
    // Never left out: no packet has it, and so none is taken for this.
    #[serde(deserialize_with = "Option::deserialize")]
    pub ended: Option<String>,
}

/// A packet and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Traced {
    /// When it came.
    pub at: Timestamp,
    /// The interface that it came in through.
    pub interface: Option<String>,
    /// The protocol in its IP header: `tcp`, `icmp`, `icmpv6` or a number; `None`: it isn't IP.
    pub protocol: Option<String>,
    /// Where it came from: an address, of TCP with its port.
    pub from: Option<String>,
    /// Where it was for, as `from`.
    pub to: Option<String>,
    /// TCP's flags, as in `syn,ack`; of ICMP type and code, as in `type 3 code 4`; `fragment`.
    pub flags: Option<String>,
    /// TCP's sequence number.
    pub sequence: Option<u32>,
    /// TCP's acknowledgement number.
    pub acknowledgement: Option<u32>,
    /// Bytes of the IP packet.
    pub bytes: u32,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, as in `drops` and `answers` of the status document; `None`: there is nothing to say.
    pub reason: Option<String>,
    /// Where it seemed to come from, and where it went, when it had been rewritten.
    pub became: Option<Ends>,
    /// The pool that it belongs to, if that is seen from its addresses.
    pub pool: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The backend at one of its ends.
    pub backend: Option<String>,
    /// Packets that were wanted and were left out, as there were too many, since this was last told; a second late at most. Where
    /// no packet is shown for a second, a [`TraceNote`] tells.
    pub missed: u64,
}

/// Both ends of a packet.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Ends {
    /// As in [`Traced`].
    pub from: String,
    /// As in [`Traced`].
    pub to: String,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Rewritten, and out again.
    Forwarded,
    /// The gateway's own stack got it, as if balancer weren't there.
    Passed,
    /// Dropped.
    Dropped,
    /// Its sender was told why.
    Answered,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Which packets are wanted: those for which everything that is named is so. As text it is the query of the URI,
/// `client=192.0.2.7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceQuery {
    /// From or to this client, those included that are not for a service.
    pub client: Option<IpAddr>,
    /// Of this service: its name, or, where several pools have one of this name, `POOL/SERVICE`.
    pub service: Option<String>,
}

impl fmt::Display for TraceQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client.map(|client| client.to_string());
        query::write(&[("client", client.as_deref()), ("service", self.service.as_deref())], f)
    }
}

impl TraceQuery {
    /// # Errors
    /// As [`FlowsQuery::parse`](super::FlowsQuery::parse).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut values = query::Values::parse(text, &["client", "service"])?;
        let client = values
            .take("client")
            .map(|value| value.parse().map_err(|_| format!("client: {value:?} is no IP address")));
        Ok(Self { client: client.transpose()?, service: values.take("service") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let all = TraceQuery { client: "2001:db8::7".parse().ok(), service: Some("a&b/c d%".to_owned()) };
        for query in [all, TraceQuery::default()] {
            assert_eq!(TraceQuery::parse(&query.to_string()), Ok(query));
        }
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused_with_what_is_wrong() {
        for (query, error) in [
            ("pool=p", "\"pool\" is none of client, service"),
            ("client=server1", "client: \"server1\" is no IP address"),
        ] {
            assert_eq!(TraceQuery::parse(query).unwrap_err(), error, "{query}");
        }
    }
}
