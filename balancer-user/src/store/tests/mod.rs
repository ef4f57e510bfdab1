//! The store over real files, as a daemon uses it.

mod damage;
mod journal;
mod writer;

use std::path::Path;

use super::state::{
    Admin, Backend, BootMoment, Confirmation, Departed, FORMAT, Host, Leaver, Pool, Reached, Service, State,
    Stop, Transition, Why, Wish, digest,
};
use super::{Past, file, read_state};
use crate::control::protocol::{PoolReason, Record};
use crate::directory::LockedDirectory;

/// A state directory of its own; it goes with the value.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn open(&self) -> LockedDirectory {
        LockedDirectory::open(self.path()).unwrap()
    }

    /// The names of all files.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Every field has a value.
fn state() -> State {
    let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let mut state = State {
        format: FORMAT.to_owned(),
        written: at,
        boot_id: "6b2c".to_owned(),
        boottime_ms: 10_000,
        last_transition: 7,
        last_event: 41,
        pools: vec![Pool {
            name: "passwords".to_owned(),
            active: Some("server1".to_owned()),
            active_at: Some([10, 0, 2, 11].into()),
            since: at,
            reason: PoolReason::Operator,
            wish: Wish::Stay,
            backends: vec![Backend {
                name: "server1".to_owned(),
                address: Some([10, 0, 2, 11].into()),
                admin: Admin::Drain,
                drain_ends_in_ms: Some(60_000),
                services: vec![Service {
                    name: "web".to_owned(),
                    down_for_ms: Some(5_000),
                    last_down_ms: 10_000,
                    relapse_until_ms: Some(20_000),
                }],
            }],
            transition: Some(Transition {
                id: 7,
                from: None,
                to: "server1".to_owned(),
                to_at: Some([10, 0, 2, 11].into()),
                reason: PoolReason::Operator,
                evidence: "asked for by the operator".to_owned(),
                started: at,
                forced: false,
                switched: false,
                hooks: vec!["before fence".to_owned(), "before promote".to_owned()],
                reached: Reached::Held { stop: Stop::Failed(1), why: "exit code 3".to_owned() },
            }),
            doubtful: false,
        }],
        departed: Vec::new(),
        leaving: vec![Leaver { is_service: true, slot: 3, pool: "mails".to_owned(), ends_in_ms: 5_000 }],
        confirmation: Some(Confirmation {
            ends_in_ms: 30_000,
            of: "2c26".to_owned(),
            before: "[gateway]\n".to_owned(),
            taken_back: Some(Why::NoStart("no native mode".to_owned())),
        }),
        hosts: vec![Host { name: "db1.example.org".to_owned(), addresses: vec![[10, 0, 2, 11].into()] }],
        checksum: String::new(),
    };
    let gone = Pool { name: "mails".to_owned(), ..state.pools[0].clone() };
    state.departed.push(Departed { ago_ms: 7_000, pool: gone });
    state
}

fn record(id: u64, pool: &str, evidence: &str) -> Record {
    Record {
        id,
        at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        event: "health".to_owned(),
        pool: Some(pool.to_owned()),
        backend: Some("server1".to_owned()),
        from: Some("up".to_owned()),
        to: Some("down".to_owned()),
        reason: None,
        evidence: Some(evidence.to_owned()),
    }
}

fn ids(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.id).collect()
}
