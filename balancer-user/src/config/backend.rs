//! `[[pool.backend]]`: a member of a pool.

use std::net::IpAddr;
use std::time::Duration;

use super::addresses::Place;
use super::hosts::NOWHERE;
use super::limits::{MAX_FAILS, SHORTEST_INTERVAL};
use super::notes::Says;
use super::problem::Fault;
use super::source::Located;
use super::table::Table;
use super::{Backend, addresses, names};
use crate::duration;

/// nginx's defaults.
const MAX_FAILS_DEFAULT: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// A backend as written, with the places of what must be unique.
#[derive(Debug)]
pub(super) struct BackendKeys {
    pub(super) name: Option<Located<String>>,
    pub(super) place: Option<Located<Place>>,
    pub(super) disabled: bool,
    backup: bool,
    max_fails: u32,
    fail_timeout: Duration,
    fail_timeout_max: Duration,
    pub(super) cold: Option<Located<bool>>,
}

impl BackendKeys {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let name = table.required_text("name", "name = \"server1\"", names::name);
        let place = table.required_text("address", "address = \"10.0.2.11\"", addresses::backend);
        if let Some(Located { value: Place::Ip(address), span }) = &place {
            table.claim(*span, "address", Says::BackendAddress(*address));
        }
        // In the order in which an error lists the keys.
        let max_fails = table.number("max_fails", 0..=MAX_FAILS);
        let (fail_timeout, fail_timeout_max) = fail_timeout(&mut table);
        let keys = Self {
            name,
            place,
            max_fails: max_fails.map_or(MAX_FAILS_DEFAULT, |found| found.value),
            fail_timeout,
            fail_timeout_max,
            backup: flag(&mut table, "backup"),
            disabled: flag(&mut table, "disabled"),
            cold: table.flag("cold").filter(|cold| cold.value),
        };
        table.finish();
        keys
    }

    /// Its address, if that is what is written.
    pub(super) fn address(&self) -> Option<Located<IpAddr>> {
        match self.place.as_ref()? {
            Located { value: Place::Ip(address), span } => Some(Located { value: *address, span: *span }),
            Located { value: Place::Host(_), .. } => None,
        }
    }

    /// The backend; none where an error was noted.
    pub(super) fn into_backend(self) -> Option<Backend> {
        let (address, host) = match self.place?.value {
            Place::Ip(address) => (address, None),
            Place::Host(host) => (NOWHERE, Some(host)),
        };
        Some(Backend {
            name: self.name?.value,
            address,
            host,
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
            fail_timeout_max: self.fail_timeout_max,
            backup: self.backup,
            cold: self.cold.is_some(),
            disabled: self.disabled,
        })
    }
}

fn flag(table: &mut Table<'_>, key: &'static str) -> bool {
    table.flag(key).is_some_and(|flag| flag.value)
}

/// `fail_timeout`, and `fail_timeout_max`, which is at least that. As short as the shortest interval: it is also how
/// soon a failed backend is probed again.
fn fail_timeout(table: &mut Table<'_>) -> (Duration, Duration) {
    let written = table.duration("fail_timeout", SHORTEST_INTERVAL);
    let wrong = written.is_none() && table.has("fail_timeout");
    let fail_timeout = written.map_or(FAIL_TIMEOUT, |found| found.value);
    let Some(max) = table.duration("fail_timeout_max", SHORTEST_INTERVAL).filter(|_| !wrong) else {
        return (fail_timeout, fail_timeout);
    };
    if max.value < fail_timeout {
        let shown = duration::Shown(fail_timeout);
        let message = format!("is less than `fail_timeout`, which is \"{shown}\"");
        let instead = format!("write at least \"{shown}\"");
        table.error(max.span, "fail_timeout_max", Fault::new(message, instead));
    }
    (fail_timeout, max.value)
}
