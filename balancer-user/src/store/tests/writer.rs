//! The thread: what is put down gets onto the disk, in time or later, and trouble with the disk is nobody else's.

use std::fs;
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::store::{Store, Unsaved};

/// For everything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(place: &Place) -> Store {
    Store::open(place.open()).unwrap().0
}

fn numbered(last_transition: u64) -> State {
    State { last_transition, ..state() }
}

fn on_disk(place: &Place) -> Option<u64> {
    // The thread has the lock.
    let directory = fs::File::open(place.path()).unwrap();
    read_state(directory).unwrap().map(|state| state.last_transition)
}

/// What a reader of the store sees.
fn seen(store: &Store) -> Vec<u64> {
    let (sender, receiver) = mpsc::channel();
    store.read(move |past| {
        sender.send(past.unwrap().newest(None, 10_000).map(|records| ids(&records))).unwrap()
    });
    receiver.recv_timeout(PATIENCE).unwrap().unwrap()
}

/// Neither file can be written, not even by root: directories that aren't empty stand in their places.
fn block(place: &Place) {
    for name in ["state.json.new", "events.jsonl"] {
        fs::create_dir_all(place.path().join(name).join("full")).unwrap();
    }
}

fn unblock(place: &Place) {
    for name in ["state.json.new", "events.jsonl"] {
        fs::remove_dir_all(place.path().join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_state_that_was_reported_saved_is_on_the_disk() {
    let place = Place::new();
    let mut store = start(&place);
    assert_eq!(store.saved(PATIENCE).await, Ok(()), "nothing was to be saved");
    for generation in 1..=50 {
        assert_eq!(store.save(numbered(generation)), generation);
        assert_eq!(store.saved(PATIENCE).await, Ok(()));
        assert_eq!(on_disk(&place), Some(generation));
        assert_eq!(store.written().borrow().saved, generation);
    }
}

#[tokio::test]
async fn of_many_states_the_newest_is_written_in_the_end() {
    let place = Place::new();
    let mut store = start(&place);
    let saved: Vec<_> = (1..=1000)
        .map(|generation| {
            store.save(numbered(generation));
            store.saved(PATIENCE)
        })
        .collect();
    for waiting in saved {
        assert_eq!(waiting.await, Ok(()));
    }
    assert_eq!(on_disk(&place), Some(1000));
}

#[test]
fn everything_is_written_at_the_end() {
    let place = Place::new();
    let mut store = start(&place);
    for id in 1..=500 {
        store.append(record(id, "p", "x"));
    }
    store.save(numbered(9));
    store.finish(PATIENCE);
    assert_eq!(on_disk(&place), Some(9));
    let (store, remembered) = Store::open(place.open()).unwrap();
    assert_eq!(remembered.last_event, 500, "of the journal, which is ahead of the state's 41");
    assert_eq!(seen(&store).len(), 500);
}

#[test]
fn a_store_that_is_only_dropped_gives_its_directory_back() {
    let place = Place::new();
    drop(start(&place));
    let from = Instant::now();
    while LockedDirectory::open(place.path()).is_err() {
        assert!(from.elapsed() < PATIENCE, "still locked");
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_sees_what_was_appended_before() {
    let place = Place::new();
    let store = start(&place);
    for id in 1..=100 {
        store.append(record(id, "p", "x"));
        assert_eq!(seen(&store).last(), Some(&id));
    }
}

#[tokio::test]
async fn a_disk_that_refuses_is_reported_and_recovered_from_by_itself() {
    let place = Place::new();
    block(&place);
    let mut store = start(&place);
    store.save(numbered(5));
    store.append(record(1, "p", "x"));
    let error = store.saved(PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, Unsaved::Failed(problem) if problem.contains("state.json can't be written: ")),
        "{error}"
    );
    let mut written = store.written();
    written.wait_for(|written| written.degraded().len() == 2).await.unwrap();
    let degraded = written.borrow().degraded();
    assert!(degraded[0].1.contains("a reboot would forget who is active"), "{degraded:?}");
    assert!(
        degraded[1].1.contains("events.jsonl can't be written: ") && degraded[1].1.contains("in memory"),
        "{degraded:?}"
    );
    assert_eq!(on_disk(&place), None);

    unblock(&place);
    let recovered = written.wait_for(|written| written.degraded().is_empty());
    let recovered = tokio::time::timeout(PATIENCE, recovered).await.expect("it tries again").unwrap().clone();
    assert_eq!((recovered.saved, recovered.tried), (1, 1));
    assert_eq!((on_disk(&place), seen(&store)), (Some(5), vec![1]));
}

#[tokio::test]
async fn the_next_write_tries_again_at_once() {
    let place = Place::new();
    block(&place);
    let mut store = start(&place);
    store.save(numbered(5));
    store.saved(PATIENCE).await.unwrap_err();
    unblock(&place);
    store.save(numbered(6));
    assert_eq!(store.saved(PATIENCE).await, Ok(()));
    assert_eq!(on_disk(&place), Some(6));
}

#[test]
fn while_the_disk_refuses_the_newest_records_wait_and_memory_is_bounded() {
    let place = Place::new();
    // A file where the journal is a directory would be read as damage; this one is only missing.
    fs::create_dir_all(place.path().join("events.jsonl").join("full")).unwrap();
    let store = start(&place);
    let mut last = 0;
    for _ in 0..10 {
        for _ in 0..500 {
            last += 1;
            store.append(record(last, "p", "x"));
        }
        // Until the thread has taken them.
        let (sender, receiver) = mpsc::channel();
        store.read(move |past| sender.send(past.is_some()).unwrap());
        assert!(receiver.recv_timeout(PATIENCE).unwrap());
    }
    fs::remove_dir_all(place.path().join("events.jsonl")).unwrap();
    store.append(record(last + 1, "p", "x"));
    let kept = seen(&store);
    assert!(kept.len() <= 1025, "{} records", kept.len());
    assert_eq!((kept.len() > 1000, kept.last()), (true, Some(&(last + 1))), "{kept:?}");
}

#[tokio::test]
async fn no_write_waits_for_a_reader_and_no_more_wait_than_may() {
    let place = Place::new();
    let mut store = start(&place);
    let (go_on, wait) = mpsc::channel::<()>();
    let (reads, has_begun) = mpsc::channel();
    store.read(move |_| {
        reads.send(()).unwrap();
        let _ = wait.recv();
    });
    has_begun.recv_timeout(PATIENCE).unwrap();
    store.save(numbered(5));
    assert_eq!(store.saved(PATIENCE).await, Ok(()));
    assert_eq!(on_disk(&place), Some(5));

    let (sender, refusals) = mpsc::channel();
    for _ in 0..500 {
        let sender = sender.clone();
        store.read(move |past| sender.send(past.is_none()).unwrap());
        store.append(record(1, "p", "x"));
    }
    drop(sender);
    assert!(refusals.recv_timeout(PATIENCE).unwrap(), "refused while others wait");
    store.save(numbered(6));
    assert_eq!(store.saved(PATIENCE).await, Ok(()), "all have been asked while the first one reads");
    drop(go_on);
    let answered = refusals.iter().filter(|is_refused| !is_refused).count();
    assert!((1..=128).contains(&answered), "{answered} waited");
}

#[test]
fn a_reader_sees_nothing_that_came_after_it_had_asked() {
    let place = Place::new();
    let store = start(&place);
    let (go_on, wait) = mpsc::channel::<()>();
    store.read(move |_| {
        let _ = wait.recv();
    });
    store.append(record(1, "p", "x"));
    let (sender, receiver) = mpsc::channel();
    store.read(move |past| sender.send(ids(&past.unwrap().newest(None, 10).unwrap())).unwrap());
    store.append(record(2, "p", "x"));
    let directory = fs::File::open(place.path()).unwrap();
    let from = Instant::now();
    while Past::in_directory(directory.as_fd()).newest(None, 1).unwrap().first().map(|last| last.id)
        != Some(2)
    {
        assert!(from.elapsed() < PATIENCE, "never written");
        std::thread::yield_now();
    }
    drop(go_on);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), [1]);
}
