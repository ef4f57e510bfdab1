//! `balancer.flows/1`: live flows, in no order, and which of them somebody wants to see.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Timestamp, query};

/// The `schema` field of [`Flows`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum FlowsSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.flows/1")]
    V1,
}

/// `GET /v1/flows`: live flows, all of them or those that a [`FlowsQuery`] names.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Flows {
    /// Name and version of this document.
    pub schema: FlowsSchema,
    /// When they were listed; their ages are those of that moment.
    pub as_of: Timestamp,
    /// In no order.
    pub flows: Vec<Flow<'static>>,
}

impl Document for Flows {
    const SCHEMA: &'static str = "balancer.flows/1";
    const PATH: &'static str = "/v1/flows";
}

/// One flow. A million of them are written without copying a name, so names may be borrowed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Flow<'a> {
    /// Who connected.
    pub client: SocketAddr,
    /// The pool of its service, or else of its backend; `None` when neither is configured any more.
    pub pool: Option<Cow<'a, str>>,
    /// The service's name; where the client connected to, when it isn't configured any more.
    pub service: Cow<'a, str>,
    /// The backend's name; `None` when it isn't configured any more, or the flow waits for one.
    pub backend: Option<Cow<'a, str>>,
    /// How far it is.
    pub state: FlowState,
    /// Whole seconds since its first packet.
    pub age_s: u64,
    /// Whole seconds since its last packet in either direction.
    pub idle_s: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

impl Flow<'_> {
    /// With names of its own.
    #[must_use]
    pub fn into_owned(self) -> Flow<'static> {
        let owned = |name: Cow<'_, str>| Cow::Owned(name.into_owned());
        Flow {
            pool: self.pool.map(owned),
            service: owned(self.service),
            backend: self.backend.map(owned),
            ..self
        }
    }
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// Its handshake is under way.
    HalfOpen,
    /// Both directions are open.
    Established,
    /// One side has ended it, or both.
    Closing,
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Which flows are wanted: those for which everything that is named is so. As text it is the query of the URI,
/// `pool=passwords&limit=10`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsQuery {
    /// Of the pool of this name.
    pub pool: Option<String>,
    /// Of backends of this name.
    pub backend: Option<String>,
    /// Of this client.
    pub client: Option<IpAddr>,
    /// At most so many, whichever are met first.
    pub limit: Option<u64>,
}

impl fmt::Display for FlowsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client.map(|client| client.to_string());
        let limit = self.limit.map(|limit| limit.to_string());
        let values = [
            ("pool", self.pool.as_deref()),
            ("backend", self.backend.as_deref()),
            ("client", client.as_deref()),
            ("limit", limit.as_deref()),
        ];
        query::write(&values, f)
    }
}

impl FlowsQuery {
    /// # Errors
    /// A key that is not known or comes twice, so that a misspelt one never lists everything, or a value that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut values = query::Values::parse(text, &["pool", "backend", "client", "limit"])?;
        let wrong = |key, value: &str, what| format!("{key}: {value:?} is no {what}");
        let client = values
            .take("client")
            .map(|value| value.parse().map_err(|_| wrong("client", &value, "IP address")));
        let limit =
            values.take("limit").map(|value| value.parse().map_err(|_| wrong("limit", &value, "number")));
        Ok(Self {
            pool: values.take("pool"),
            backend: values.take("backend"),
            client: client.transpose()?,
            limit: limit.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written_whatever_the_names_hold() {
        let all = FlowsQuery {
            pool: Some("a&b=c d%é/?#".to_owned()),
            backend: Some("server-1.x_y~z".to_owned()),
            client: "2001:db8::7".parse().ok(),
            limit: Some(u64::MAX),
        };
        for query in [all.clone(), FlowsQuery { pool: None, ..all }, FlowsQuery::default()] {
            let text = query.to_string();
            assert!(text.is_ascii() && !text.contains([' ', '#', '/', '?']), "{text}");
            assert_eq!(FlowsQuery::parse(&text), Ok(query), "{text}");
        }
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused_with_what_is_wrong() {
        let cases = [
            ("pol=p", "\"pol\" is none of pool, backend, client, limit"),
            ("pool", "\"pool\" has no value"),
            ("pool=a&pool=b", "\"pool\" is there twice"),
            ("pool=%f", "\"pool=%f\" is not text"),
            ("pool=%ff", "\"pool=%ff\" is not text"),
            ("client=server1", "client: \"server1\" is no IP address"),
            ("limit=-1", "limit: \"-1\" is no number"),
        ];
        for (query, error) in cases {
            assert_eq!(FlowsQuery::parse(query).unwrap_err(), error, "{query}");
        }
    }
}
