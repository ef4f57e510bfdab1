//! The return: by itself under `auto`, by hand always, under `manual` never otherwise (see `a_failure`).

use super::*;

fn failed_over(mut world: World) -> World {
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    world.set(0, P, Condition::Fine);
    world
}

fn up_at(world: &World) -> Moment {
    let up = |(at, event): (Moment, &Event)| match event {
        Event::Health { backend: BackendIndex(P), to: Health::Up, .. } => Some(at),
        _ => None,
    };
    world.events().filter_map(up).last().unwrap()
}

#[test]
fn comes_when_the_first_has_been_up_for_the_delay_and_not_a_tick_earlier() {
    let mut world = failed_over(auto(secs(7)));
    while world.view().backends[P].health != Health::Up {
        world.run(millis(100));
    }
    let due = up_at(&world) + secs(7);
    world.run((due - world.now) - TICK);
    assert_eq!(world.active(), Some(B));
    world.run(TICK);
    assert_eq!(world.transitions().last().copied(), Some((Some(B), P, ActiveReason::Failback)));
}

#[test]
fn starts_its_delay_anew_after_an_interruption() {
    let mut world = failed_over(auto(secs(60)));
    world.run(secs(40));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    world.set(0, P, Condition::Fine);
    world.run(secs(60));
    assert_eq!(world.active(), Some(B));
    world.run(secs(20));
    assert_eq!(world.active(), Some(P));
}

/// [37] Down for 10 s, up for a moment, over and over: the pool follows no more than once per `fail_timeout`.
#[test]
fn of_a_flapping_backend_comes_at_most_once_per_fail_timeout() {
    let mut world = auto(Duration::ZERO);
    for _ in 0..200 {
        world.set(0, P, Condition::Refusing);
        world.run(millis(2600));
        world.set(0, P, Condition::Fine);
        world.run(millis(2600));
    }
    let failbacks = reasons(&world).into_iter().filter(|reason| *reason == ActiveReason::Failback).count();
    assert!(failbacks > 5, "it does return: {failbacks}");
    assert!(failbacks <= 200 * 52 / 100, "{failbacks} in {:?}", world.now);
}

#[test]
fn waits_for_the_operator_after_a_failover_by_hand() {
    let mut world = auto(Duration::ZERO);
    world.run(secs(5));
    world.fail_over(Some("b"), false).unwrap();
    world.run(secs(3600));
    assert_eq!((world.active(), world.view().wish), (Some(B), Wish::Stay));
    world.fail_back().unwrap();
    assert_eq!((world.active(), world.view().wish), (Some(P), Wish::Automatic));
}

#[test]
fn comes_by_itself_again_once_the_operators_target_failed() {
    let mut world = auto(Duration::ZERO);
    world.run(secs(5));
    world.fail_over(Some("c"), false).unwrap();
    world.set(0, C, Condition::Refusing);
    world.run(secs(5));
    assert_eq!((world.active(), world.view().wish), (Some(P), Wish::Automatic));
}

#[test]
fn by_hand_goes_to_the_first_eligible() {
    let mut world = failed_over(manual());
    world.run(secs(30));
    assert!(matches!(world.fail_back(), Ok(Accepted::Moved { active: BackendIndex(P), .. })));
    assert_eq!(world.fail_back(), Ok(Accepted::AlreadyActive { active: BackendIndex(P) }));
}

#[test]
fn by_hand_is_refused_when_nobody_is_eligible() {
    let refusing = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(trio(Failback::Manual), &refusing);
    world.run(secs(1));
    assert_eq!(world.fail_back(), Err(Refusal::NoneEligible { pool: "passwords".to_owned() }));
}
