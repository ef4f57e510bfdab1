//! What a configuration finds that takes the place of another one: whoever is in both goes on as if nothing had happened.

mod life;

use self::life::{Life, kin};
use super::*;

fn pool() -> PoolSettings {
    trio(Failback::Manual)
}

/// With a step before the switch, that has failed, on the way from `p` to `b`.
fn held() -> Life {
    let mut pool = pool();
    let hook =
        |name: &str| HookSettings { name: name.to_owned(), when: HookWhen::Before, on_error: OnError::Hold };
    pool.hooks = vec![hook("promote")];
    let mut life = Life::new(vec![pool]);
    life.run(secs(1));
    let ask = Ask::Failover { to: Some("b".to_owned()), force: false, reset: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.drain();
    assert!(life.policy.is_busy(PoolIndex(0)), "it is left alone");
    let run = life.hooks[0];
    life.policy.handle_hook(run, HookEnd::Bad("exit code 1".to_owned()), life.now);
    life.drain();
    assert!(!life.policy.is_busy(PoolIndex(0)));
    assert_eq!(life.view().state, PoolState::Held);
    life
}

#[test]
fn whoever_is_down_stays_down_for_as_long_as_without_it() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(5));
    life.failing.push("c");
    while life.of("c").health != Health::Down {
        life.run(millis(10));
    }
    let (down, fell) = (life.of("c"), life.now);
    life.failing.clear();
    for _ in 0..40 {
        life.run(millis(230));
        let other = BackendSettings { max_fails: 3, ..backend("c") };
        let backends = if life.settings[0].backends.len() == 3 {
            vec![backend("p"), other]
        } else {
            vec![other, backend("b"), backend("p")]
        };
        life.reload(vec![PoolSettings { backends, ..pool() }]);
        assert_eq!((life.of("c").health, life.of("c").since), (Health::Down, down.since));
    }
    assert!(life.now - fell < FAIL_TIMEOUT);
    life.run(FAIL_TIMEOUT - (life.now - fell) + millis(50));
    assert_eq!(life.of("c").health, Health::Up);
}

#[test]
fn whoever_has_another_address_is_unknown_and_as_the_operator_wanted() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(1));
    let ask = Ask::Withdraw { backend: "b".to_owned(), how: Withdrawal::Maint, force: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.drain();
    assert_eq!((life.of("b").admin, life.of("b").health), (Admin::Maint, Health::Up));
    let mut moved = kin(&life.settings, &pool());
    let b = pool().backends.iter().position(|backend| backend.name == "b").unwrap();
    moved.backends[b] = None;
    life.policy.succeed(vec![pool()], &[moved], life.now);
    assert_eq!((life.of("b").admin, life.of("b").health), (Admin::Maint, Health::Unknown));
}

#[test]
fn another_order_moves_nobody_and_another_index_is_nobody_else() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(1));
    let ask = Ask::Failover { to: Some("b".to_owned()), force: false, reset: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.run(secs(1));
    let before = life.events.len();
    for order in [["c", "b", "p"], ["b", "p", "c"], ["p", "c", "b"]] {
        life.reload(vec![PoolSettings { backends: order.map(backend).into(), ..pool() }]);
        life.run(secs(3));
        assert_eq!(life.active(), "b", "{order:?}");
    }
    assert_eq!(life.events[before..], []);
}

#[test]
fn who_has_the_role_and_is_left_out_hands_it_to_the_next_one() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(1));
    let left_out = BackendSettings { disabled: true, ..backend("p") };
    life.reload(vec![PoolSettings { backends: vec![backend("b"), backend("c"), left_out], ..pool() }]);
    assert_eq!((life.active().as_str(), life.view().reason), ("b", ActiveReason::Config));
    life.reload(vec![PoolSettings { backends: vec![backend("b"), backend("c")], ..pool() }]);
    life.run(secs(5));
    assert_eq!((life.active().as_str(), life.view().state), ("b", PoolState::Serving));
    let moves = life.events.iter().filter(|event| matches!(event, Event::Transition { .. }));
    assert_eq!(moves.count(), 2, "the first decision, and this one");
}

