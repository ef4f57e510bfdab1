//! Pools that have left the configuration lately: what the operator wanted of them and who was active, for when they come back.
//!
//! A mistake in the file and its correction are two reloads; without this a backend in maintenance would get flows again. By
//! names, as over a restart, and over a restart, too. Health is not kept: it is asked for at once; nor is who has a role that
//! steps hand over, which people may have taken on meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::limits::MAX_POOLS;

use crate::config::{self, Config};
use crate::policy::{Moment, PoolHistory, PoolIndex};
use crate::store::state;

use super::memory::{self, ms};
use super::{Clock, Daemon};

/// As many are kept, those that left last: all that a file may have had.
const MOST: usize = MAX_POOLS;
/// Who comes back later is somebody new: what was wanted is out of date by then.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Departed(BTreeMap<String, (Moment, state::Pool)>);

impl Departed {
    /// What an earlier life knew, `passed` ago.
    pub(super) fn remembered(all: &[state::Departed], passed: Duration, now: Moment) -> Self {
        let one = |gone: &state::Departed| {
            let since = now.before(Duration::from_millis(gone.ago_ms).saturating_add(passed));
            (gone.pool.name.clone(), (since, gone.pool.clone()))
        };
        let mut departed = Self(all.iter().map(one).collect());
        departed.forget(now);
        departed
    }

    /// One has left.
    fn add(&mut self, pool: state::Pool, now: Moment) {
        self.0.insert(pool.name.clone(), (now, pool));
        self.forget(now);
    }

    fn forget(&mut self, now: Moment) {
        self.0.retain(|_, (since, _)| now - *since < LONGEST);
        while self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, (since, _))| *since).map(|(name, _)| name.clone());
            oldest.iter().for_each(|name| drop(self.0.remove(name)));
        }
    }

    /// Those that an earlier life had at its end, and that the configuration has no more.
    pub(super) fn left_meanwhile(&mut self, config: &Config, earlier: &[state::Pool], end: Moment) {
        let gone = earlier.iter().filter(|pool| config.pools.iter().all(|known| known.name != pool.name));
        gone.for_each(|pool| self.add(without_health(pool.clone()), end));
    }

    /// One is there again: what was known of it, in its order.
    pub(super) fn is_back(&mut self, pool: &config::Pool, clock: &Clock) -> Option<PoolHistory> {
        let (passed, past) = self.take(&pool.name, clock.now())?;
        let past = memory::of_pool(pool, &past, passed, clock);
        Some(if pool.has_steps() { memory::doubtful(past) } else { past })
    }

    /// Since when one of this name was gone, and what was known of it.
    fn take(&mut self, name: &str, now: Moment) -> Option<(Duration, state::Pool)> {
        self.forget(now);
        self.0.remove(name).map(|(since, pool)| (now - since, pool))
    }

    /// Where their backends are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.values().flat_map(|(_, pool)| {
            let backends = pool.backends.iter().filter_map(|backend| backend.address);
            backends.chain(pool.active_at)
        })
    }

    /// What is to be remembered.
    pub(super) fn written(&self, now: Moment) -> Vec<state::Departed> {
        let written = |(since, pool): &(Moment, state::Pool)| state::Departed {
            ago_ms: ms(now - *since),
            pool: pool.clone(),
        };
        self.0.values().map(written).collect()
    }
}

impl Daemon {
    /// Another configuration is about to take the place: who leaves is remembered; what is known of each pool that is new,
    /// in its order.
    pub(super) fn exchange_departed(&mut self, config: &Config, now: Moment) -> Vec<Option<PoolHistory>> {
        let history = self.policy.history(now);
        let before = self.parts.config.pools.iter().zip(history.pools).enumerate();
        let gone = before.filter(|(_, (pool, _))| config.pools.iter().all(|known| known.name != pool.name));
        let gone: Vec<state::Pool> =
            gone.map(|(index, (pool, past))| memory::pool(self, PoolIndex(index), pool, past)).collect();
        gone.into_iter().for_each(|pool| self.departed.add(without_health(pool), now));
        let clock = self.clock;
        let known = &self.parts.config.pools;
        let is_new = |name: &str| known.iter().all(|pool| pool.name != *name);
        let pools = config
            .pools
            .iter()
            .map(|pool| is_new(&pool.name).then(|| self.departed.is_back(pool, &clock))?);
        pools.collect()
    }
}

