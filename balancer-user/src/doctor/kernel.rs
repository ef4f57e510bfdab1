//! The kernel: whether it takes the program, and how well it runs it there; and what this process may do.
//!
//! It is tried rather than its version compared: vendors' kernels have features that their version doesn't tell.

use std::fs;

use super::Unseen;
use super::finding::about;
use crate::control::protocol::{Finding, Severity};
use crate::dataplane::advice::ONE_BUFFER_MTU;
use crate::dataplane::object;
use crate::dataplane::trial::{self, Trial};

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const NEWER: &str = "install a newer kernel: Linux 5.15 at least, 6.3 for all of it (on Debian `apt install linux-image-amd64`), \
                     and reboot";

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its version, as `uname -r` tells it.
    pub(super) release: String,
    /// This process is root's.
    pub(super) is_root: bool,
    /// The capabilities that the daemon would lack if it were started like this process; `None`: the kernel didn't tell.
    pub(super) missing: Option<Vec<&'static str>>,
    /// What came of trying the program; `None`: this process may not.
    pub(super) trial: Option<Result<Trial, String>>,
    /// As set, where this network namespace shows it.
    pub(super) jit: Option<u8>,
    /// The kernel describes its types.
    pub(super) has_btf: bool,
    /// It tells what drivers can do for XDP.
    pub(super) tells_features: bool,
    /// Of the interfaces of the configuration.
    pub(super) largest_mtu: u32,
    /// The command line of this doctor.
    pub(super) again: String,
}

