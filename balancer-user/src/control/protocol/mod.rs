//! The documents of the control API, as types: what the daemon fills in is what the client's tables are made from.
//!
//! Field order is the order in the JSON text. A field without a value is `null`, never left out, so that a script
//! may name every field of the contract. Times are [`Timestamp`]s.
//!
//! What is deliberately not here: commands and documents that this version does not carry out.

mod check;
mod command;
mod doctor;
mod events;
#[cfg(test)]
pub(crate) mod example;
mod flows;
mod query;
mod reload;
mod schema;
mod stats;
mod status;
mod timestamp;
mod trace;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::check::{Checked, CheckedPool, CheckedSchema, Remark};
pub use self::command::{
    Command, DrainCommand, ErrorBody, FailbackCommand, FailoverCommand, MaintCommand, Order, Outcome,
    ReadyCommand, ResumeCommand,
};
pub use self::doctor::{Doctor, DoctorSchema, Finding, Severity};
pub use self::events::{
    DEFAULT_EVENTS, Events, EventsQuery, EventsSchema, MAX_EVENTS, Record, Why, WhyQuery, WhySchema,
};
pub use self::flows::{Flow, FlowState, Flows, FlowsQuery, FlowsSchema};
pub use self::reload::{ReloadCommand, Reloaded};
pub use self::schema::Shown;
pub use self::stats::{BackendStats, ServiceStats, Stats, StatsSchema};
pub use self::status::{
    Admin, Attachment, Backend, Daemon, FailbackPolicy, Health, LastFailover, LastProbe, Pool, PoolReason,
    PoolState, Service, Status, StatusSchema, Transition, XdpMode,
};
pub use self::timestamp::Timestamp;
pub use self::trace::{Ends, TRACE_PATH, TraceLine, TraceNote, TraceQuery, Traced, Verdict};

/// A document with a name and version of its own, which a client checks before it reads the rest.
pub trait Document: Serialize + DeserializeOwned {
    /// What the `schema` field says.
    const SCHEMA: &'static str;
    /// Where it is asked for.
    const PATH: &'static str;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The text without what JSON ignores, so that the order of keys counts.
    fn compact(text: &str) -> String {
        let mut inside_string = false;
        text.chars()
            .filter(|character| {
                inside_string ^= *character == '"';
                inside_string || !character.is_whitespace()
            })
            .collect()
    }

    #[test]
    fn the_status_document_has_the_contracts_keys_in_its_order_and_what_is_degraded_behind() {
        let text = serde_json::to_string(&example::status()).unwrap();
        assert_eq!(text, compact(example::STATUS));
    }

    #[test]
    fn the_stats_document_has_the_contracts_keys_in_its_order_and_what_passed_behind() {
        let text = serde_json::to_string(&example::stats()).unwrap();
        assert_eq!(text, compact(example::STATS));
    }

    #[test]
    fn the_flows_document_has_the_contracts_keys_in_its_order_and_nothing_else() {
        let text = serde_json::to_string(&example::flows()).unwrap();
        assert_eq!(text, compact(example::FLOWS));
    }

    #[test]
    fn events_and_why_have_the_contracts_keys_in_its_order_and_nothing_else() {
        assert_eq!(serde_json::to_string(&example::events()).unwrap(), compact(example::EVENTS));
        assert_eq!(serde_json::to_string(&example::why()).unwrap(), compact(example::WHY));
    }

    #[test]
    fn a_traced_packet_has_its_keys_in_this_order_and_nothing_else() {
        assert_eq!(serde_json::to_string(&example::traced()).unwrap(), compact(example::TRACED));
    }

    #[test]
    fn a_line_of_a_trace_is_a_packet_or_what_only_a_note_has() {
        let packet = TraceLine::Packet(Box::new(example::traced()));
        assert_eq!(serde_json::to_string(&packet).unwrap(), compact(example::TRACED));
        let note = r#"{"at":"2026-01-02T03:04:05.678Z","missed":7,"ended":null}"#;
        let read = serde_json::from_str(note).unwrap();
        assert!(matches!(read, TraceLine::Note(TraceNote { missed: 7, ended: None, .. })), "{read:?}");
        assert_eq!(serde_json::to_string(&read).unwrap(), note);
        assert_eq!(serde_json::from_str::<TraceLine>(example::TRACED).unwrap(), packet);
        let newer = compact(example::TRACED).replace("forwarded", "beamed");
        assert!(serde_json::from_str::<TraceLine>(&newer).is_err(), "a packet is never taken for a note");
    }

