//! Two or three threads in every order of their accesses that a few interruptions make, and with every value that an
//! access may see (`loom`).
//!
//! Some tests take away what the algorithm asks for, and must fail: so it isn't asked for in vain, and the others see it.

use std::sync::atomic::{AtomicUsize, Ordering};

use balancer_common::table::{
    Kind, Lines, Locks, Place, Refused, State, Taker, give_up, lock, lock_since, mark, met, remove,
    remove_as_met,
};
use loom::sync::Arc;
use loom::thread;

use super::bucket::{Bucket, hash, key, mixed, value};

/// Runs this in all orders in which threads are interrupted at most so often where they needn't be.
fn in_every_order(interruptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    let tried = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = tried.clone();
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    println!("{} orders", tried.load(Ordering::Relaxed));
}

/// Runs both at once on one table.
fn at_once<A: 'static, B>(
    table: &Arc<Bucket>,
    one: impl FnOnce(&Bucket) -> A + 'static,
    other: impl FnOnce(&Bucket) -> B,
) -> (A, B) {
    let for_one = table.clone();
    let one = thread::spawn(move || one(&for_one));
    let other = other(table);
    (one.join().unwrap(), other)
}

#[test]
fn a_key_that_two_insert_is_there_once() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(2));
        let insert = |table: &Bucket| {
            lock(table, hash(&key(1)).lock())?;
            table.insert_once(&key(1))
        };
        let (one, other) = at_once(&table, insert, insert);
        assert!(matches!((one, other), (Ok(_), Err(Refused::Taken)) | (Err(Refused::Taken), Ok(_))));
        table.check(&[key(1)], &[]);
    });
}

#[test]
fn who_does_not_wait_for_the_lock_inserts_nothing() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(2));
        let insert = |table: &Bucket| {
            let is_had = lock_since(table, 0, table.sequence(0));
            if is_had { table.insert_once(&key(1)) } else { Err(Refused::Contended) }
        };
        let (one, other) = at_once(&table, insert, insert);
        match (one, other) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => assert_ne!(refused, Refused::Full),
            both => panic!("{both:?}"),
        }
        table.check(&[key(1)], &[]);
    });
}

/// Two look for a key before they have its lock, and not again if nobody has had that since they read its sequence number:
/// before they looked, or after.
fn two_look_for_a_key_before_they_lock(is_sequence_first: bool) {
    in_every_order(3, move || {
        let table = Arc::new(Bucket::of(2));
        let insert = move |table: &Bucket| {
            let before = table.sequence(0);
            if table.find(&key(1)).is_some() {
                return Err(Refused::Taken);
            }
            let sequence = if is_sequence_first { before } else { table.sequence(0) };
            table.insert_unless_since(&key(1), sequence)
        };
        let (one, other) = at_once(&table, insert, insert);
        assert!(one.is_ok() || other.is_ok());
        table.check(&[key(1)], &[]);
    });
}

#[test]
fn a_key_that_two_look_for_before_they_lock_is_there_once() {
    two_look_for_a_key_before_they_lock(true);
}

#[test]
#[should_panic(expected = "is live in [0, 1]")]
fn who_reads_the_sequence_after_he_has_looked_may_insert_a_key_twice() {
    two_look_for_a_key_before_they_lock(false);
}

#[test]
#[should_panic(expected = "is live in [0, 1]")]
fn without_a_lock_a_key_can_be_there_twice() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(2));
        let insert = |table: &Bucket| table.insert_once(&key(1));
        at_once(&table, insert, insert).0.unwrap();
        table.check(&[key(1)], &[]);
    });
}

#[test]
fn two_keys_share_no_line() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(2));
        let (one, other) = at_once(&table, |table| table.insert(&key(1)), |table| table.insert(&key(2)));
        assert_ne!(one.unwrap().line, other.unwrap().line);
        table.check(&[key(1), key(2)], &[]);
    });
}

#[test]
fn of_two_keys_one_gets_the_last_line() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let (one, other) = at_once(&table, |table| table.insert(&key(1)), |table| table.insert(&key(2)));
        match (one, other) {
            (Ok(_), Err(refused)) => {
                assert_eq!(refused, Refused::Full);
                table.check(&[key(1)], &[key(2)]);
            }
            (Err(refused), Ok(_)) => {
                assert_eq!(refused, Refused::Full);
                table.check(&[key(2)], &[key(1)]);
            }
            both => panic!("{both:?}"),
        }
    });
}

