//! A lab's name: who owns it can be read from it, so that what a dead owner left behind can be told from a lab in
//! use, by any process, without a registry.
//!
//! `bl-<label>-<pid>-<start>-<number>`; a namespace adds `-<role>`. The start time (ticks since boot) keeps a reused
//! process id from being taken for the owner.

use std::{
    fmt, fs, process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};

/// Labels are part of the control socket's path, which the kernel limits to 107 bytes.
const LABEL_MAX: usize = 24;

/// Labs made by this process so far.
static LABS: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LabName {
    text: String,
    owner_pid: u32,
    owner_start_ticks: u64,
}

impl LabName {
    /// A name that no other lab of this machine has.
    pub(super) fn unique(label: &str) -> Result<Self> {
        ensure!(
            (1..=LABEL_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "lab label {label:?}: use 1 to {LABEL_MAX} of a-z, 0-9 and _ (it becomes part of file names)"
        );
        let owner_pid = process::id();
        let owner_start_ticks =
            start_ticks(owner_pid).context("this process's start time in /proc/self/stat")?;
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let text = format!("bl-{label}-{owner_pid}-{owner_start_ticks}-{number}");
        Ok(Self { text, owner_pid, owner_start_ticks })
    }

    /// The lab to which a file of this name (a namespace, a directory) belongs; `None` if to no lab.
    pub(super) fn of_file(file_name: &str) -> Option<Self> {
        let mut parts = file_name.splitn(6, '-');
        if parts.next()? != "bl" {
            return None;
        }
        let label = parts.next()?;
        let owner_pid = parts.next()?.parse().ok()?;
        let owner_start_ticks = parts.next()?.parse().ok()?;
        let number: u32 = parts.next()?.parse().ok()?;
        let text = format!("bl-{label}-{owner_pid}-{owner_start_ticks}-{number}");
        // The text goes into paths that are removed: nothing but what `unique` makes may come through.
        let is_ours =
            file_name.strip_prefix(&text).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        (is_ours && is_plain).then_some(Self { text, owner_pid, owner_start_ticks })
    }

    pub(super) fn owner_lives(&self) -> bool {
        start_ticks(self.owner_pid) == Some(self.owner_start_ticks)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// When a running process started, in clock ticks since boot; `None` when there is none, or only its zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything, brackets and blanks too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    // starttime is field 22 of proc(5); the state was field 3.
    let ticks = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_from_the_files_of_its_lab() {
        let name = LabName::unique("steady_1").unwrap();
        assert_eq!(LabName::of_file(name.as_str()), Some(name.clone()));
        assert_eq!(LabName::of_file(&format!("{name}-backend0")), Some(name.clone()));
        assert!(name.owner_lives());
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for other in [
            "",
            "bl",
            "bl-",
            "bl-x-1-2",
            "bl-x-1-2-3x",
            "bl-x-1-02-3",
            "cni-1234",
            "bl-x/y-1-2-3",
            "bl-..-a-1-1",
        ] {
            assert_eq!(LabName::of_file(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_reused_process_id_is_not_the_owner() {
        let name = LabName::unique("x").unwrap();
        let earlier = LabName { owner_start_ticks: name.owner_start_ticks - 1, ..name };
        assert!(!earlier.owner_lives());
    }

    #[test]
    fn a_label_that_could_not_be_told_from_the_rest_is_refused() {
        for label in ["", "a-b", "../x", "UPPER", "a_label_that_is_far_too_long"] {
            assert!(LabName::unique(label).is_err(), "{label:?}");
        }
    }
}
