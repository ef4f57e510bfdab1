//! Where no probe tells whether a backend is up again, clients' connections do, one at a time.

use super::*;

/// Nobody is probed, and a pool that returns by itself has left P; its time down is over.
fn on_trial(change: impl FnOnce(&mut PoolSettings)) -> World {
    let mut pool = PoolSettings { passive: Passive::Count, ..trio(Failback::Auto { delay: Duration::ZERO }) };
    pool.services = vec![unprobed("web"), unprobed("sync")];
    change(&mut pool);
    let mut world = World::new(vec![pool], 1);
    world.run(secs(1));
    (1..=2).for_each(|flow| world.fail_at(0, P, 0, flow));
    assert_eq!((world.active(), world.view().backends[P].health), (Some(B), Health::Down));
    assert_eq!(trials(&world), [], "not while it is down");
    world.run(FAIL_TIMEOUT);
    world
}

fn unprobed(name: &str) -> ServiceSettings {
    ServiceSettings { name: name.to_owned(), probe: None }
}

fn trials(world: &World) -> Vec<(usize, usize)> {
    let trials = world.policy.trials(PoolIndex(0)).into_iter();
    trials.map(|(service, backend)| (service.0, backend.0)).collect()
}

fn health(world: &World) -> Health {
    world.view().backends[P].health
}

#[test]
fn that_goes_well_brings_the_pool_back() {
    let mut world = on_trial(|_| ());
    assert_eq!((health(&world), trials(&world)), (Health::Probation, vec![(0, P)]));
    world.run(secs(3600));
    assert_eq!((world.active(), trials(&world)), (Some(B), vec![(0, P)]), "it waits for a connection");
    world.prove(0, P, 1);
    assert_eq!(world.active(), Some(B), "the other service was not on trial");
    world.prove(0, P, 0);
    assert_eq!((world.active(), trials(&world)), (Some(P), vec![]));
    assert_eq!(world.transitions().last().copied(), Some((Some(B), P, ActiveReason::Failback)));
}

#[test]
fn that_fails_once_is_enough_for_another_time_down() {
    let mut world = on_trial(|_| ());
    world.answer(0, P);
    world.fail_at(0, P, 0, 7);
    assert_eq!((health(&world), world.active()), (Health::Down, Some(B)));
    let reason = world.view().backends[P].reason.clone();
    assert_eq!(reason.as_deref(), Some("web: live traffic: no answer, on trial"));
    world.run(FAIL_TIMEOUT - TICK);
    assert_eq!(health(&world), Health::Down);
    world.run(TICK);
    assert_eq!(trials(&world), [(0, P)]);
}

#[test]
fn is_one_service_at_a_time() {
    let mut world = on_trial(|pool| {
        pool.backends[P].fail_timeout = secs(30);
        pool.backends[P].fail_timeout_max = secs(30);
    });
    world.run(secs(5));
    (3..=4).for_each(|flow| world.fail_at(0, B, 1, flow));
    assert_eq!(world.active(), Some(C));
    world.run(secs(12));
    assert_eq!(trials(&world), [(1, B)]);
    world.run(secs(15));
    assert_eq!(trials(&world), [(0, P), (1, B)], "one of each backend, in order");
}

#[test]
fn is_nobodys_where_it_would_decide_nothing() {
    let hook = HookSettings { name: "fence".to_owned(), when: HookWhen::Before, on_error: OnError::Hold };
    let manual = on_trial(|pool| pool.failback = Failback::Manual);
    assert_eq!(trials(&manual), [], "the operator returns");
    let probed = on_trial(|pool| pool.services = vec![service("web")]);
    assert_eq!(trials(&probed), [], "probes decide");
    let mut pool = PoolSettings { passive: Passive::Count, ..trio(Failback::Auto { delay: Duration::ZERO }) };
    pool.services = vec![unprobed("web")];
    pool.hooks = vec![hook];
    let mut world = World::new(vec![pool], 1);
    (1..=2).for_each(|flow| world.fail_at(0, P, 0, flow));
    world.run(secs(30));
    assert_eq!((trials(&world), health(&world)), (vec![], Health::Unknown), "hooks come first");
}

#[test]
fn is_not_of_a_backend_that_is_out_of_use() {
    let mut world = on_trial(|_| ());
    world.ask(Ask::Withdraw { backend: "p".to_owned(), how: Withdrawal::Maint, force: false }).unwrap();
    assert_eq!(trials(&world), []);
    world.ask(Ask::PutBack { backend: "p".to_owned() }).unwrap();
    assert_eq!(trials(&world), [(0, P)]);
}

#[test]
fn goes_on_after_a_restart() {
    let mut world = on_trial(|_| ());
    world.restart();
    world.run(millis(1));
    assert_eq!((health(&world), trials(&world)), (Health::Probation, vec![(0, P)]));
}
