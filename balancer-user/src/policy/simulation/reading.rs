//! What the contract says about health, as naively as can be: all signals of a target ever, read from the first to the
//! last.

use crate::policy::*;

/// What the signals of one service on one backend say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) health: Health,
    pub(super) fails: usize,
    /// When its time down is over.
    pub(super) until: Moment,
}

/// Failures within the last `fail_timeout` take it down for that long; nothing counts meanwhile. Then `rise` good
/// ones make it up, and one bad takes it down again. Going down again within twice the last time down after becoming
/// up doubles the time down.
pub(super) fn read(signals: &[(Moment, bool)], backend: &BackendSettings, rise: u32, now: Moment) -> Said {
    let BackendSettings { max_fails, fail_timeout: window, fail_timeout_max, .. } = *backend;
    let (mut health, mut until, mut time_down) = (Health::Unknown, Moment::ZERO, window);
    let (mut failures, mut trials, mut risen) = (Vec::new(), 0, None);
    for &(at, good) in signals {
        if health == Health::Down && at < until {
            continue;
        }
        if health == Health::Down {
            (health, trials) = (Health::Probation, 0);
        }
        if !good {
            failures.push(at);
        }
        let recent = || failures.iter().filter(|failure| **failure == at || at - **failure < window).count();
        match health {
            Health::Probation if good => {
                trials += 1;
                if trials >= rise.max(1) {
                    (health, risen) = (Health::Up, Some(at));
                }
            }
            Health::Probation => (health, until) = (Health::Down, at + time_down),
            _ if good => health = Health::Up,
            _ if max_fails > 0 && recent() >= max_fails as usize => {
                let relapses = risen.is_some_and(|risen| at - risen < time_down * 2);
                time_down = if relapses { (time_down * 2).min(fail_timeout_max.max(window)) } else { window };
                (health, until) = (Health::Down, at + time_down);
            }
            _ => {}
        }
    }
    if health == Health::Down && until <= now {
        health = Health::Probation;
    }
    let fails = failures.iter().filter(|failure| now - **failure < window).count();
    Said { health, fails, until }
}
