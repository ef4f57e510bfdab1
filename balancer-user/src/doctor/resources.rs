//! What the daemon takes of the machine: memory for its tables, file descriptors, and a group for those who may read.

use std::fs;

use nix::unistd::Group;

use super::Unseen;
use super::finding::about;
use crate::config::Config;
use crate::control::protocol::{Finding, Severity};
use crate::control::socket::READERS;
use crate::dataplane::object::Wanted;
use crate::dataplane::trial;
use crate::descriptors;

/// Maps, programs, links, sockets and files, and clients of the control socket.
const DESCRIPTORS: u64 = 128;
/// For each pair of a service and a backend: a probe, and its next one while the last one's socket is closing.
const DESCRIPTORS_OF_A_PROBE: u64 = 2;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resources {
    /// What the tables take; `None`: without a configuration nobody knows.
    pub(super) tables: Option<u64>,
    /// They are there already.
    pub(super) is_taken: bool,
    /// Memory that the kernel could give.
    pub(super) available: Option<u64>,
    /// Who it is whose descriptors are limited, and to how many.
    pub(super) descriptors: (String, u64),
    /// How many may be needed.
    pub(super) descriptors_needed: u64,
    /// The group of those who may read exists.
    pub(super) has_group: bool,
}

impl Resources {
    /// `daemon`: the process id of the one that runs.
    pub(super) fn look(
        config: Option<&Config>,
        wanted: Option<Wanted>,
        is_taken: bool,
        daemon: Option<u32>,
        unseen: &mut Unseen,
    ) -> Self {
        let available = available();
        if available.is_none() {
            unseen.push("how much memory is available");
        }
        let pools = config.map(|config| config.pools.as_slice()).unwrap_or_default();
        let probes: usize = pools.iter().map(|pool| pool.services.len() * pool.backends.len()).sum();
        let own = || ("a daemon started like this".to_owned(), descriptors::limit_of_a_daemon());
        Self {
            tables: wanted.and_then(|wanted| trial::memory(wanted).ok()),
            is_taken,
            available,
            descriptors: daemon.and_then(of_process).unwrap_or_else(own),
            descriptors_needed: DESCRIPTORS + DESCRIPTORS_OF_A_PROBE * probes as u64,
            has_group: Group::from_name(READERS).is_ok_and(|group| group.is_some()),
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        self.memory().into_iter().chain([self.descriptors(), self.group()]).collect()
    }

    fn memory(&self) -> Option<Finding> {
        let (tables, available) = (self.tables?, self.available?);
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let said = format!("the tables take {} MB", megabytes(tables));
        let severity = if tables > available { Severity::Error } else { Severity::Warning };
        let about = about("memory", severity, "tables");
        Some(if self.is_taken {
            about.well(said + ", which they have")
        } else if tables > available / 2 {
            about.ask(
                format!("{said}, and {} MB are available", megabytes(available)),
                "lower max_flows or max_half_open in [gateway]",
            )
        } else {
            about.well(format!("{said} of {} MB that are available", megabytes(available)))
        })
    }

    fn descriptors(&self) -> Finding {
        let (who, limit) = &self.descriptors;
        let about = about("file_limit", Severity::Warning, who);
        if *limit >= self.descriptors_needed {
            about.well(format!(
                "enough file descriptors for all probes ({} may be needed)",
                self.descriptors_needed
            ))
        } else {
            about.ask(
                format!(
                    "at most {limit} file descriptors, and {} may be needed: probes, hooks and commands have to wait, or fail",
                    self.descriptors_needed
                ),
                format!(
                    "raise LimitNOFILE= of the service (without systemd: ulimit -n {}) and restart the daemon",
                    self.descriptors_needed
                ),
            )
        }
    }

    fn group(&self) -> Finding {
        let about = about("group", Severity::Info, READERS);
        if self.has_group {
            about.well("its members may read from the control socket")
        } else {
            about.ill(
                "there is no such group, so only root may read from the control socket; it is looked for at the daemon's start",
                format!("groupadd --system {READERS}"),
            )
        }
    }
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The daemon's limit, which needn't be this process's.
fn of_process(pid: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    let soft = if soft == "unlimited" { u64::MAX } else { soft.parse().ok()? };
    Some((format!("the daemon (pid {pid})"), soft))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{find, ills};
    use super::*;

    fn good() -> Resources {
        Resources {
            tables: Some(116_000_000),
            is_taken: false,
            available: Some(4_000_000_000),
            descriptors: ("the daemon (pid 7)".into(), 1024),
            descriptors_needed: 136,
            has_group: true,
        }
    }

    #[test]
    fn nothing_is_ill_where_there_is_enough() {
        assert_eq!(ills(&good().judge()), Vec::<&str>::new());
    }

    #[test]
    fn tables_that_take_half_of_the_memory_are_a_warning_and_all_of_it_an_error() {
        for (available, severity) in [(200_000_000, Severity::Warning), (100_000_000, Severity::Error)] {
            let findings = Resources { available: Some(available), ..good() }.judge();
            assert_eq!((ills(&findings), find(&findings, "memory").severity), (vec!["memory"], severity));
        }
        let adopted = Resources { available: Some(100_000_000), is_taken: true, ..good() };
        assert_eq!(ills(&adopted.judge()), Vec::<&str>::new());
        assert!(Resources { tables: None, ..good() }.judge().iter().all(|finding| finding.id != "memory"));
    }

    #[test]
    fn too_few_descriptors_are_told_with_whose_they_are() {
        let findings = Resources { descriptors: ("the daemon (pid 7)".into(), 135), ..good() }.judge();
        assert_eq!(ills(&findings), ["file_limit"]);
        assert_eq!(find(&findings, "file_limit").subject, "the daemon (pid 7)");
        let (who, limit) = of_process(std::process::id()).expect("its limits");
        assert!(who.contains(&std::process::id().to_string()) && limit > 0);
    }

    #[test]
    fn a_group_that_is_missing_is_made_by_a_command() {
        let findings = Resources { has_group: false, ..good() }.judge();
        assert_eq!(find(&findings, "group").fix.as_deref(), Some("groupadd --system balancer"));
    }

    #[test]
    fn this_machine_tells_its_memory() {
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
