//! `balancer.events/1` and `balancer.why/1`: what happened, record by record, as the journal keeps it.
//!
//! What is deliberately not here: which records make up a chain of causes, and how records are stored; see `store`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Timestamp, query};

/// The most records that one answer holds; a journal of 8 MiB has some 40,000.
pub const MAX_EVENTS: u64 = 10_000;
/// What `balancer events` shows without being told how many.
pub const DEFAULT_EVENTS: u64 = 100;

/// The longest evidence, in bytes of JSON text: a screen of it.
const MAX_EVIDENCE_BYTES: usize = 2048;
/// The longest other text: names have 63 bytes, but a refused command may name anything.
const MAX_TEXT_BYTES: usize = 256;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Record {
    /// Counts up over all lives of the daemon; a number that is missing is a record that was lost.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What: `health`, `transition`, `all_down`, `all_down_over`, `stalled`, `probe_lost`, `certificate`, `command`,
    /// `started`, `stopped`.
    pub event: String,
    /// The pool that it is about.
    pub pool: Option<String>,
    /// The backend that it is about.
    pub backend: Option<String>,
    /// The backend, or the health, before.
    pub from: Option<String>,
    /// The backend, or the health, after.
    pub to: Option<String>,
    /// Why: a word, or what a probe saw.
    pub reason: Option<String>,
    /// What was seen or said, in words.
    pub evidence: Option<String>,
}

impl Record {
    /// The same with no text longer than a journal takes, and none that could steer a terminal: JSON escapes the control
    /// characters below U+0020 by itself, and leaves those from U+007F to U+009F as they are.
    #[must_use]
    pub fn bounded(self) -> Self {
        let short = |text: Option<String>| text.map(|text| bounded(&text, MAX_TEXT_BYTES));
        Self {
            event: bounded(&self.event, MAX_TEXT_BYTES),
            pool: short(self.pool),
            backend: short(self.backend),
            from: short(self.from),
            to: short(self.to),
            reason: short(self.reason),
            evidence: self.evidence.map(|text| bounded(&text, MAX_EVIDENCE_BYTES)),
            ..self
        }
    }
}

/// `max_bytes` are those of the JSON text.
fn bounded(text: &str, max_bytes: usize) -> String {
    const CUT: &str = "…";
    let mut harmless = String::with_capacity(text.len().min(max_bytes));
    let mut bytes = 0;
    let mut fits_with_cut = 0;
    for character in text.chars() {
        let from = harmless.len();
        match character {
            '\u{7f}'..='\u{9f}' => harmless.extend(character.escape_default()),
            character => harmless.push(character),
        }
        bytes += harmless[from..].chars().map(json_bytes).sum::<usize>();
        if bytes > max_bytes {
            harmless.truncate(fits_with_cut);
            harmless.push_str(CUT);
            break;
        }
        if bytes + CUT.len() <= max_bytes {
            fits_with_cut = harmless.len();
        }
    }
    harmless
}

fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        // The longest form; some have a shorter one.
        '\0'..='\u{1f}' => 6,
        character => character.len_utf8(),
    }
}

/// The `schema` field of [`Events`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum EventsSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.events/1")]
    V1,
}

/// `GET /v1/events`: the newest records. With `follow=true` the answer is a record a line instead, without an end.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Events {
    /// Name and version of this document.
    pub schema: EventsSchema,
    /// When they were read.
    pub as_of: Timestamp,
    /// Oldest first, as a log reads.
    pub events: Vec<Record>,
}

impl Document for Events {
    const SCHEMA: &'static str = "balancer.events/1";
    const PATH: &'static str = "/v1/events";
}

/// The `schema` field of [`Why`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum WhySchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "balancer.why/1")]
    V1,
}

/// `GET /v1/why?pool=P`: what led to the pool's active backend.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Why {
    /// Name and version of this document.
    pub schema: WhySchema,
    /// When it was filled in.
    pub as_of: Timestamp,
    /// The pool.
    pub pool: String,
    /// Where its new flows go.
    pub active: Option<String>,
    /// Newest first: the change to the active backend, what led to it, the change before.
    pub chain: Vec<Record>,
}

impl Document for Why {
    const SCHEMA: &'static str = "balancer.why/1";
    const PATH: &'static str = "/v1/why";
}

/// Which records are wanted. As text it is the query of the URI, `pool=passwords&limit=10&follow=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// About the pool of this name only.
    pub pool: Option<String>,
    /// So many of the newest, at most [`MAX_EVENTS`].
    pub limit: u64,
    /// And then each new one as it happens.
    pub follow: bool,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self { pool: None, limit: DEFAULT_EVENTS, follow: false }
    }
}

impl fmt::Display for EventsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit.to_string();
        let follow = self.follow.then_some("true");
        query::write(&[("pool", self.pool.as_deref()), ("limit", Some(&limit)), ("follow", follow)], f)
    }
}