/// One reads while another takes a line out and fills it anew.
fn a_reader_and_a_new_life(taker: Taker, is_ordered: bool, interruptions: usize) {
    in_every_order(interruptions, move || {
        let table = Arc::new(Bucket::of(1).ordered(is_ordered));
        let old = table.insert(&key(1)).unwrap();
        let anew = move |table: &Bucket| {
            assert!(remove(table, old, taker));
            table.insert(&key(2)).unwrap();
        };
        at_once(&table, anew, |table| {
            for key in [key(1), key(2)] {
                if let Some(copied) = table.find(&key).and_then(|place| table.copy(place)) {
                    assert_eq!(copied, value(&key), "of another flow than {key:?}");
                }
            }
        });
        table.check(&[key(2)], &[key(1)]);
    });
}

#[test]
fn a_reader_gets_one_flow_while_the_packet_path_makes_another_of_its_line() {
    a_reader_and_a_new_life(Taker::PacketPath, true, 2);
}

#[test]
fn a_reader_gets_one_flow_while_the_controller_takes_its_line_for_another() {
    a_reader_and_a_new_life(Taker::Controller, true, 2);
}

#[test]
fn a_reader_gets_one_life_of_a_flow_that_comes_again_into_its_line() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let old = table.insert(&key(1)).unwrap();
        let again = move |table: &Bucket| {
            assert!(remove(table, old, Taker::PacketPath));
            table.insert_with(&key(1), value(&key(1)) + 1).unwrap();
        };
        at_once(&table, again, |table| {
            let copied = table.find(&key(1)).and_then(|place| table.copy(place));
            assert!(copied.is_none_or(|copied| copied - value(&key(1)) <= 1));
        });
        assert_eq!(table.lives(&key(1)), [0]);
    });
}

/// Keys of two lives of a line in one.
fn a_key_of_two_lives(is_ordered: bool) {
    in_every_order(3, move || {
        let table = Arc::new(Bucket::of(1).ordered(is_ordered));
        let old = table.insert(&key(1)).unwrap();
        let anew = move |table: &Bucket| {
            assert!(remove(table, old, Taker::PacketPath));
            table.insert(&key(2)).unwrap();
        };
        at_once(&table, anew, |table| {
            for key in [mixed(1, 2), mixed(2, 1)] {
                assert_eq!(met(table, 0, &key), None, "nobody's key");
            }
        });
    });
}

#[test]
fn a_key_of_two_lives_is_never_met() {
    a_key_of_two_lives(true);
}

#[test]
#[should_panic(expected = "nobody's key")]
fn where_nothing_is_ordered_a_key_of_two_lives_is_met() {
    a_key_of_two_lives(false);
}

#[test]
#[should_panic(expected = "of ")]
fn where_nothing_is_ordered_a_reader_gets_another_flow() {
    a_reader_and_a_new_life(Taker::PacketPath, false, 2);
}

#[test]
fn a_line_that_a_packet_touches_is_not_taken_as_met() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let met = table.insert(&key(1)).unwrap();
        let (before, is_taken) = at_once(
            &table,
            move |table| table.find(&key(1)).map(|place| table.touch(place, 2)),
            |table| remove_as_met(table, met, Taker::Controller),
        );
        let was_live = before.is_some_and(|state| state.kind() == Kind::Live);
        assert_ne!(is_taken, was_live, "touched when it was {before:?}");
        if is_taken {
            table.check(&[], &[key(1)]);
        } else {
            table.check(&[key(1)], &[]);
            assert_eq!(table.state(0).last_seen(), 2);
        }
    });
}

#[test]
fn a_late_packet_leaves_the_next_life_of_its_line_alone() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let met = table.insert(&key(1)).unwrap();
        let (_, place) = at_once(
            &table,
            move |table| table.touch(met, 2),
            |table| {
                assert!(remove(table, met, Taker::Controller));
                // A time that is stored just now makes a free line seem another one; once.
                table.insert(&key(2)).or_else(|_| table.insert(&key(2))).unwrap()
            },
        );
        assert!(!mark(&*table, met, 1), "a life ago");
        assert!(mark(&*table, place, 1));
        assert_eq!(table.state(0).marks(), 1);
        table.check(&[key(2)], &[key(1)]);
    });
}

#[test]
fn a_line_is_taken_once() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let met = table.insert(&key(1)).unwrap();
        let (by_packet, by_controller) = at_once(
            &table,
            move |table| remove(table, met, Taker::PacketPath),
            |table| remove_as_met(table, met, Taker::Controller),
        );
        assert!(by_packet ^ by_controller, "{by_packet} {by_controller}");
        table.check(&[], &[key(1)]);
    });
}

#[test]
fn a_line_that_is_taken_as_soon_as_it_lives_leaves_no_tag() {
    for taker in [Taker::PacketPath, Taker::Controller] {
        in_every_order(3, move || {
            let table = Arc::new(Bucket::of(1));
            let (made, is_taken) = at_once(
                &table,
                |table| table.insert(&key(1)),
                // Who looks at all lines, as the controller does, doesn't ask for tags.
                |table| met(table, 0, &key(1)).is_some_and(|place| remove(table, place, taker)),
            );
            made.unwrap();
            if is_taken {
                table.check(&[], &[key(1)]);
            } else {
                table.check(&[key(1)], &[]);
            }
        });
    }
}

