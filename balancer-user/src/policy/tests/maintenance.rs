//! `drain`, `maint` and `ready`; asking the operator; refusing clients; what is cut.

use super::*;

fn withdraw(backend: &str, how: Withdrawal, force: bool) -> Ask {
    Ask::Withdraw { backend: backend.to_owned(), how, force }
}

fn drain(backend: &str) -> Ask {
    withdraw(backend, Withdrawal::Drain { deadline: None }, false)
}

fn maint(backend: &str) -> Ask {
    withdraw(backend, Withdrawal::Maint, false)
}

fn ready(backend: &str) -> Ask {
    Ask::PutBack { backend: backend.to_owned() }
}

fn cuts(world: &World) -> Vec<(Moment, usize)> {
    let cut = |(at, entry): &(Moment, Entry)| match entry {
        Entry::Cut(Cut { whose: Whose::Of(backend), .. }) => Some((*at, backend.0)),
        _ => None,
    };
    world.log.iter().filter_map(cut).collect()
}

#[test]
fn draining_the_active_backend_fails_over_first_and_cuts_at_the_deadline() {
    let mut world = manual();
    world.run(secs(5));
    let asked = world.now;
    let accepted = world.ask(drain("p")).unwrap();
    assert!(matches!(accepted, Accepted::Set { to: Admin::Drain, transition: Some(2), .. }), "{accepted:?}");
    assert_eq!(world.transitions()[1], (Some(P), B, ActiveReason::Drain));
    world.run(secs(599));
    assert_eq!(cuts(&world), []);
    world.run(secs(2));
    assert_eq!(cuts(&world), [(asked + secs(600), P)]);
    assert_eq!(world.view().backends[P].admin, Admin::Drain);
}

/// Its hooks run once, and no client is led to a backend that is left again at once.
#[test]
fn a_pool_that_returns_by_itself_goes_straight_to_where_it_would_return() {
    for (failback, to) in [(Failback::Auto { delay: Duration::ZERO }, P), (Failback::Manual, C)] {
        let mut world = World::new(vec![trio(failback)], 1);
        world.run(secs(5));
        world.fail_over(Some("b"), false).unwrap();
        world.ask(maint("b")).unwrap();
        world.run(secs(60));
        assert_eq!(world.transitions()[2..], [(Some(B), to, ActiveReason::Maint)], "{failback:?}");
    }
}

#[test]
fn a_standby_is_drained_without_a_failover_and_its_deadline_can_be_said_again() {
    let mut world = manual();
    world.run(secs(5));
    world.ask(drain("b")).unwrap();
    let again = world.now;
    let soon = Withdrawal::Drain { deadline: Some(secs(3)) };
    world.ask(withdraw("b", soon, false)).unwrap();
    world.run(secs(10));
    assert_eq!((world.active(), cuts(&world)), (Some(P), vec![(again + secs(3), B)]));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(world.active(), Some(C), "what is drained gets nothing");
}

#[test]
fn maintenance_cuts_at_once_and_ready_ends_it() {
    let mut world = auto(Duration::ZERO);
    world.run(secs(5));
    let asked = world.now;
    world.ask(maint("p")).unwrap();
    assert_eq!((world.active(), cuts(&world)), (Some(B), vec![(asked, P)]));
    world.run(secs(60));
    assert_eq!(world.active(), Some(B), "up, and not used");
    world.ask(ready("p")).unwrap();
    world.run(secs(1));
    assert_eq!(world.active(), Some(P), "auto returns to it");
}

#[test]
fn the_last_backend_is_taken_out_by_force_only_and_clients_are_refused_then() {
    let others = [(B, Condition::Refusing), (C, Condition::Refusing)];
    let mut world = starting_with(trio(Failback::Manual), &others);
    world.run(secs(1));
    let before = world.view();
    let refused = world.ask(maint("p"));
    assert!(matches!(refused, Err(Refusal::NoSuccessor { .. })), "{refused:?}");
    assert_eq!(world.view(), before);
    world.ask(withdraw("p", Withdrawal::Maint, true)).unwrap();
    assert_eq!(
        (world.active(), world.view().wish),
        (Some(B), Wish::Forced),
        "to the next, as with failover --force"
    );

    let mut alone = trio(Failback::Manual);
    alone.backends.truncate(1);
    let mut world = starting_with(alone, &[]);
    world.run(secs(1));
    world.ask(withdraw("p", Withdrawal::Maint, true)).unwrap();
    assert_eq!((world.active(), world.view().state), (None, PoolState::AllDown));
    assert_eq!(cuts(&world), [(world.now, P)]);
    world.ask(ready("p")).unwrap();
    assert_eq!((world.active(), world.view().state), (Some(P), PoolState::Serving));
}

#[test]
fn what_is_taken_out_is_no_target_and_what_is_disabled_cant_be_taken_out() {
    let mut pool = trio(Failback::Manual);
    pool.backends[C].disabled = true;
    let mut world = starting_with(pool, &[]);
    world.run(secs(1));
    world.ask(maint("b")).unwrap();
    let refused = world.fail_over(Some("b"), true).unwrap_err().to_string();
    assert!(refused.contains("is in maint; `balancer ready passwords b`"), "{refused}");
    assert!(matches!(world.fail_over(None, true), Err(Refusal::NoOther { .. })));
    for ask in [drain("c"), maint("c"), ready("c")] {
        assert!(matches!(world.ask(ask), Err(Refusal::Disabled { .. })));
    }
}

