//! The directories of an instance: on the right file system, nobody else's, writable; and what is pinned there already.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::finding::{About, about, quoted};
use super::{Places, Unseen};
use crate::control::protocol::{Finding, Severity};
use crate::daemon;
use crate::dataplane::advice::{Advice, Fix};
use crate::dataplane::links;
use crate::dataplane::object::Wanted;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::{DataplaneError, layout_version, trial};
use crate::directory::{DirectoryError, PrivateDirectory};

/// Less than this, and the next event may not be written; the journal alone grows to 4 MiB, twice.
const FEW_BYTES: u64 = 16 << 20;

/// What was seen.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) pins: Place,
    /// Whether bpffs is, or would be, there; if not, what helps.
    pub(super) bpffs: Result<(), Advice>,
    /// Directories of other layouts with something in them.
    /// Each with whether its programs are still on interfaces.
    pub(super) other_layouts: Vec<(PathBuf, bool)>,
    /// Whether what is pinned could be adopted, and what the configuration would have to wait for then; `None`: there is
    /// nothing, or nobody knows.
    pub(super) adoption: Option<Result<Vec<String>, String>>,
    pub(super) state: Place,
    pub(super) socket: Place,
}

/// A directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) found: Found,
    /// The process that holds its lock.
    pub(super) holder: Option<u32>,
}

/// How it is.
#[derive(Debug)]
pub(super) enum Found {
    /// Nobody else's.
    Safe {
        /// Nothing can be written to its file system.
        is_read_only: bool,
        /// Left on its file system.
        free_bytes: u64,
    },
    /// It will be made.
    Missing,
    /// It would be refused.
    Refused(DirectoryError),
    /// This user may not look.
    Hidden,
}

