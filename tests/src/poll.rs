//! Waiting for something to become true, without a timed sleep in any test: the condition is looked at every
//! [`INTERVAL`] until a deadline, and a failure tells what was seen last.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Short against every time the product promises (the shortest is 50 ms), long against a look at it.
const INTERVAL: Duration = Duration::from_millis(15);

/// Calls `look` until it answers `Ok`, and hands that on. `Err` means "not yet" and says what was seen instead.
///
/// `look` is called at least once, and once more after the deadline has passed, so a machine that stood still does
/// not make a true condition look false.
///
/// # Errors
/// After `patience`, with `what` and the last thing seen.
pub fn poll_until<T, S: Display>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let is_last = started.elapsed() >= patience;
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if is_last => bail!("waited {patience:?} for {what}; seen last: {seen}"),
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_later_is_found() {
        let mut looks = 0;
        let found = poll_until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_failure_says_what_was_seen_last() {
        let error = poll_until(Duration::ZERO, "the moon", || Err::<(), _>("only clouds")).unwrap_err();
        assert_eq!(error.to_string(), "waited 0ns for the moon; seen last: only clouds");
    }
}