#[test]
fn the_operators_will_and_the_time_left_survive_a_restart() {
    let mut world = manual();
    world.run(secs(5));
    world.ask(drain("p")).unwrap();
    world.ask(maint("c")).unwrap();
    world.run(secs(400));
    world.restart();
    let restarted = world.now;
    world.run(secs(1));
    let admins: Vec<_> = world.view().backends.iter().map(|backend| backend.admin).collect();
    assert_eq!(admins, [Admin::Drain, Admin::Ready, Admin::Maint]);
    world.run(secs(300));
    assert_eq!(cuts(&world).last(), Some(&(restarted + secs(200), P)), "600 s less 400 s");
    assert_eq!(world.active(), Some(B));
}

#[test]
fn the_flows_of_a_failed_backend_are_cut_once_the_pool_has_moved_away() {
    let mut world = manual();
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(cuts(&world).iter().map(|(_, b)| *b).collect::<Vec<_>>(), [P]);

    let mut pool = trio(Failback::Manual);
    pool.on_backend_down = OnBackendDown::Keep;
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(3));
    assert_eq!((world.active(), cuts(&world)), (Some(B), vec![]));
}

#[test]
fn nothing_is_cut_while_there_is_nowhere_to_go() {
    let all = [(P, Condition::Refusing), (B, Condition::Refusing), (C, Condition::Refusing)];
    for when_all_down in [WhenAllDown::Last, WhenAllDown::Reject] {
        let mut pool = trio(Failback::Manual);
        pool.when_all_down = when_all_down;
        let mut world = World::new(vec![pool], 1);
        world.run(secs(5));
        all.iter().for_each(|(b, condition)| world.set(0, *b, *condition));
        world.run(secs(5));
        let active = cuts(&world).into_iter().filter(|(_, b)| Some(BackendIndex(*b)) == world.view().active);
        assert_eq!(active.count(), 0);
        assert_eq!(world.view().state, PoolState::AllDown);
        assert_eq!(world.active().is_none(), when_all_down == WhenAllDown::Reject);
    }
}

#[test]
fn a_failover_by_hand_cuts_only_when_asked() {
    let mut world = manual();
    world.run(secs(5));
    world.fail_over(Some("b"), false).unwrap();
    assert_eq!(cuts(&world), []);
    world.ask(Ask::Failover { to: Some("c".to_owned()), force: false, reset: true }).unwrap();
    assert_eq!(cuts(&world), [(world.now, B)]);
}

#[test]
fn a_pool_that_asks_stays_until_it_is_told_or_the_active_one_returns() {
    let mut pool = trio(Failback::Manual);
    pool.failover = Failover::Manual;
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    world.set(0, P, Condition::Refusing);
    world.run(secs(30));
    assert_eq!((world.view().state, world.active()), (PoolState::Waiting, Some(P)));
    let asked = world.events().filter(|(_, event)| matches!(event, Event::Waiting { .. })).count();
    assert_eq!(asked, 1);
    world.set(0, P, Condition::Fine);
    world.run(secs(15));
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(P)));
    world.set(0, P, Condition::Refusing);
    world.run(secs(5));
    world.fail_over(None, false).unwrap();
    assert_eq!((world.view().state, world.active()), (PoolState::Serving, Some(B)));
}

/// [37]
#[test]
fn damping_keeps_a_flapping_backend_down_for_longer_each_time() {
    let mut pool = trio(Failback::Auto { delay: Duration::ZERO });
    pool.backends[P].fail_timeout_max = secs(40);
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    let mut spans = Vec::new();
    for _ in 0..4 {
        world.set(0, P, Condition::Refusing);
        world.run(secs(3));
        let down = world.view().backends[P].since;
        world.set(0, P, Condition::Fine);
        while world.view().backends[P].health == Health::Down {
            world.run(millis(100));
        }
        spans.push((world.view().backends[P].since - down).as_secs());
        world.run(secs(3));
    }
    assert_eq!(spans, [10, 20, 40, 40]);
}

/// With nobody active there is no last one to stay with.
#[test]
fn the_first_that_is_put_back_into_an_empty_pool_is_used_though_it_fails() {
    let mut pool = trio(Failback::Manual);
    pool.backends.truncate(1);
    let mut world = starting_with(pool, &[(P, Condition::Refusing)]);
    world.ask(maint("p")).unwrap();
    world.run(secs(1));
    assert_eq!((world.active(), world.view().state), (None, PoolState::AllDown));
    world.ask(ready("p")).unwrap();
    assert_eq!((world.active(), world.view().state), (Some(P), PoolState::AllDown));
    world.set(0, P, Condition::Fine);
    world.run(secs(15));
    assert_eq!((world.active(), world.view().state), (Some(P), PoolState::Serving));
}

#[test]
fn what_a_failed_backend_has_left_is_cut_once_and_not_at_each_probe_of_its_other_services() {
    let mut pool = trio(Failback::Manual);
    pool.services.push(service("sync"));
    let mut policy = Policy::new(vec![pool], 1, History::default(), Moment::ZERO);
    let (mut now, mut cuts) = (Moment::ZERO, 0);
    while now < Moment::ZERO + secs(9) {
        while let Some(ticket) = policy.poll_probe() {
            let fails = (ticket.backend, ticket.service) == (BackendIndex(B), ServiceIndex(0));
            let signal = if fails { Signal::Bad("refused".to_owned()) } else { Signal::Good };
            policy.handle_signal(ticket, signal, now);
        }
        cuts += std::iter::from_fn(|| policy.poll_cut()).count();
        now = policy.poll_timeout().unwrap();
        policy.handle_timeout(now);
    }
    assert_eq!(cuts, 1);
}

#[test]
fn a_cut_that_a_restart_may_have_broken_off_is_asked_for_again() {
    let mut world = manual();
    world.run(secs(5));
    world.ask(maint("b")).unwrap();
    world.ask(drain("c")).unwrap();
    world.restart();
    let restarted = world.now;
    assert_eq!(cuts(&world).last(), Some(&(restarted, B)), "c has time left");
}