impl EventsQuery {
    /// # Errors
    /// A key that is not known or comes twice, or a value that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut values = query::Values::parse(text, &["pool", "limit", "follow"])?;
        let limit = values.take("limit").map_or(Ok(DEFAULT_EVENTS), |limit| match limit.parse() {
            Ok(limit) if limit <= MAX_EVENTS => Ok(limit),
            _ => Err(format!("limit: {limit:?} is no number up to {MAX_EVENTS}")),
        })?;
        let follow = match values.take("follow").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("follow: {other:?} is neither true nor false")),
        };
        Ok(Self { pool: values.take("pool"), limit, follow })
    }
}

/// Whose active backend is to be explained. As text it is the query of the URI, `pool=passwords`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyQuery {
    /// The pool's name.
    pub pool: String,
}

impl fmt::Display for WhyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        query::write(&[("pool", Some(&self.pool))], f)
    }
}

impl WhyQuery {
    /// # Errors
    /// As [`EventsQuery::parse`], and when it names no pool.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pool = query::Values::parse(text, &["pool"])?.take("pool");
        Ok(Self { pool: pool.ok_or("it names no pool: ?pool=NAME")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(evidence: &str) -> Record {
        Record {
            id: u64::MAX,
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            event: "command".to_owned(),
            pool: Some("p".to_owned()),
            backend: None,
            from: None,
            to: None,
            reason: None,
            evidence: Some(evidence.to_owned()),
        }
    }

    #[test]
    fn no_text_makes_a_record_longer_than_its_bound() {
        for unit in ["x", "\"", "\\", "\n", "\u{1}", "é", "€", "😀", "\u{7f}", "\u{9b}", "a\u{0}€"] {
            for repeated in [1, 40, 341, 342, 2046, 2048, 2049, 50_000] {
                let record = record(&unit.repeat(repeated)).bounded();
                let evidence = serde_json::to_string(&record.evidence).unwrap();
                assert!(
                    evidence.len() <= MAX_EVIDENCE_BYTES + 2,
                    "{unit:?} x {repeated}: {}",
                    evidence.len()
                );
                let is_whole = !record.evidence.unwrap().ends_with('…');
                let escaped: usize = unit.chars().flat_map(char::escape_default).count() * repeated;
                assert!(is_whole || escaped > MAX_EVIDENCE_BYTES / 6, "{unit:?} x {repeated} was cut");
            }
        }
        let name = "n".repeat(5000);
        let long = Record { pool: Some(name.clone()), reason: Some(name), ..record("") }.bounded();
        assert!(long.pool.unwrap().len() <= MAX_TEXT_BYTES && long.reason.unwrap().len() <= MAX_TEXT_BYTES);
    }

    #[test]
    fn what_fits_stays_as_it_is_but_for_what_json_would_leave_raw() {
        let kept = record("refused: \"a\\b\"\n\u{1b}[2J é").bounded();
        assert_eq!(kept.evidence.as_deref(), Some("refused: \"a\\b\"\n\u{1b}[2J é"));
        assert!(!serde_json::to_string(&kept).unwrap().contains('\u{1b}'));
        assert_eq!(record("a\u{9b}2J\u{7f}").bounded().evidence.as_deref(), Some("a\\u{9b}2J\\u{7f}"));
        assert_eq!(record(&"x".repeat(2048)).bounded().evidence, Some("x".repeat(2048)));
        assert_eq!(record(&"x".repeat(2049)).bounded().evidence, Some(format!("{}…", "x".repeat(2045))));
    }

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let all = EventsQuery { pool: Some("a&b=c d%é".to_owned()), limit: 0, follow: true };
        for query in [all, EventsQuery::default(), EventsQuery { limit: MAX_EVENTS, ..Default::default() }] {
            assert_eq!(EventsQuery::parse(&query.to_string()), Ok(query));
        }
        assert_eq!(EventsQuery::parse(""), Ok(EventsQuery::default()));
        let why = WhyQuery { pool: "a&b".to_owned() };
        assert_eq!(WhyQuery::parse(&why.to_string()), Ok(why));
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused_with_what_is_wrong() {
        for (query, error) in [
            ("pol=p", "\"pol\" is none of pool, limit, follow"),
            ("limit=10001", "limit: \"10001\" is no number up to 10000"),
            ("limit=all", "limit: \"all\" is no number up to 10000"),
            ("follow=yes", "follow: \"yes\" is neither true nor false"),
            ("follow=true&follow=true", "\"follow\" is there twice"),
        ] {
            assert_eq!(EventsQuery::parse(query).unwrap_err(), error, "{query}");
        }
        assert_eq!(WhyQuery::parse("").unwrap_err(), "it names no pool: ?pool=NAME");
        assert_eq!(WhyQuery::parse("limit=1").unwrap_err(), "\"limit\" is none of pool");
    }
}
