//! Every state with every input, boundaries one tick either side, and the window against a recount.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

fn monitor(max_fails: u32, rise: u32) -> Monitor {
    damped(max_fails, rise, FAIL_TIMEOUT)
}

fn damped(max_fails: u32, rise: u32, fail_timeout_max: Duration) -> Monitor {
    Monitor {
        max_fails,
        fail_timeout: FAIL_TIMEOUT,
        fail_timeout_max,
        rise,
        state: State::Unknown,
        failures: VecDeque::new(),
        last_failure: None,
        last_down: FAIL_TIMEOUT,
        relapse_until: None,
    }
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + SECOND * u32::try_from(seconds).unwrap()
}

fn bad() -> Input {
    Input::Bad("refused".to_owned())
}

#[test]
fn every_state_answers_every_input() {
    let now = at(100);
    let down = State::Down { until: now + FAIL_TIMEOUT };
    let early = State::Down { until: now + TICK };
    let over = State::Down { until: now };
    let probation = |good| State::Probation { good };
    let starting = |good| State::Starting { good };
    // max_fails = 2 with `earlier` failures a second ago, rise = 2
    let table = [
        (State::Unknown, 0, Input::Good, State::Up),
        (State::Unknown, 1, Input::Good, State::Up),
        (State::Unknown, 0, bad(), State::Unknown),
        (State::Unknown, 1, bad(), down),
        (State::Unknown, 0, Input::Elapsed, State::Unknown),
        (State::Up, 0, Input::Good, State::Up),
        (State::Up, 0, bad(), State::Up),
        (State::Up, 1, bad(), down),
        (State::Up, 1, Input::Elapsed, State::Up),
        (early, 0, Input::Good, early),
        (early, 0, bad(), early),
        (early, 0, Input::Elapsed, early),
        (over, 0, Input::Good, over),
        (over, 0, bad(), over),
        (over, 0, Input::Elapsed, probation(0)),
        (probation(0), 0, Input::Good, probation(1)),
        (probation(1), 0, Input::Good, State::Up),
        (probation(0), 0, bad(), down),
        (probation(1), 0, bad(), down),
        (probation(1), 0, Input::Elapsed, probation(1)),
        (starting(0), 0, Input::Good, starting(1)),
        (starting(1), 0, Input::Good, State::Up),
        (starting(1), 0, bad(), starting(0)),
        (starting(1), 0, Input::Elapsed, starting(1)),
    ];
    for (state, earlier, input, expected) in table {
        let mut monitor = monitor(2, 2);
        monitor.state = state;
        monitor.failures.extend(vec![at(99); earlier]);
        monitor.handle(input.clone(), now);
        assert_eq!(monitor.state, expected, "{state:?}, {earlier} earlier failures, {input:?}");
    }
}

#[test]
fn a_failure_exactly_fail_timeout_old_no_longer_counts() {
    for (second_failure, expected) in
        [(FAIL_TIMEOUT - TICK, Health::Down), (FAIL_TIMEOUT, Health::Up), (FAIL_TIMEOUT + TICK, Health::Up)]
    {
        let mut monitor = monitor(2, 1);
        monitor.handle(Input::Good, at(0));
        monitor.handle(bad(), at(1));
        monitor.handle(bad(), at(1) + second_failure);
        assert_eq!(monitor.health(), expected, "second failure {second_failure:?} after the first");
    }
}

#[test]
fn a_success_takes_no_failure_out_of_the_window() {
    let mut monitor = monitor(3, 1);
    for second in 0..2 {
        monitor.handle(Input::Good, at(second));
        monitor.handle(bad(), at(second));
        monitor.handle(Input::Good, at(second));
    }
    assert_eq!(monitor.fails(at(2)), 2);
    monitor.handle(bad(), at(2));
    assert_eq!(monitor.health(), Health::Down);
}

/// The run of nginx in `nginx-semantics.md` in which we differ: failures at 0, 3 and 5 s, a window of 3 s.
#[test]
fn where_nginx_adds_up_across_windows_we_stay_up() {
    let mut monitor = monitor(3, 1);
    monitor.fail_timeout = SECOND * 3;
    for (second, input) in
        [(0, bad()), (1, Input::Good), (2, Input::Good), (3, bad()), (4, Input::Good), (5, bad())]
    {
        monitor.handle(input, at(second));
    }
    assert_eq!((monitor.health(), monitor.fails(at(5))), (Health::Up, 2));
}

#[test]
fn down_ends_at_fail_timeout_and_not_a_tick_earlier() {
    let mut monitor = monitor(1, 1);
    monitor.handle(bad(), at(5));
    monitor.handle(Input::Elapsed, at(5) + (FAIL_TIMEOUT - TICK));
    assert_eq!(monitor.health(), Health::Down);
    assert_eq!(monitor.fails(at(5) + (FAIL_TIMEOUT - TICK)), 1);
    monitor.handle(Input::Elapsed, at(5) + FAIL_TIMEOUT);
    assert_eq!(monitor.health(), Health::Probation);
    assert_eq!(monitor.fails(at(5) + FAIL_TIMEOUT), 0, "the window is empty when probation begins");
}

