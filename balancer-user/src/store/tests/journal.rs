//! `events.jsonl`: bounded, appended to whatever was left of it, and read from its end.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::store::journal::Journal;

const NAME: &str = "events.jsonl";

fn append(place: &Place, journal: &mut Journal, records: &[Record]) {
    let (appended, result) = journal.append(place.open().as_fd(), records);
    result.unwrap();
    assert_eq!(appended, records.len());
}

/// The ids of the newest, oldest first.
fn newest(place: &Place, pool: Option<&str>, limit: u64) -> Vec<u64> {
    ids(&Past::in_directory(place.open().as_fd()).newest(pool, limit).unwrap())
}

fn last_id(place: &Place) -> u64 {
    Past::in_directory(place.open().as_fd()).last_id().unwrap()
}

#[test]
fn records_are_read_as_they_were_written_the_newest_ones_oldest_first() {
    let place = Place::new();
    assert_eq!(newest(&place, None, 10), [0; 0]);
    assert!(!Past::in_directory(place.open().as_fd()).exists().unwrap());
    let mut journal = Journal::new(1 << 20);
    let records: Vec<_> =
        (1..=200).map(|id| record(id, if id % 2 == 0 { "even" } else { "odd" }, "x")).collect();
    append(&place, &mut journal, &records);
    assert_eq!(newest(&place, None, 3), [198, 199, 200]);
    assert_eq!(newest(&place, Some("odd"), 2), [197, 199]);
    assert_eq!(newest(&place, Some("none"), 2), [0; 0]);
    assert_eq!(newest(&place, None, 0), [0; 0]);
    assert_eq!(Past::in_directory(place.open().as_fd()).newest(None, 1000).unwrap(), records);
    assert_eq!(last_id(&place), 200);
    let mode = fs::metadata(place.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

/// A reader may meet it while it becomes the older one.
#[test]
fn a_file_under_both_names_is_read_once() {
    let place = Place::new();
    append(&place, &mut Journal::new(1 << 20), &[record(1, "p", "x"), record(2, "p", "x")]);
    fs::hard_link(place.path().join(NAME), place.path().join("events.jsonl.1")).unwrap();
    assert_eq!(newest(&place, None, 10), [1, 2]);
}

#[test]
fn a_line_has_the_contracts_keys_in_its_order_and_null_where_there_is_nothing() {
    let place = Place::new();
    let empty = Record { backend: None, from: None, to: None, evidence: None, ..record(1, "p", "") };
    append(&place, &mut Journal::new(1 << 20), &[empty]);
    let text = fs::read_to_string(place.path().join(NAME)).unwrap();
    let expected = "{\"id\":1,\"at\":\"2026-01-02T03:04:05.678Z\",\"event\":\"health\",\"pool\":\"p\",\"backend\":null,\
                    \"from\":null,\"to\":null,\"reason\":null,\"evidence\":null}\n";
    assert_eq!(text, expected);
}

#[test]
fn two_files_are_kept_and_both_are_read() {
    let place = Place::new();
    let mut journal = Journal::new(4096);
    for id in 1..=1000 {
        append(&place, &mut journal, &[record(id, "p", "x")]);
        let length = fs::metadata(place.path().join(NAME)).unwrap().len();
        assert!(length <= 4096, "{length} bytes");
    }
    assert_eq!(place.names(), [NAME, "events.jsonl.1"]);
    let read = newest(&place, None, 10_000);
    assert!(read.len() > 4096 / 150, "more than one file: {}", read.len());
    assert!(read.windows(2).all(|two| two[0] + 1 == two[1]) && read.last() == Some(&1000), "{read:?}");
    // Also when the last file is still empty.
    fs::write(place.path().join(NAME), "").unwrap();
    assert!(last_id(&place) > 900);
}

#[test]
fn a_torn_line_is_skipped_and_the_next_record_has_a_line_of_its_own() {
    let place = Place::new();
    append(&place, &mut Journal::new(1 << 20), &[record(1, "p", "x"), record(2, "p", "x")]);
    let mut file = OpenOptions::new().append(true).open(place.path().join(NAME)).unwrap();
    file.write_all(b"{\"id\":3,\"at\":\"2026-01-0").unwrap();
    assert_eq!((newest(&place, None, 10), last_id(&place)), (vec![1, 2], 2));
    append(&place, &mut Journal::new(1 << 20), &[record(3, "p", "x")]);
    assert_eq!(newest(&place, None, 10), [1, 2, 3]);
}

#[test]
fn damage_in_the_middle_hides_nothing_else() {
    let place = Place::new();
    append(&place, &mut Journal::new(1 << 20), &[record(1, "p", "x")]);
    let mut file = OpenOptions::new().append(true).open(place.path().join(NAME)).unwrap();
    file.write_all(b"\n\n\xff\xfe\n{}\n[[[[\n\0\0\0\0\n").unwrap();
    file.write_all(&vec![b'x'; 200_000]).unwrap();
    append(&place, &mut Journal::new(1 << 20), &[record(2, "p", "x")]);
    assert_eq!(newest(&place, None, 10), [1, 2]);
}

#[test]
fn a_journal_that_was_removed_is_made_anew() {
    let place = Place::new();
    let mut journal = Journal::new(1 << 20);
    append(&place, &mut journal, &[record(1, "p", "x")]);
    fs::remove_file(place.path().join(NAME)).unwrap();
    append(&place, &mut journal, &[record(2, "p", "x")]);
    assert_eq!(newest(&place, None, 10), [2]);
}

#[test]
fn a_link_or_a_pipe_in_its_place_is_neither_followed_nor_waited_for() {
    for kind in ["symlink", "fifo"] {
        let place = Place::new();
        let precious = place.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let path = place.path().join(NAME);
        if kind == "symlink" {
            symlink(&precious, &path).unwrap();
        } else {
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        }
        let (appended, result) = Journal::new(1 << 20).append(place.open().as_fd(), &[record(1, "p", "x")]);
        assert!(appended == 0 && result.is_err(), "{kind}");
        assert!(Past::in_directory(place.open().as_fd()).newest(None, 1).is_err(), "{kind}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{kind}");
    }
}