#[test]
fn new_flows_wait_for_the_first_word_of_the_only_one_that_is_left() {
    let only = |backends: Vec<BackendSettings>| vec![PoolSettings { backends, ..pool() }];
    let mut life = Life::new(only(vec![backend("p")]));
    life.run(secs(1));
    life.routes.clear();
    let left_out = BackendSettings { disabled: true, ..backend("p") };
    life.reload(only(vec![backend("new"), left_out.clone()]));
    life.run(millis(200));
    assert_eq!(life.routes, [Route::Hold, Route::To(BackendIndex(0))]);
    // With nobody up they go to the first one all the same.
    let mut life = Life::new(only(vec![backend("p")]));
    life.failing.push("new");
    life.run(secs(1));
    life.reload(only(vec![backend("new"), left_out]));
    life.run(secs(2));
    assert_eq!((life.active().as_str(), life.view().state), ("new", PoolState::AllDown));
}

#[test]
fn probes_are_neither_starved_nor_stormed_by_five_reloads_a_second() {
    for answer in [millis(2), millis(700)] {
        let mut life = Life::new(vec![pool()]);
        life.answer = answer;
        life.run(secs(10));
        let begun = life.now;
        for n in 0..300_u32 {
            life.run(millis(200));
            let interval = PROBE.interval + millis(u64::from(n % 2));
            let probe = Some(ProbeSchedule { interval, ..PROBE });
            let services = vec![ServiceSettings { probe, ..service("web") }];
            life.reload(vec![PoolSettings { services, ..pool() }]);
        }
        for name in ["p", "b", "c"] {
            let times = life.probes.iter().filter(|(at, of)| *at > begun && of == name);
            let times: Vec<Moment> = times.map(|(at, _)| *at).collect();
            assert!((29..=36).contains(&times.len()), "{name}: {} in a minute", times.len());
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            let (least, most) = gaps.fold((secs(60), Duration::ZERO), |(l, m), gap| (l.min(gap), m.max(gap)));
            assert!(least >= millis(1700) && most <= millis(2200), "{name}: {least:?} to {most:?}");
            assert_eq!(life.of(name).health, Health::Up);
        }
    }
}

#[test]
fn a_probe_of_somebody_who_is_gone_says_nothing_and_frees_its_place() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(5));
    life.answer = millis(900);
    while life.policy.queue.in_flight() == 0 {
        life.run(millis(10));
    }
    let ticket = life.flights.values().next().unwrap().0;
    let backends = life.settings[0].backends.clone();
    let rest = [&backends[..ticket.backend.0], &backends[ticket.backend.0 + 1..]].concat();
    life.reload(vec![PoolSettings { backends: rest, ..pool() }]);
    assert_eq!(life.policy.current(&ticket), None);
    let before = life.view();
    life.policy.handle_signal(ticket, Signal::Bad("refused".to_owned()), life.now);
    assert_eq!(life.view(), before);
    life.flights.retain(|_, (other, _)| *other != ticket);
    life.run(secs(60));
    assert!(life.view().backends.iter().all(|backend| backend.health == Health::Up));
}

#[test]
fn one_that_never_reports_keeps_its_place_no_longer_than_its_bound() {
    let mut life = Life::new(vec![pool()]);
    life.answer = secs(1000);
    life.run(millis(50));
    // The first one started before that.
    assert_eq!(life.policy.queue.in_flight(), 2);
    life.reload(vec![PoolSettings { name: "other".to_owned(), ..pool() }]);
    life.flights.clear();
    life.run(secs(1));
    assert!(life.policy.queue.in_flight() >= 2, "they still take their places");
    life.answer = millis(2);
    life.run(secs(20));
    assert!(life.policy.queue.in_flight() <= 1, "{}", life.policy.queue.in_flight());
}