impl Kernel {
    /// What the interfaces tell of it is for the caller to fill in.
    pub(super) fn look(again: String, unseen: &mut Unseen) -> Self {
        let missing = object::missing_capabilities().ok();
        let is_enough = |missing: &Vec<&str>| missing.iter().all(|missing| *missing == "CAP_NET_RAW");
        let may_try = missing.as_ref().is_some_and(is_enough);
        if !may_try {
            unseen.push("whether the kernel takes the program");
        }
        Self {
            release: fs::read_to_string(RELEASE)
                .map_or("unknown".to_owned(), |release| release.trim().to_owned()),
            is_root: rustix::process::geteuid().is_root(),
            missing,
            trial: may_try.then(|| trial::try_out().map_err(|error| error.to_string())),
            jit: fs::read_to_string(JIT).ok().and_then(|text| text.trim().parse().ok()),
            has_btf: fs::exists(BTF).unwrap_or_default(),
            tells_features: false,
            largest_mtu: 0,
            again,
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = vec![self.capabilities()];
        findings.extend(self.program());
        if let Some(Ok(trial)) = &self.trial {
            findings.extend([self.frags(trial), self.live_frames(trial)]);
        }
        findings.extend(self.jit());
        findings.extend([self.btf(), self.features()]);
        findings
    }

    fn capabilities(&self) -> Finding {
        let severity = if self.is_root { Severity::Error } else { Severity::Warning };
        let about = about("capabilities", severity, "this process");
        match &self.missing {
            None => about.ask("the kernel does not tell the capabilities of this process", "mount /proc"),
            Some(missing) if missing.is_empty() => {
                about.well("a daemon started like this has the capabilities that it needs")
            }
            Some(missing) => {
                let cause =
                    format!("a daemon started like this would lack {} and exit with 5", missing.join(", "));
                if self.is_root {
                    about.ask(cause, "give them to it (systemd: AmbientCapabilities=, CapabilityBoundingSet=), or run it as root \
                                      outside of the container")
                } else {
                    about.ill(cause + "; systemd starts it as root", format!("sudo {}", self.again))
                }
            }
        }
    }

    fn program(&self) -> Option<Finding> {
        let about = about("kernel_program", Severity::Error, &self.release);
        Some(match self.trial.as_ref()? {
            Ok(_) => about.well("the kernel takes the program"),
            Err(problem) => about.ask(problem, NEWER),
        })
    }

    fn frags(&self, trial: &Trial) -> Finding {
        let is_needed = self.largest_mtu > ONE_BUFFER_MTU;
        let severity = if is_needed { Severity::Warning } else { Severity::Info };
        let about = about("kernel_frags", severity, &self.release);
        match &trial.frags {
            Ok(()) => about.well("frames may lie in several buffers, as with a large MTU"),
            Err(problem) => about.ask(
                format!("no frames in several buffers (Linux 5.18): an MTU above {ONE_BUFFER_MTU} needs generic mode: {problem}"),
                NEWER,
            ),
        }
    }

    fn live_frames(&self, trial: &Trial) -> Finding {
        let about = about("kernel_live_frames", Severity::Info, &self.release);
        match &trial.live_frames {
            Ok(()) => about.well("clients that wait for a backend are sent on at the switch"),
            Err(problem) => about.ask(
                format!(
                    "clients that wait for a backend repeat themselves, within a second or a few: {problem}"
                ),
                NEWER,
            ),
        }
    }

    /// The program that was tried tells it best; the setting isn't shown in other network namespaces than the first.
    fn jit(&self) -> Option<Finding> {
        let about = about("kernel_jit", Severity::Warning, "net.core.bpf_jit_enable");
        let tried = self.trial.as_ref().and_then(|trial| trial.as_ref().ok()).map(|trial| trial.is_compiled);
        let is_on = tried.or(self.jit.map(|jit| jit != 0))?;
        Some(if is_on {
            about.well("BPF programs are compiled to machine code")
        } else {
            about.ill(
                "BPF programs are interpreted, which is several times slower",
                "sysctl -w net.core.bpf_jit_enable=1",
            )
        })
    }

    /// Where the program is taken, nothing is missed.
    fn btf(&self) -> Finding {
        let is_refused = matches!(self.trial, Some(Err(_)));
        let severity = if is_refused { Severity::Error } else { Severity::Info };
        let about = about("kernel_btf", severity, BTF);
        if self.has_btf {
            about.well("the kernel describes its types (BTF)")
        } else {
            about.ask(
                "the kernel does not describe its types (BTF)",
                "install a kernel that was built with CONFIG_DEBUG_INFO_BTF=y",
            )
        }
    }

    fn features(&self) -> Finding {
        let about = about("kernel_xdp_features", Severity::Info, &self.release);
        if self.tells_features {
            about.well("the kernel tells what drivers can do for XDP")
        } else {
            about.ask(
                "the kernel does not tell what drivers can do for XDP (Linux 6.3): where a driver has no XDP transmit, packets \
                 are lost unheard",
                format!("try a connection through every interface, or {NEWER}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{find, ills};
    use super::*;

    fn good() -> Kernel {
        Kernel {
            release: "6.18.0".into(),
            is_root: true,
            missing: Some(vec![]),
            trial: Some(Ok(Trial { frags: Ok(()), live_frames: Ok(()), is_compiled: true })),
            jit: None,
            has_btf: true,
            tells_features: true,
            largest_mtu: 1500,
            again: "balancer doctor".into(),
        }
    }

    #[test]
    fn nothing_is_ill_with_a_good_kernel() {
        assert_eq!(ills(&good().judge()), Vec::<&str>::new());
    }

    #[test]
    fn a_capability_that_is_missing_is_an_error_for_root_and_a_warning_for_others() {
        let mut kernel = Kernel { missing: Some(vec!["CAP_BPF"]), trial: None, ..good() };
        let findings = kernel.judge();
        let finding = find(&findings, "capabilities");
        assert_eq!((finding.ok, finding.severity), (false, Severity::Error));
        assert!(finding.cause.contains("CAP_BPF"), "{finding:?}");
        kernel.is_root = false;
        let findings = kernel.judge();
        let finding = find(&findings, "capabilities");
        assert_eq!((finding.ok, finding.severity), (false, Severity::Warning));
        assert_eq!(finding.fix.as_deref(), Some("sudo balancer doctor"));
    }

    #[test]
    fn a_program_that_is_not_taken_is_an_error_and_so_is_missing_btf_then() {
        let kernel = Kernel { trial: Some(Err("no cmpxchg".into())), has_btf: false, ..good() };
        let findings = kernel.judge();
        assert_eq!(ills(&findings), ["kernel_program", "kernel_btf"]);
        assert!(
            findings.iter().filter(|finding| !finding.ok).all(|finding| finding.severity == Severity::Error)
        );
        let findings = Kernel { has_btf: false, ..good() }.judge();
        assert_eq!(
            find(&findings, "kernel_btf").severity,
            Severity::Info,
            "where it is taken nothing is missed"
        );
    }

    #[test]
    fn what_an_old_kernel_lacks_matters_where_it_is_used() {
        let trial =
            Trial { frags: Err("too old".into()), live_frames: Err("too old".into()), is_compiled: true };
        let mut kernel = Kernel { trial: Some(Ok(trial)), tells_features: false, ..good() };
        let findings = kernel.judge();
        assert_eq!(ills(&findings), ["kernel_frags", "kernel_live_frames", "kernel_xdp_features"]);
        assert_eq!(find(&findings, "kernel_frags").severity, Severity::Info);
        kernel.largest_mtu = 9000;
        assert_eq!(find(&kernel.judge(), "kernel_frags").severity, Severity::Warning);
    }

    #[test]
    fn an_interpreter_is_seen_by_what_was_tried_or_by_the_setting() {
        let interpreted = Trial { frags: Ok(()), live_frames: Ok(()), is_compiled: false };
        let tried = Kernel { trial: Some(Ok(interpreted)), jit: Some(1), ..good() };
        assert_eq!(ills(&tried.judge()), ["kernel_jit"]);
        let findings = Kernel { trial: None, jit: Some(0), ..good() }.judge();
        assert_eq!(find(&findings, "kernel_jit").fix.as_deref(), Some("sysctl -w net.core.bpf_jit_enable=1"));
        assert!(Kernel { trial: None, ..good() }.judge().iter().all(|finding| finding.id != "kernel_jit"));
    }
}