#[test]
fn one_failure_in_probation_is_enough_whatever_max_fails() {
    let mut monitor = monitor(3, 2);
    (0..3).for_each(|second| monitor.handle(bad(), at(second)));
    monitor.handle(Input::Elapsed, at(12));
    monitor.handle(Input::Good, at(12));
    monitor.handle(bad(), at(13));
    assert_eq!(monitor.down_until(), Some(at(23)));
}

/// [37]
#[test]
fn each_relapse_within_twice_the_last_time_down_doubles_it_up_to_the_maximum() {
    let mut monitor = damped(1, 1, FAIL_TIMEOUT * 3);
    let mut now = at(0);
    for (up_for, expected) in [
        (SECOND, FAIL_TIMEOUT),
        (FAIL_TIMEOUT * 2 - TICK, FAIL_TIMEOUT * 2),
        (FAIL_TIMEOUT * 4 - TICK, FAIL_TIMEOUT * 3),
        (FAIL_TIMEOUT * 6 - TICK, FAIL_TIMEOUT * 3),
        (FAIL_TIMEOUT * 6, FAIL_TIMEOUT),
        (FAIL_TIMEOUT * 2, FAIL_TIMEOUT),
    ] {
        monitor.handle(Input::Good, now);
        assert_eq!(monitor.health(), Health::Up);
        now = now + up_for;
        monitor.handle(bad(), now);
        assert_eq!(monitor.down_until(), Some(now + expected), "after {up_for:?} up");
        now = now + expected;
        monitor.handle(Input::Elapsed, now);
    }
}

#[test]
fn a_failure_in_probation_is_no_relapse_and_keeps_the_time_down() {
    let mut monitor = damped(1, 1, FAIL_TIMEOUT * 4);
    monitor.handle(bad(), at(0));
    monitor.handle(Input::Elapsed, at(10));
    monitor.handle(Input::Good, at(10));
    monitor.handle(bad(), at(11));
    assert_eq!(monitor.down_until(), Some(at(31)));
    monitor.handle(Input::Elapsed, at(31));
    monitor.handle(bad(), at(32));
    assert_eq!(monitor.down_until(), Some(at(52)));
}

#[test]
fn a_restored_monitor_goes_on_where_it_was() {
    let mut before = damped(1, 1, FAIL_TIMEOUT * 4);
    before.handle(bad(), at(0));
    before.handle(Input::Elapsed, at(10));
    before.handle(Input::Good, at(10));
    before.handle(bad(), at(11));
    let mut after = damped(1, 1, FAIL_TIMEOUT * 4);
    assert_eq!(after.past(at(0)), None);
    after.restore(before.past(at(15)).unwrap(), at(2));
    assert_eq!(after.down_until(), Some(at(18)), "16 of 20 s were left");
    after.handle(Input::Elapsed, at(18));
    after.handle(Input::Good, at(18));
    let risen = after.past(at(18)).unwrap();
    let mut later = damped(1, 1, FAIL_TIMEOUT * 4);
    later.restore(risen, at(0));
    later.handle(bad(), at(39));
    assert_eq!(later.down_until(), Some(at(79)), "a relapse within 40 s doubles 20 s");
}

#[test]
fn max_fails_zero_never_goes_down_and_its_window_is_bounded() {
    let mut monitor = monitor(0, 1);
    monitor.handle(Input::Good, at(0));
    for _ in 0..3 * LARGEST_WINDOW {
        monitor.handle(bad(), at(1));
    }
    assert_eq!(monitor.health(), Health::Up);
    assert!(!monitor.is_suspect(at(1)));
    assert_eq!(monitor.fails(at(1)), LARGEST_WINDOW);
}

#[test]
fn the_reason_is_forgotten_when_it_explains_nothing() {
    let mut monitor = monitor(2, 1);
    monitor.handle(Input::Good, at(0));
    monitor.handle(bad(), at(1));
    assert_eq!(monitor.reason(at(1)), Some("refused"));
    assert_eq!(monitor.reason(at(11)), None);
}

proptest! {
    /// Against a model that keeps every failure for ever and counts them anew each time.
    #[test]
    fn the_window_equals_a_recount(
        max_fails in 1u32..5,
        steps in prop::collection::vec((0u64..6_000, any::<bool>()), 1..200),
    ) {
        let mut monitor = monitor(max_fails, 1);
        let mut now = Moment::ZERO;
        let mut failures: Vec<Moment> = Vec::new();
        for (gap_ms, good) in steps {
            now = now + Duration::from_millis(gap_ms);
            monitor.handle(Input::Elapsed, now);
            let before = monitor.health();
            monitor.handle(if good { Input::Good } else { bad() }, now);
            if !good && before != Health::Down {
                failures.push(now);
            }
            let recount = failures.iter().filter(|at| now - **at < FAIL_TIMEOUT).count();
            prop_assert_eq!(monitor.fails(now), recount);
            match before {
                Health::Up | Health::Unknown => {
                    let full = !good && recount >= max_fails as usize;
                    prop_assert_eq!(monitor.health() == Health::Down, full);
                }
                Health::Probation => prop_assert_eq!(monitor.health() == Health::Down, !good),
                Health::Down => prop_assert_eq!(monitor.health(), Health::Down),
            }
        }
    }
}