#[test]
fn what_is_held_stays_so_and_goes_on_where_its_steps_are_known() {
    let mut life = held();
    let id = life.view().transition.unwrap().id;
    let hooks = life.settings[0].hooks.clone();
    let alarms = |life: &Life| life.events.iter().filter(|event| matches!(event, Event::Held { .. })).count();
    let backends: Vec<BackendSettings> = ["c", "b", "p"].map(backend).into();
    life.reload(vec![PoolSettings { backends, hooks, ..pool() }]);
    assert_eq!((life.view().state, life.view().transition.unwrap().id), (PoolState::Held, id));
    assert_eq!(alarms(&life), 1, "nobody is called again");
    let ask = Ask::Resume { skip: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.drain();
    let run = *life.hooks.last().unwrap();
    assert_eq!((run.transition, life.settings[0].backends[run.to.0].name.as_str()), (id, "b"));
    life.policy.handle_hook(run, HookEnd::Good, life.now);
    life.drain();
    assert_eq!(life.active(), "b");
}

#[test]
fn what_is_held_for_steps_that_are_others_now_is_the_operators() {
    let mut life = held();
    let mut hooks = life.settings[0].hooks.clone();
    hooks[0].name = "something else".to_owned();
    life.reload(vec![PoolSettings { hooks, ..pool() }]);
    assert_eq!((life.view().state, life.view().transition), (PoolState::Held, None));
    let resume = Command { pool: "passwords".to_owned(), ask: Ask::Resume { skip: true } };
    let refused = life.policy.handle_command(&resume, life.now);
    assert!(matches!(refused, Err(Refusal::Doubtful { .. })), "{refused:?}");
    let mut life = held();
    let (hooks, backends) = (life.settings[0].hooks.clone(), vec![backend("p"), backend("c")]);
    life.reload(vec![PoolSettings { hooks, backends, ..pool() }]);
    assert_eq!((life.view().state, life.view().transition), (PoolState::Held, None), "its target is gone");
}

#[test]
fn a_hook_that_ends_after_pools_were_added_ends_where_it_was_begun() {
    let mut pool_with_hook = pool();
    let hook = HookSettings { name: "tell".to_owned(), when: HookWhen::After, on_error: OnError::Hold };
    pool_with_hook.hooks = vec![hook];
    let mut life = Life::new(vec![pool_with_hook.clone()]);
    life.run(secs(1));
    let ask = Ask::Failover { to: None, force: false, reset: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.drain();
    let run = life.hooks[0];
    life.reload(vec![PoolSettings { name: "first".to_owned(), ..pool() }, pool_with_hook]);
    assert!(life.policy.is_busy(PoolIndex(1)));
    life.policy.handle_hook(run, HookEnd::Good, life.now);
    assert!(!life.policy.is_busy(PoolIndex(1)));
    life.drain();
    let ended = Event::Hook { id: run.transition, pool: PoolIndex(1), step: 0, failure: None };
    assert!(life.events.contains(&ended), "{:?}", life.events);
}

/// The return is due, and the loop has not come to it yet.
#[test]
fn what_has_come_due_meanwhile_is_decided_in_the_new_places() {
    let mut life = Life::new(vec![trio(Failback::Auto { delay: secs(60) })]);
    life.run(secs(2));
    life.failing.push("p");
    life.run(secs(5));
    assert_eq!(life.active(), "b");
    life.failing.clear();
    while life.of("p").health != Health::Up {
        life.run(millis(50));
    }
    life.run(secs(59));
    life.now = life.now + secs(5);
    let turned = PoolSettings {
        backends: vec![backend("new"), backend("p"), backend("c"), backend("b")],
        ..trio(Failback::Auto { delay: secs(60) })
    };
    let settings = vec![PoolSettings { name: "other".to_owned(), ..pool() }, turned];
    let kin: Vec<Kin> = settings.iter().map(|pool| kin(&life.settings, pool)).collect();
    life.policy.succeed(settings, &kin, life.now);
    let decisions: Vec<_> = std::iter::from_fn(|| life.policy.poll_decision())
        .filter(|decision| decision.pool == PoolIndex(1))
        .collect();
    let last = decisions.last().map(|decision| decision.route);
    assert_eq!(last, Some(Route::To(BackendIndex(1))), "p, where it stands now: {decisions:?}");
}

#[test]
fn a_trial_that_nothing_decides_any_more_is_over() {
    let unprobed = |failback| PoolSettings {
        passive: Passive::Count,
        services: vec![ServiceSettings { name: "web".to_owned(), probe: None }],
        ..trio(failback)
    };
    let mut life = Life::new(vec![unprobed(Failback::Auto { delay: Duration::ZERO })]);
    life.run(secs(1));
    let failure = |flow| LiveFailure {
        pool: PoolIndex(0),
        service: ServiceIndex(0),
        backend: BackendIndex(P),
        what: LiveKind::Refused,
        flow,
        answered: None,
    };
    (1..=2).for_each(|flow| life.policy.handle_live(failure(flow), life.now));
    life.run(FAIL_TIMEOUT + secs(1));
    assert_eq!(life.of("p").health, Health::Probation);
    life.reload(vec![unprobed(Failback::Manual)]);
    assert_eq!(life.of("p").health, Health::Unknown);
}

#[test]
fn a_cold_standby_in_use_is_probed_for_a_service_that_is_new() {
    let with = |services: &[&str]| {
        let mut pool = pool();
        pool.services = services.iter().map(|name| service(name)).collect();
        pool.backends[B].cold = true;
        pool
    };
    let mut life = Life::new(vec![with(&["web"])]);
    life.run(secs(1));
    let ask = Ask::Failover { to: Some("b".to_owned()), force: false, reset: false };
    life.policy.handle_command(&Command { pool: "passwords".to_owned(), ask }, life.now).unwrap();
    life.run(secs(5));
    assert_eq!(life.active(), "b");
    life.reload(vec![with(&["web", "sync"])]);
    life.run(secs(5));
    life.failing.push("b");
    life.run(secs(5));
    assert_eq!(life.active(), "p", "its failure is seen");
}

#[test]
fn a_pool_with_steps_whose_role_nobody_can_tell_is_the_operators() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(1));
    let hook = HookSettings { name: "promote".to_owned(), when: HookWhen::Before, on_error: OnError::Hold };
    let renamed = PoolSettings { name: "renamed".to_owned(), hooks: vec![hook], ..pool() };
    let past = Some(PoolHistory { doubtful: true, ..PoolHistory::default() });
    let doubtful = Kin { past, ..kin(&life.settings, &renamed) };
    life.policy.succeed(vec![renamed.clone()], &[doubtful], life.now);
    life.settings = vec![renamed];
    life.run(secs(10));
    assert_eq!((life.view().state, life.view().active), (PoolState::Held, None));
}

