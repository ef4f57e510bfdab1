//! Real programs that behave badly. They stand in a folder that passes the checks, which takes root.

mod endings;
mod surroundings;
mod trust;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

/// Far above what anything here takes on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// A deadline that is to pass: a shell comes far within it, also on a busy machine.
pub(crate) const SHORT: Duration = Duration::from_millis(1500);

/// A folder for programs, gone with the value. Not below `/tmp`, which everybody may write to, nor `/run`, from which
/// some machines run nothing.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let made = tempfile::Builder::new().prefix("balancer-test-").tempdir_in("/var/lib");
        Self(made.expect("root, to make a folder in /var/lib"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A shell script; `$folder` is this folder.
    pub(crate) fn script(&self, body: &str) -> CommandLine {
        let file = self.at("program");
        // A file that is open for writing can't be run, and a program that another test starts right now may have
        // inherited ours until it runs. A file that was renamed into place was closed by then.
        let text = format!("#!/bin/sh\nfolder='{}'\n{body}\n", self.path().display());
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 0755 \"$2\"", "sh", &text])
            .arg(&file)
            .status();
        assert!(written.is_ok_and(|status| status.success()), "{}", file.display());
        CommandLine { program: file, arguments: Vec::new() }
    }

    /// What a program has written there; waits for it.
    pub(crate) fn written(&self, name: &str) -> String {
        eventually(name, || fs::read_to_string(self.at(name)).ok().filter(|text| text.ends_with('\n')))
    }
}

/// Polls until there is something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENT, "nothing came of {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A runtime like the daemon's.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn call(command: CommandLine, rest: Rest) -> Call {
    Call { command, variables: Vec::new(), input: Vec::new(), timeout: PATIENT, rest }
}

/// Runs a script, without any of the rest.
fn outcome(body: &str, timeout: Duration) -> Report {
    let folder = Folder::new();
    runtime().block_on(run(Call { timeout, ..call(folder.script(body), Rest::Killed) }))
}

fn text(report: &Report) -> String {
    String::from_utf8_lossy(&report.output.bytes()).into_owned()
}

/// Whether a process is there, dead and not waited for included.
fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

/// Whether a process runs: none, and a zombie, doesn't.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with(['Z', 'X']))
}