impl Files {
    pub(super) fn look(places: &Places, wanted: Option<Wanted>, unseen: &mut Unseen) -> Self {
        let pin_dir = &places.pin_dir;
        let bpffs = PinDirectory::look(pin_dir).map_err(|error| match error {
            DataplaneError::PinDirectory { problem, .. } => problem,
            error => Advice {
                cause: error.to_string(),
                fix: Fix::ByHand("name another directory with --pin-dir".to_owned()),
            },
        });
        let versioned = pin_dir.join(layout_version());
        let is_pinned = PinDirectory::could_be_adopted(pin_dir);
        let adoption = wanted.filter(|_| is_pinned).map(|wanted| {
            trial::adoptable(wanted, &versioned).map(|kept| daemon::for_a_restart(&wanted, &kept))
        });
        let socket_dir = places.socket.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self {
            pins: Place::look(pin_dir, unseen),
            bpffs,
            // What can't be looked at is told with the directory.
            other_layouts: PinDirectory::other_layouts_in(pin_dir)
                .unwrap_or_default()
                .into_iter()
                .map(|path| {
                    // Where that can't be seen nothing is to be removed.
                    let serves = links::pinned(&path)
                        .map_or(true, |links| links.iter().any(|link| link.ifindex.is_some()));
                    (path, serves)
                })
                .collect(),
            adoption: adoption.map(|adoption| adoption.map_err(|error| error.to_string())),
            state: Place::look(&places.state_dir, unseen),
            socket: Place::look(socket_dir.unwrap_or(Path::new(".")), unseen),
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match &self.bpffs {
            Err(advice) => findings.push(pin_directory(&self.pins.path).advised(advice.clone())),
            Ok(()) => findings.extend(self.pins.judge("pin_directory", "pins can be made there")),
        }
        findings.extend(self.other_layouts.iter().map(|(path, serves)| other_layout(path, *serves)));
        findings.extend(self.adoption.as_ref().map(|adoption| self.adoption(adoption)));
        findings.extend(self.adoption.iter().flatten().flatten().map(|said| self.size(said)));
        findings.extend(self.state.judge("state_directory", "state can be kept there"));
        findings.extend(self.state.room());
        findings.extend(self.socket.judge("socket_directory", "the control socket can be made there"));
        findings
    }

    fn adoption(&self, adoption: &Result<Vec<String>, String>) -> Finding {
        let about = about("pin_adoption", Severity::Error, self.pinned());
        match adoption {
            Ok(_) => about.well("what is pinned would be adopted by the next start"),
            Err(problem) => about.ask(problem, "give flows and counters up: balancer run --replace"),
        }
    }

    fn size(&self, said: &str) -> Finding {
        about("pin_size", Severity::Warning, self.pinned())
            .ask(said, "give flows and counters up at a quiet moment: balancer run --replace")
    }

    fn pinned(&self) -> String {
        self.pins.path.join(layout_version()).display().to_string()
    }
}

fn pin_directory(path: &Path) -> About {
    about("pin_directory", Severity::Error, path.display().to_string())
}

fn other_layout(path: &Path, serves: bool) -> Finding {
    let about = about("pin_layout", Severity::Warning, path.display().to_string());
    if serves {
        return about.ask(
            format!(
                "another version of balancer has its programs on interfaces by these pins, and they may carry traffic (this \
                 version's layout is {})",
                layout_version()
            ),
            "`balancer run --replace` takes the interfaces over, and ends the flows of that version",
        );
    }
    about.ill(
        format!(
            "another version of balancer has pinned something there, which stays in memory (this version's layout is {})",
            layout_version()
        ),
        format!("rm -r {}", quoted(path)),
    )
}

impl Place {
    fn look(path: &Path, unseen: &mut Unseen) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let place = |found, holder| Self { path: path.to_owned(), found, holder };
        match PrivateDirectory::look(path) {
            Ok(None) => place(Found::Missing, None),
            Ok(Some(directory)) => {
                let (is_read_only, free_bytes) = statvfs(path).map_or((false, u64::MAX), |system| {
                    let is_read_only = system.f_flag.contains(StatVfsMountFlags::RDONLY);
                    (is_read_only, system.f_bavail.saturating_mul(system.f_frsize))
                });
                place(Found::Safe { is_read_only, free_bytes }, directory.holder())
            }
            Err(DirectoryError::Io { source, .. })
                if !is_root && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                unseen.push(&path.display().to_string());
                place(Found::Hidden, None)
            }
            Err(error) => place(Found::Refused(error), None),
        }
    }

    fn judge(&self, id: &'static str, good: &str) -> Option<Finding> {
        let about = about(id, Severity::Error, self.path.display().to_string());
        Some(match &self.found {
            Found::Hidden => return None,
            Found::Missing => about.well(format!("it will be made, and {good}")),
            Found::Safe { is_read_only: false, .. } => about.well(good),
            Found::Safe { is_read_only: true, .. } => about.ask(
                "its file system is read-only, so nothing can be changed there",
                format!(
                    "mount it read-write (findmnt --target {}), or name another directory; in a unit: ReadWritePaths=",
                    quoted(&self.path)
                ),
            ),
            Found::Refused(DirectoryError::Unsafe { path, why, remedy }) => {
                let cause = format!("{} {why}", path.display());
                match remedy.command(Path::new(&quoted(path))) {
                    Some(command) => about.ill(cause, command),
                    None => about.ask(cause, remedy.to_string()),
                }
            }
            Found::Refused(error @ DirectoryError::Io { path, source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                about.ill(error.to_string(), format!("mkdir -p {}", quoted(path)))
            }
            Found::Refused(error) => about.ask(error.to_string(), "name another directory"),
        })
    }

    /// Whether there is any.
    fn room(&self) -> Option<Finding> {
        let Found::Safe { is_read_only: false, free_bytes } = self.found else { return None };
        let about = about("state_room", Severity::Warning, self.path.display().to_string());
        Some(if free_bytes < FEW_BYTES {
            about.ask(
                "its file system is full, or nearly: decisions and events are not kept over a restart, and no hook is started",
                format!("make room: df -h {}", quoted(&self.path)),
            )
        } else {
            about.well("its file system has room")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{find, ills};
    use super::*;
    use crate::directory::Remedy;

    fn place(path: &str, found: Found) -> Place {
        Place { path: path.into(), found, holder: None }
    }

    fn safe() -> Found {
        Found::Safe { is_read_only: false, free_bytes: FEW_BYTES }
    }

    fn good() -> Files {
        Files {
            pins: place("/sys/fs/bpf/balancer", Found::Missing),
            bpffs: Ok(()),
            other_layouts: vec![],
            adoption: Some(Ok(Vec::new())),
            state: place("/var/lib/balancer", safe()),
            socket: place("/run/balancer", safe()),
        }
    }

    #[test]
    fn nothing_is_ill_in_directories_of_our_own() {
        assert_eq!(ills(&good().judge()), Vec::<&str>::new());
        assert_eq!(good().judge().len(), 5);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_an_error_with_its_command() {
        let error =
            DirectoryError::Unsafe { path: "/var/lib".into(), why: "is open".into(), remedy: Remedy::Chmod };
        let findings = Files { state: place("/var/lib/balancer", Found::Refused(error)), ..good() }.judge();
        assert_eq!(ills(&findings), ["state_directory"]);
        assert_eq!(find(&findings, "state_directory").fix.as_deref(), Some("chmod 0755 /var/lib"));
    }

    #[test]
    fn a_directory_above_that_is_missing_is_made_by_a_command() {
        let source = io::ErrorKind::NotFound.into();
        let error = DirectoryError::Io { path: "/srv/x y".into(), action: "find", source };
        let findings = Files { socket: place("/srv/x y/z", Found::Refused(error)), ..good() }.judge();
        assert_eq!(find(&findings, "socket_directory").fix.as_deref(), Some("mkdir -p '/srv/x y'"));
    }

    #[test]
    fn a_file_system_that_takes_nothing_is_told() {
        let read_only = Found::Safe { is_read_only: true, free_bytes: FEW_BYTES };
        assert_eq!(ills(&Files { state: place("/s", read_only), ..good() }.judge()), ["state_directory"]);
        let full = Found::Safe { is_read_only: false, free_bytes: FEW_BYTES - 1 };
        let findings = Files { state: place("/s", full), ..good() }.judge();
        assert_eq!(
            (ills(&findings), find(&findings, "state_room").severity),
            (vec!["state_room"], Severity::Warning)
        );
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_judged() {
        let findings = Files { pins: place("/sys/fs/bpf/balancer", Found::Hidden), ..good() }.judge();
        assert!(findings.iter().all(|finding| finding.id != "pin_directory"), "{findings:?}");
    }

    #[test]
    fn pins_that_cannot_be_made_or_adopted_are_errors_and_those_of_others_a_warning() {
        let advice = Advice { cause: "it is not on bpffs".into(), fix: Fix::ByHand("mount it".into()) };
        let files = Files {
            bpffs: Err(advice),
            other_layouts: vec![("/sys/fs/bpf/balancer/v1".into(), false)],
            adoption: Some(Err("its value size is 7".into())),
            ..good()
        };
        let findings = files.judge();
        assert_eq!(ills(&findings), ["pin_directory", "pin_layout", "pin_adoption"]);
        let layout = find(&findings, "pin_layout");
        assert_eq!(
            (layout.severity, layout.fix.as_deref()),
            (Severity::Warning, Some("rm -r /sys/fs/bpf/balancer/v1"))
        );
    }

    #[test]
    fn pins_of_another_size_are_adopted_with_a_warning() {
        let adoption = Some(Ok(vec!["max_flows stays 7".to_owned()]));
        let findings = Files { adoption, ..good() }.judge();
        assert_eq!(ills(&findings), ["pin_size"]);
        assert_eq!(find(&findings, "pin_size").severity, Severity::Warning);
    }
}