#[test]
fn a_role_whose_holder_is_gone_is_given_to_nobody_without_its_steps() {
    let hook = HookSettings { name: "promote".to_owned(), when: HookWhen::Before, on_error: OnError::Hold };
    for when_all_down in [WhenAllDown::Reject, WhenAllDown::Last] {
        let with_steps = PoolSettings { hooks: vec![hook.clone()], when_all_down, ..pool() };
        let mut life = Life::new(vec![with_steps.clone()]);
        life.failing = vec!["b", "c"];
        life.run(secs(5));
        life.failing.push("p");
        life.run(secs(5));
        let view = life.view();
        assert_eq!((view.state, view.holder), (PoolState::AllDown, Some(BackendIndex(P))));
        assert_eq!(view.active.is_none(), when_all_down == WhenAllDown::Reject);
        life.reload(vec![PoolSettings { backends: vec![backend("b"), backend("c")], ..with_steps }]);
        life.failing.clear();
        life.run(secs(60));
        assert_eq!((life.view().state, life.view().active), (PoolState::Held, None));
        // It is there again, and nobody was given the role.
        let whole = PoolSettings { hooks: vec![hook.clone()], when_all_down, ..pool() };
        let back = Kin { regains: Some(BackendIndex(P)), ..kin(&life.settings, &whole) };
        life.policy.succeed(vec![whole.clone()], &[back], life.now);
        life.settings = vec![whole];
        life.run(secs(5));
        assert_eq!((life.view().state, life.active().as_str()), (PoolState::Serving, "p"));
    }
}

#[test]
fn a_pool_that_comes_back_is_as_the_operator_left_it_and_waits_for_no_probe() {
    let mut life = Life::new(vec![pool()]);
    life.run(secs(1));
    let back = PoolSettings { name: "back".to_owned(), ..pool() };
    let maint = BackendHistory { admin: Admin::Maint, ..BackendHistory::default() };
    let past =
        Some(PoolHistory { active: Some(BackendIndex(B)), backends: vec![maint], ..PoolHistory::default() });
    life.routes.clear();
    let kin = Kin { past, ..kin(&life.settings, &back) };
    life.policy.succeed(vec![back.clone()], &[kin], life.now);
    life.settings = vec![back];
    life.drain();
    assert_eq!(life.routes, [Route::To(BackendIndex(B))]);
    life.run(secs(10));
    assert_eq!((life.active().as_str(), life.view().reason), ("b", ActiveReason::Restored));
    assert_eq!(life.of("p").admin, Admin::Maint);
}