    #[test]
    fn a_field_without_a_value_is_null_and_never_left_out() {
        let mut status = example::status();
        status.daemon = None;
        status.pools[0].active = None;
        status.pools[0].backends[0].last_probe = None;
        status.attachments[0].mode = None;
        let json = serde_json::to_value(&status).unwrap();
        for pointer in ["/daemon", "/pools/0/active", "/pools/0/backends/0/last_probe", "/attachments/0/mode"]
        {
            assert_eq!(json.pointer(pointer), Some(&Value::Null), "{pointer}");
        }
    }

    #[test]
    fn a_transition_has_the_contracts_keys() {
        let transition = Transition {
            id: 7,
            from: Some("server1".to_owned()),
            to: "server2".to_owned(),
            reason: PoolReason::BackendDown,
            step: Some(0),
            hook: Some("promote".to_owned()),
            started: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        };
        assert_eq!(
            serde_json::to_value(&transition).unwrap(),
            json!({ "id": 7, "from": "server1", "to": "server2", "reason": "backend_down", "step": 0,
                    "hook": "promote", "started": "2026-01-02T03:04:05.678Z" })
        );
    }

    #[test]
    fn words_are_the_contracts_in_json_and_for_people() {
        let words = [
            (json!(PoolState::AllDown), PoolState::AllDown.to_string(), "all_down"),
            (json!(PoolReason::BackendDown), PoolReason::BackendDown.to_string(), "backend_down"),
            (json!(Health::Probation), Health::Probation.to_string(), "probation"),
            (json!(Admin::Maint), Admin::Maint.to_string(), "maint"),
            (json!(FailbackPolicy::Auto), FailbackPolicy::Auto.to_string(), "auto"),
            (json!(XdpMode::Generic), XdpMode::Generic.to_string(), "generic"),
            (json!(FlowState::HalfOpen), FlowState::HalfOpen.to_string(), "half_open"),
            (json!(FlowState::Established), FlowState::Established.to_string(), "established"),
            (json!(FlowState::Closing), FlowState::Closing.to_string(), "closing"),
        ];
        for (json, display, word) in words {
            assert_eq!(json, word);
            assert_eq!(display, word);
        }
    }

    #[test]
    fn a_misspelt_key_of_a_command_is_refused_and_named() {
        let error = serde_json::from_str::<FailoverCommand>(r#"{"pool": "p", "forse": true}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `forse`"), "{error}");
        let error = serde_json::from_str::<FailbackCommand>(r#"{"pool": "p", "to": "b"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `to`"), "{error}");
    }

    #[test]
    fn only_the_pool_must_be_named() {
        let command: FailoverCommand = serde_json::from_str(r#"{"pool": "p"}"#).unwrap();
        let expected =
            FailoverCommand { pool: "p".to_owned(), to: None, force: false, reset: false, no_wait: false };
        assert_eq!(command, expected);
    }

    #[test]
    fn a_command_is_told_as_it_is_typed() {
        let command = |path: &str, body: Value| -> String {
            let text = body.to_string();
            let command = match path {
                "failover" => serde_json::from_str::<FailoverCommand>(&text).map(Order::command),
                "failback" => serde_json::from_str::<FailbackCommand>(&text).map(Order::command),
                "drain" => serde_json::from_str::<DrainCommand>(&text).map(Order::command),
                "maint" => serde_json::from_str::<MaintCommand>(&text).map(Order::command),
                "ready" => serde_json::from_str::<ReadyCommand>(&text).map(Order::command),
                _ => serde_json::from_str::<ResumeCommand>(&text).map(Order::command),
            };
            command.unwrap().typed()
        };
        for (path, body, typed) in [
            ("failover", json!({ "pool": "p" }), "failover p"),
            (
                "failover",
                json!({ "pool": "p", "to": "b", "reset": true, "force": true }),
                "failover p --to b --reset --force",
            ),
            ("failback", json!({ "pool": "p", "no_wait": true }), "failback p"),
            (
                "drain",
                json!({ "pool": "p", "backend": "b", "deadline_ms": 1500 }),
                "drain p b --deadline 1500ms",
            ),
            ("maint", json!({ "pool": "p", "backend": "b", "force": true }), "maint p b --force"),
            ("ready", json!({ "pool": "p", "backend": "b" }), "ready p b"),
            ("resume", json!({ "pool": "p", "skip": true }), "resume p --skip"),
            ("resume", json!({ "pool": "p", "skip": false }), "resume p --retry"),
        ] {
            assert_eq!(command(path, body), typed);
        }
    }
}
