//! What is on the dashboard, as JSON: the documents of the control API, and what happened, without clients' addresses.
//!
//! Deliberately not here: when a picture is made (`board`), and how it is drawn (`page`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use balancer_common::verdict::Reason;
use serde::Serialize;
use serde_json::json;

use crate::control::protocol::{Record, Stats, Status};

/// What the page checks before it reads the rest.
const SCHEMA: &str = "balancer.dashboard/1";

/// Events whose texts name addresses that the configuration has, or had, and nobody else's.
const ABOUT_THE_CONFIGURATION: [&str; 2] = ["reload", "address"];

#[derive(Serialize)]
struct Picture<'a> {
    schema: &'static str,
    /// There is a token with which the dashboard acts: a reload may give it one, or take it away.
    may_act: bool,
    status: &'a Status,
    stats: &'a Stats,
}

/// The state of everything.
pub(super) fn state(status: &Status, stats: &Stats, may_act: bool) -> String {
    // Numbers and texts: nothing that JSON can't say.
    serde_json::to_string(&Picture { schema: SCHEMA, may_act, status, stats }).unwrap_or_default()
}

/// What happened, oldest first.
pub(super) fn news<'r>(records: impl Iterator<Item = &'r Record>, status: &Status) -> String {
    let known = addresses(status);
    let shown: Vec<Record> = records
        .map(|record| {
            if ABOUT_THE_CONFIGURATION.contains(&record.event.as_str()) {
                return record.clone();
            }
            let of = |text: &Option<String>| text.as_ref().map(|text| redacted(text, &known).into_owned());
            Record { reason: of(&record.reason), evidence: of(&record.evidence), ..record.clone() }
        })
        .collect();
    serde_json::to_string(&shown).unwrap_or_default()
}

/// What doesn't change while the daemon runs.
pub(super) fn about() -> String {
    let meanings = Reason::ALL.iter().map(|reason| (reason.name().to_owned(), reason.meaning().into()));
    let meanings: serde_json::Map<_, _> = meanings.collect();
    json!({ "schema": SCHEMA, "meanings": meanings }).to_string()
}

/// JSON that can stand in a page: nothing in it ends the element that holds it.
pub(super) fn inert(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// Those that the configuration names.
fn addresses(status: &Status) -> BTreeSet<IpAddr> {
    let services = status.pools.iter().flat_map(|pool| &pool.services).map(|service| service.listen.ip());
    let backends = status.pools.iter().flat_map(|pool| &pool.backends);
    services.chain(backends.filter_map(|backend| backend.address.parse().ok())).collect()
}

/// The text without addresses that are not known: those are clients' and operators'.
fn redacted<'t>(text: &'t str, known: &BTreeSet<IpAddr>) -> Cow<'t, str> {
    let is_of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
    let mut shown = String::new();
    let mut kept = 0;
    let mut from = 0;
    while let Some(start) = text[from..].find(is_of_address).map(|at| from + at) {
        let end = text[start..].find(|c| !is_of_address(c)).map_or(text.len(), |length| start + length);
        let word = text[start..end].trim_end_matches([':', '.']);
        if address(word).is_some_and(|address| !known.contains(&address)) {
            shown.push_str(&text[kept..start]);
            shown.push_str("(an address)");
            kept = start + word.len();
        }
        from = end;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[kept..]);
    Cow::Owned(shown)
}

fn address(word: &str) -> Option<IpAddr> {
    let with_port = || word.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = || word.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    with_port().or_else(bare).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::example;

    #[test]
    fn addresses_that_the_configuration_does_not_name_are_left_out() {
        let known = addresses(&example::status());
        for (text, shown) in [
            (
                "`failover p` by http from 192.0.2.7:40000: done",
                "`failover p` by http from (an address): done",
            ),
            ("by http from [2001:db8::7]:40000: done", "by http from (an address): done"),
            ("seen 2001:db8::7.", "seen (an address)."),
            ("192.0.2.7", "(an address)"),
            ("a 192.0.2.7, b ::ffff:192.0.2.8", "a (an address), b (an address)"),
            ("10.0.2.11:10001 refused, 203.0.113.10:443", "10.0.2.11:10001 refused, 203.0.113.10:443"),
            (
                "at 03:01:01.678: deadbeef face:b00k, version 0.1.0",
                "at 03:01:01.678: deadbeef face:b00k, version 0.1.0",
            ),
            ("é: web: refused …", "é: web: refused …"),
            ("", ""),
        ] {
            assert_eq!(redacted(text, &known), shown);
        }
    }

    #[test]
    fn what_the_configuration_had_is_told_and_who_gave_a_command_is_not() {
        let said = |event: &str| {
            let evidence = Some("192.0.2.7 -> 10.0.2.11".to_owned());
            let record = Record { event: event.to_owned(), evidence, ..example::events().events[0].clone() };
            news(std::iter::once(&record), &example::status())
        };
        for event in ABOUT_THE_CONFIGURATION {
            assert!(said(event).contains("192.0.2.7 -> 10.0.2.11"), "{event}");
        }
        assert!(said("command").contains("(an address) -> 10.0.2.11"));
    }

    #[test]
    fn no_text_can_end_the_element_that_it_stands_in() {
        let mut events = example::events().events;
        events[0].evidence = Some("</script><script>alert(1)</script><!--".to_owned());
        let text = inert(&news(events.iter(), &example::status()));
        assert!(!text.contains('<'), "{text}");
        let read: Vec<Record> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, events);
    }

    #[test]
    fn every_reason_has_its_meaning() {
        let about: serde_json::Value = serde_json::from_str(&about()).unwrap();
        for reason in Reason::ALL {
            assert_eq!(about["meanings"][reason.name()], reason.meaning());
        }
    }
}
