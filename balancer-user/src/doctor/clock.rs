//! The machine's clock, by which certificates are valid or not: its year, and whether somebody keeps it.
#![expect(unsafe_code, reason = "adjtimex has no safe wrapper")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Unseen;
use super::finding::about;
use crate::control::protocol::{Finding, Severity, Timestamp};

/// 2025-01-01: before this program was written.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) now: SystemTime,
    /// Somebody (NTP) keeps it; `None`: the kernel didn't tell.
    pub(super) is_kept: Option<bool>,
}

impl Clock {
    pub(super) fn look(now: SystemTime, unseen: &mut Unseen) -> Self {
        let is_kept = is_kept();
        if is_kept.is_none() {
            unseen.push("whether the clock is kept");
        }
        Self { now, is_kept }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let about_year = about("clock", Severity::Error, "clock");
        let year = if self.now < UNIX_EPOCH + EARLIEST {
            about_year.ill(
                format!(
                    "it says {}: every certificate is not valid yet, and TLS probes fail",
                    Timestamp::from(self.now)
                ),
                "timedatectl set-ntp true",
            )
        } else {
            about_year.well(format!("it says {}", Timestamp::from(self.now)))
        };
        let about_kept = about("clock_synchronised", Severity::Warning, "clock");
        let kept = self.is_kept.map(|is_kept| {
            if is_kept {
                about_kept.well("it is synchronised")
            } else {
                about_kept.ill(
                    "nobody synchronises it: when it has drifted far enough, certificates look not valid yet, or expired",
                    "timedatectl set-ntp true",
                )
            }
        });
        std::iter::once(year).chain(kept).collect()
    }
}

/// By the kernel's own state, which every NTP client sets.
fn is_kept() -> Option<bool> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is that of a whole structure; with no modes the kernel only fills it in.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{find, ills};
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_an_error_and_one_that_nobody_keeps_a_warning() {
        let good = Clock { now: UNIX_EPOCH + EARLIEST, is_kept: Some(true) };
        assert_eq!(ills(&good.judge()), Vec::<&str>::new());
        let unset = Clock { now: UNIX_EPOCH + Duration::from_secs(7), ..good };
        let findings = unset.judge();
        assert_eq!(ills(&findings), ["clock"]);
        assert!(find(&findings, "clock").cause.contains("1970-01-01"));
        let adrift = Clock { is_kept: Some(false), ..good };
        assert_eq!(ills(&adrift.judge()), ["clock_synchronised"]);
        assert_eq!(Clock { is_kept: None, ..good }.judge().len(), 1);
    }

    #[test]
    fn the_kernel_tells_its_state_to_everybody() {
        assert!(is_kept().is_some());
    }
}