fn without_health(pool: state::Pool) -> state::Pool {
    let backends = pool.backends.into_iter();
    let backends = backends.map(|backend| state::Backend { services: Vec::new(), ..backend });
    state::Pool { backends: backends.collect(), ..pool }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::PoolReason;
    use crate::daemon::Clock;
    use crate::daemon::example::{BASE, config};
    use crate::policy::{Admin, BackendIndex, Wish};

    const HOUR: Duration = Duration::from_secs(3600);

    fn pool(name: &str) -> state::Pool {
        let at = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let backend = |name: &str, admin, drain_ends_in_ms| state::Backend {
            name: name.to_owned(),
            address: None,
            admin,
            drain_ends_in_ms,
            services: Vec::new(),
        };
        state::Pool {
            name: name.to_owned(),
            active: Some("server2".to_owned()),
            active_at: None,
            since: at,
            reason: PoolReason::Operator,
            wish: state::Wish::Stay,
            backends: vec![
                backend("server1", state::Admin::Drain, Some(10_000)),
                backend("server2", state::Admin::Ready, None),
            ],
            transition: None,
            doubtful: false,
        }
    }

    #[test]
    fn who_comes_back_finds_what_was_wanted_and_time_has_gone_on() {
        let (mut departed, now) = (Departed::default(), Clock::START);
        departed.add(pool("passwords"), now);
        let later = now + Duration::from_secs(4);
        let (passed, past) = departed.take("passwords", later).unwrap();
        let clock = Clock::start();
        let history = memory::of_pool(&config(BASE).pools[0], &past, passed, &clock);
        assert_eq!((history.active, history.wish), (Some(BackendIndex(1)), Wish::Stay));
        let server1 = &history.backends[0];
        assert_eq!((server1.admin, server1.drain_left), (Admin::Drain, Some(Duration::from_secs(6))));
        assert_eq!(departed.take("passwords", later), None, "once");
    }

    #[test]
    fn nobody_can_tell_who_has_a_role_that_steps_hand_over() {
        let clock = Clock::start();
        let hook = "[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [\"/usr/bin/true\"]\n";
        let mut departed = Departed::default();
        departed.add(pool("passwords"), clock.now());
        let history = departed.is_back(&config(&format!("{BASE}{hook}")).pools[0], &clock).unwrap();
        assert!(history.doubtful && history.active.is_none(), "{history:?}");
        assert_eq!(history.backends[0].admin, Admin::Drain, "what was wanted is known");
    }

    #[test]
    fn who_left_between_two_lives_is_remembered_too() {
        let (mut departed, now) = (Departed::default(), Clock::START);
        departed.left_meanwhile(&config(BASE), &[pool("passwords"), pool("gone")], now);
        assert!(departed.take("passwords", now).is_none() && departed.take("gone", now).is_some());
    }

    #[test]
    fn it_is_forgotten_after_a_day_and_the_oldest_of_too_many_at_once() {
        let (mut departed, mut now) = (Departed::default(), Clock::START);
        departed.add(pool("old"), now);
        now = now + LONGEST;
        assert_eq!(departed.take("old", now), None);
        for n in 0..=MOST {
            now = now + Duration::from_secs(1);
            departed.add(pool(&format!("pool{n}")), now);
        }
        assert_eq!(departed.written(now).len(), MOST);
        assert_eq!(departed.take("pool0", now), None);
        assert!(departed.take("pool1", now).is_some());
    }

    #[test]
    fn an_earlier_life_hands_it_on_with_its_age() {
        let (mut departed, now) = (Departed::default(), Clock::START);
        departed.add(pool("passwords"), now);
        let written = departed.written(now + HOUR);
        let mut after = Departed::remembered(&written, 2 * HOUR, now);
        assert_eq!(after.take("passwords", now).map(|(passed, _)| passed), Some(3 * HOUR));
        let late = Departed::remembered(&written, LONGEST, now);
        assert_eq!(late.written(now), []);
    }
}
