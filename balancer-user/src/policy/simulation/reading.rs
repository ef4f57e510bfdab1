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
    /// How often it went down.
    pub(super) downs: usize,
}

/// Failures within the last `fail_timeout` take it down for that long; nothing counts meanwhile. Then `rise` good
/// ones make it up, and one bad takes it down again. Going down again within twice the last time down after becoming
/// up doubles the time down. Without probes, and so without `rise`, nothing is known of it after its time down.
pub(super) fn read(
    signals: &[(Moment, bool)],
    backend: &BackendSettings,
    rise: Option<u32>,
    now: Moment,
) -> Said {
    let BackendSettings { max_fails, fail_timeout: window, fail_timeout_max, .. } = *backend;
    let (mut health, mut until, mut time_down) = (Health::Unknown, Moment::ZERO, window);
    let (mut failures, mut trials, mut risen, mut downs) = (Vec::new(), 0, None, 0);
    let (after, rise) = (rise.map_or(Health::Unknown, |_| Health::Probation), rise.unwrap_or(1));
    for &(at, good) in signals {
        if health == Health::Down && at < until {
            continue;
        }
        if health == Health::Down {
            (health, trials) = (after, 0);
        }
        // A window of nothing holds this one and no other, not even one of the same moment.
        let earlier = failures.iter().filter(|failure| at - **failure < window).count();
        if !good {
            failures.push(at);
        }
        match health {
            Health::Probation if good => {
                trials += 1;
                if trials >= rise.max(1) {
                    (health, risen) = (Health::Up, Some(at));
                }
            }
            Health::Probation => (health, until, downs) = (Health::Down, at + time_down, downs + 1),
            _ if good => health = Health::Up,
            _ if max_fails > 0 && earlier + 1 >= max_fails as usize => {
                let relapses = risen.is_some_and(|risen| at - risen < time_down * 2);
                time_down = if relapses { (time_down * 2).min(fail_timeout_max.max(window)) } else { window };
                (health, until, downs) = (Health::Down, at + time_down, downs + 1);
            }
            _ => {}
        }
    }
    if health == Health::Down && until <= now {
        health = after;
    }
    let fails = failures.iter().filter(|failure| now - **failure < window).count();
    Said { health, fails, until, downs }
}
