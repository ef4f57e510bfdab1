//! The contract's example of the status document, with its dots filled in, and examples of the others: what tests of
//! the protocol, the server and the tables start from.

use super::{Events, Flows, Stats, Status, Traced, Why};

/// As in the contract, section 5, with `last_failover`, `degraded` and `pending` behind.
pub(crate) const STATUS: &str = r#"
{ "schema": "balancer.status/1", "as_of": "2026-01-02T03:04:05.678Z",
  "daemon": { "pid": 4242, "version": "0.1.0", "uptime_s": 12, "config_generation": 1 },
  "attachments": [ { "interface": "wan0", "mode": "native", "program_id": 12, "link_id": 3, "error": null } ],
  "pools": [ {
    "name": "passwords", "active": "server1", "state": "serving", "since": "2026-01-02T03:01:01.678Z", "reason": "initial", "failback": "manual",
    "services": [ { "name": "web", "listen": "203.0.113.10:443", "backend_port": 10001, "new_flows": 10, "packets": 100, "bytes": 10000 } ],
    "backends": [ { "name": "server1", "address": "10.0.2.11", "backup": false, "health": "up", "admin": "ready", "fails": 0,
                    "reason": null, "since": "2026-01-02T03:01:01.678Z", "flows": 3, "last_probe": { "service": "web", "ok": true, "reason": null, "at": "2026-01-02T03:04:04.678Z", "took_ms": 2.1,
                    "certificate_expires": "2026-06-01T00:00:00.000Z" } } ],
    "transition": null, "last_failover": null } ],
  "drops": { "fragment": 0 }, "degraded": [], "pending": [] }"#;

/// As the contract describes it, with `failures_lost` and `passed` behind.
pub(crate) const STATS: &str = r#"
{ "schema": "balancer.stats/1", "as_of": "2026-01-02T03:04:05.678Z",
  "services": [ { "pool": "passwords", "service": "web", "new_flows": 10, "packets": 100, "bytes": 10000 } ],
  "backends": [ { "pool": "passwords", "backend": "server1", "new_flows": 10, "flows": 3, "packets": 100, "bytes": 10000,
                  "retried_refused": 1, "retried_unanswered": 0, "rescued": 0, "resets_sent": 2, "failures_lost": 0 } ],
  "drops": { "fragment": 0, "too_big": 7 }, "answers": { "no_flow": 5 }, "passed": { "tagged": 2 } }"#;

/// As the contract describes it: a usual flow, and one whose service and backend are not configured any more.
pub(crate) const FLOWS: &str = r#"
{ "schema": "balancer.flows/1", "as_of": "2026-01-02T03:04:05.678Z",
  "flows": [
    { "client": "192.0.2.7:40000", "pool": "passwords", "service": "web", "backend": "server1",
      "state": "established", "age_s": 184, "idle_s": 1, "packets": 100, "bytes": 10000 },
    { "client": "[2001:db8::7]:40001", "pool": null, "service": "[2001:db8::10]:443", "backend": null,
      "state": "closing", "age_s": 7504, "idle_s": 12, "packets": 7, "bytes": 512 } ] }"#;

/// As the contract describes it: a backend's failure, and what came of it.
pub(crate) const EVENTS: &str = r#"
{ "schema": "balancer.events/1", "as_of": "2026-01-02T03:04:05.678Z",
  "events": [
    { "id": 41, "at": "2026-01-02T03:01:01.677Z", "event": "health", "pool": "passwords", "backend": "server1",
      "from": "up", "to": "down", "reason": "web: refused", "evidence": null },
    { "id": 42, "at": "2026-01-02T03:01:01.678Z", "event": "transition", "pool": "passwords", "backend": null,
      "from": "server1", "to": "server2", "reason": "backend_down", "evidence": "web: refused" } ] }"#;

/// As the contract describes it.
pub(crate) const WHY: &str = r#"
{ "schema": "balancer.why/1", "as_of": "2026-01-02T03:04:05.678Z", "pool": "passwords", "active": "server2",
  "chain": [
    { "id": 42, "at": "2026-01-02T03:01:01.678Z", "event": "transition", "pool": "passwords", "backend": null,
      "from": "server1", "to": "server2", "reason": "backend_down", "evidence": "web: refused" },
    { "id": 41, "at": "2026-01-02T03:01:01.677Z", "event": "health", "pool": "passwords", "backend": "server1",
      "from": "up", "to": "down", "reason": "web: refused", "evidence": null } ] }"#;

/// A client's SYN on its way to a backend.
pub(crate) const TRACED: &str = r#"
{ "at": "2026-01-02T03:04:05.678Z", "interface": "wan0", "protocol": "tcp", "from": "192.0.2.7:40000", "to": "203.0.113.10:443",
  "flags": "syn", "sequence": 1000, "acknowledgement": null, "bytes": 60, "verdict": "forwarded", "reason": null,
  "became": { "from": "10.0.2.1:40000", "to": "10.0.2.11:10001" }, "pool": "passwords", "service": "web", "backend": "server1",
  "missed": 0 }"#;

pub(crate) fn traced() -> Traced {
    serde_json::from_str(TRACED).unwrap()
}

pub(crate) fn events() -> Events {
    serde_json::from_str(EVENTS).unwrap()
}

pub(crate) fn why() -> Why {
    serde_json::from_str(WHY).unwrap()
}

pub(crate) fn status() -> Status {
    serde_json::from_str(STATUS).unwrap()
}

pub(crate) fn stats() -> Stats {
    serde_json::from_str(STATS).unwrap()
}

pub(crate) fn flows() -> Flows {
    serde_json::from_str(FLOWS).unwrap()
}