#[test]
fn a_line_is_taken_once_while_it_is_marked_and_touched() {
    in_every_order(2, || {
        let table = Arc::new(Bucket::of(1));
        let met = table.insert(&key(1)).unwrap();
        let third = table.clone();
        let third = thread::spawn(move || {
            third.touch(met, 2);
            mark(&*third, met, 1)
        });
        let take = move |taker| move |table: &Bucket| remove(table, met, taker);
        let (by_packet, by_controller) = at_once(&table, take(Taker::PacketPath), take(Taker::Controller));
        third.join().unwrap();
        assert!(by_packet ^ by_controller, "{by_packet} {by_controller}");
        // The time may have come after the end; it says nothing there.
        assert_eq!(table.state(0).freed(), State(table.state(0).0 & 0xffff_ffff));
        table.check(&[], &[key(1)]);
    });
}

#[test]
fn a_mark_and_a_time_both_stay() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let met = table.insert(&key(1)).unwrap();
        let third = table.clone();
        let third = thread::spawn(move || mark(&*third, met, 4));
        let (_, marked) = at_once(&table, move |table| table.touch(met, 2), |table| mark(table, met, 1));
        assert!(marked && third.join().unwrap());
        let state = table.state(0);
        assert_eq!((state.kind(), state.marks(), state.last_seen()), (Kind::Live, 5, 2));
    });
}

/// One takes a line out, by these last steps, while another wants a line in the same bucket.
fn taken_and_claimed(taker: Taker, lines: usize) {
    in_every_order(3, move || {
        let table = Arc::new(Bucket::of(lines));
        let old = table.insert(&key(1)).unwrap();
        let (is_taken, made) =
            at_once(&table, move |table| remove(table, old, taker), |table| table.insert(&key(2)));
        assert!(is_taken);
        if made.is_ok() {
            table.check(&[key(2)], &[key(1)]);
        } else {
            assert_eq!((made, lines), (Err(Refused::Full), 1));
            table.check(&[], &[key(1), key(2)]);
        }
    });
}

#[test]
fn a_line_that_is_given_up_and_claimed_has_the_tag_of_who_lives_in_it() {
    for taker in [Taker::PacketPath, Taker::Controller] {
        taken_and_claimed(taker, 1);
        taken_and_claimed(taker, 2);
    }
}

#[test]
fn three_who_want_one_line_leave_it_to_one() {
    in_every_order(2, || {
        let table = Arc::new(Bucket::of(1));
        let old = table.insert(&key(1)).unwrap();
        let third = table.clone();
        let third = thread::spawn(move || third.insert(&key(3)).is_ok());
        let (is_taken, second) = at_once(
            &table,
            move |table| remove(table, old, Taker::Controller),
            |table| table.insert(&key(2)).is_ok(),
        );
        assert!(is_taken);
        match (second, third.join().unwrap()) {
            (true, true) => panic!("two in one line"),
            (true, false) => table.check(&[key(2)], &[key(1), key(3)]),
            (false, true) => table.check(&[key(3)], &[key(1), key(2)]),
            (false, false) => table.check(&[], &[key(1), key(2), key(3)]),
        }
    });
}

#[test]
fn what_a_dead_controller_left_is_given_up_beside_new_keys() {
    for has_tag in [true, false] {
        in_every_order(3, move || {
            let table = Arc::new(Bucket::of(2));
            let place = table.insert(&key(1)).unwrap();
            // It died behind its claim, or one store later.
            let leaving = State(place.state.0 | 0b11);
            assert!(table.exchange(place.line, place.state, leaving));
            if !has_tag {
                table.set_tag(place.index, 0);
            }
            let ((), made) = at_once(
                &table,
                move |table| give_up(table, Place { state: leaving, ..place }),
                |table| (table.find(&key(1)), table.insert(&key(2))),
            );
            assert_eq!(made.0, None, "it left");
            made.1.unwrap();
            table.check(&[key(2)], &[key(1)]);
        });
    }
}

#[test]
#[should_panic(expected = "is found")]
fn a_line_that_is_freed_before_its_tag_would_lose_the_next_one() {
    in_every_order(3, || {
        let table = Arc::new(Bucket::of(1));
        let old = table.insert(&key(1)).unwrap();
        table.set_tag(0, 0);
        let wrong = move |table: &Bucket| {
            table.publish(old.line, old.state.freed());
            table.set_tag(old.index, 0);
        };
        let (_, made) = at_once(&table, wrong, |table| table.insert(&key(2)));
        if made.is_ok() {
            table.check(&[key(2)], &[]);
        }
    });
}
