//! To whom a connection attempt goes on that its backend did not take.

use super::*;

const NOBODY: [usize; 0] = [];

fn successors(world: &World) -> Vec<usize> {
    world.policy.successors(PoolIndex(0)).into_iter().map(|b| b.0).collect()
}

#[test]
fn goes_on_to_those_that_are_up_in_order_and_to_the_unknown_behind_them() {
    let mut world = manual();
    world.run(secs(5));
    assert_eq!(successors(&world), [B, C]);
    world.set(0, B, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(successors(&world), [C]);
    world.set(0, C, Condition::Refusing);
    world.run(secs(3));
    assert_eq!(successors(&world), NOBODY);

    // Nobody hears of B, and its first probe has ended.
    let mut world = starting_with(trio(Failback::Manual), &[(B, Condition::Ours)]);
    world.run(secs(5));
    assert_eq!(world.view().backends[B].health, Health::Unknown);
    assert_eq!(successors(&world), [C, B]);
}

/// As a failover would: it doesn't go on behind the active one.
#[test]
fn goes_on_from_the_last_one_to_the_first() {
    let mut world = manual();
    world.run(secs(5));
    world.fail_over(Some("b"), false).unwrap();
    assert_eq!(successors(&world), [P, C]);
}

#[test]
fn goes_on_to_nobody_before_the_first_probes_have_ended() {
    let conditions = [(P, Condition::Fine), (B, Condition::Lost), (C, Condition::Lost)];
    let world = restarted_on(trio(Failback::Manual), P, &conditions);
    assert_eq!((world.active(), successors(&world)), (Some(P), vec![]));
}

#[test]
fn goes_on_to_nobody_when_the_pool_would_stay() {
    let mut asks = World::new(vec![PoolSettings { failover: Failover::Manual, ..trio(Failback::Manual) }], 1);
    asks.run(secs(5));

    let mut forced = starting_with(trio(Failback::Manual), &[(C, Condition::Refusing)]);
    forced.run(secs(5));
    forced.fail_over(Some("c"), true).unwrap();
    assert_eq!(forced.active(), Some(C));

    let mut refusing =
        World::new(vec![PoolSettings { when_all_down: WhenAllDown::Reject, ..trio(Failback::Manual) }], 1);
    [P, B, C].into_iter().for_each(|b| refusing.set(0, b, Condition::Refusing));
    refusing.run(secs(10));
    assert_eq!(refusing.active(), None);

    for world in [asks, forced, refusing] {
        assert_eq!(successors(&world), NOBODY, "{:?}", world.view());
    }
}

#[test]
fn goes_on_to_nobody_while_a_change_is_under_way() {
    let mut world = World::new(vec![a_switch::with_hooks()], 1);
    world.run(secs(5));
    assert_eq!(successors(&world).first(), Some(&B), "an attempt waits if there is somebody");
    world.hooks_take(secs(5), true);
    world.fail_over(Some("b"), false).unwrap();
    world.run(millis(10));
    assert_eq!((world.view().state, successors(&world)), (PoolState::Switching, vec![]));
}

/// It doesn't run, and the pool would go over to it, not to the one behind.
#[test]
fn goes_no_further_than_a_cold_standby() {
    let mut pool = trio(Failback::Manual);
    pool.backends[B].cold = true;
    let mut world = World::new(vec![pool.clone()], 1);
    world.run(secs(5));
    assert_eq!(successors(&world), NOBODY);

    pool.hooks = a_switch::with_hooks().hooks;
    let mut world = World::new(vec![pool], 1);
    world.run(secs(5));
    assert_eq!(successors(&world), [B, C]);
}
