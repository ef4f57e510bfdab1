//! A machine that runs systemd, in the network of a lab's host: so that a unit is tried by who will run it, with all that it
//! says, and a package by what installs it.
//!
//! Its files are this machine's; what is changed is kept in memory and gone with it. It has a bpffs and cgroups of its
//! own. Deliberately not here: the services of this machine, of which none is started.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    gateway::Said,
    lab::{Host, Lab, Process},
    poll::poll_until,
};

const BOOT: &str = include_str!("machine/boot.sh");
/// systemd is up in half a second; the machine may be busy.
const BOOTS_WITHIN: Duration = Duration::from_secs(60);
/// Longer than any stop or start that a unit allows for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running one; it ends with its guard, or with the lab.
#[derive(Debug)]
pub struct Machine {
    host: Host,
    name: String,
    dir: PathBuf,
    /// systemd, as this machine numbers it.
    first: u32,
    process: Option<Process>,
}

/// What is put into a machine before it boots.
#[derive(Debug)]
pub struct Parts(PathBuf);

impl Parts {
    /// Nothing yet, for the one machine of this lab.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn new(lab: &Lab) -> Result<Self> {
        let dir = lab.dir().join("machine");
        fs::create_dir_all(dir.join("root")).with_context(|| format!("make {}", dir.display()))?;
        fs::create_dir_all(dir.join("units"))?;
        Ok(Self(dir))
    }

    /// A copy of a file, at this absolute path.
    ///
    /// # Errors
    /// When it can't be copied.
    pub fn copy(&self, file: &Path, to: &str) -> Result<()> {
        let to = self.place(to)?;
        fs::copy(file, &to).map(drop).with_context(|| format!("copy {} to {}", file.display(), to.display()))
    }

    /// A file at this absolute path.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, to: &str, text: &str) -> Result<()> {
        let to = self.place(to)?;
        fs::write(&to, text).with_context(|| format!("write {}", to.display()))
    }

    /// A program of root's at this absolute path: a shell script.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn script(&self, to: &str, body: &str) -> Result<()> {
        self.write(to, &format!("#!/bin/sh\n{body}\n"))?;
        fs::set_permissions(self.place(to)?, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A unit, or a drop-in as `NAME.service.d/FILE.conf`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn unit(&self, name: &str, text: &str) -> Result<()> {
        let to = self.0.join("units").join(name);
        let folder = to.parent().context("a unit's folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&to, text).with_context(|| format!("write {}", to.display()))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let to = self.0.join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a file's folder")?)?;
        Ok(to)
    }
}

impl Machine {
    /// Boots one in the network of the lab's gateway, with these parts.
    ///
    /// # Errors
    /// Without root, systemd, or overlayfs in the kernel; with what was said.
    pub fn boot(lab: &Lab, parts: Parts) -> Result<Self> {
        let (host, name, Parts(dir)) = (lab.gateway().clone(), lab.name().to_owned(), parts);
        let spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--"];
        let shared = dir.display().to_string();
        let words = ["sh", "-c", BOOT, "boot.sh", &name, &shared];
        let mut process = host.spawn(["unshare"].iter().chain(&spaces).chain(&words))?;
        let first = poll_until(BOOTS_WITHIN, "process 1 of the machine", || {
            let starter = process.id();
            let children = fs::read_to_string(format!("/proc/{starter}/task/{starter}/children"));
            let children = children.unwrap_or_default();
            let first = children.split_whitespace().next().and_then(|first| first.parse().ok());
            first.ok_or_else(|| process.stderr())
        })?;
        poll_until(BOOTS_WITHIN, "systemd to be up", || {
            if !process.is_running() {
                return Ok(Err(anyhow::anyhow!("it has ended: {}", process.stderr())));
            }
            // Before it has a root of its own, systemctl would ask this machine's systemd.
            let ask = "test -e /etc/balancer-machine && exec systemctl is-active multi-user.target";
            let asked = entered(&host, first, &["sh", "-c", ask]).map_err(|error| format!("{error:#}"))?;
            let console = fs::read_to_string(dir.join("console")).unwrap_or_default();
            if asked.stdout.trim() == "active" { Ok(Ok(())) } else { Err(format!("{asked:?} {console}")) }
        })??;
        Ok(Self { host, name, dir, first, process: Some(process) })
    }

    /// Runs `program argument…` in it to its end.
    ///
    /// # Errors
    /// When it can't be started or doesn't end; its own failure is in the answer.
    pub fn run(&self, words: &[&str]) -> Result<Said> {
        entered(&self.host, self.first, words)
    }

    /// As [`Machine::run`], and hands its stdout on.
    ///
    /// # Errors
    /// Also when it exits with anything but 0; with what systemd had to say.
    pub fn do_well(&self, words: &[&str]) -> Result<String> {
        let said = self.run(words)?;
        ensure!(said.code == Some(0), "{words:?}: {said:?}; systemd: {}", self.console());
        Ok(said.stdout)
    }

    /// A property of a unit, as systemd has it.
    ///
    /// # Errors
    /// When systemd doesn't answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.do_well(&["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(value.trim().to_owned())
    }

    /// A folder that it and those outside have in common, under the same path.
    #[must_use]
    pub fn shared(&self) -> &Path {
        &self.dir
    }

    /// What systemd said so far.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.dir.join("console")).unwrap_or_default()
    }
}

fn entered(host: &Host, first: u32, words: &[&str]) -> Result<Said> {
    let target = first.to_string();
    let spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd=/", "--"];
    let mut process = host.spawn(["nsenter", "--target", &target].iter().chain(&spaces).chain(words))?;
    let status = process.wait(PATIENCE)?;
    Ok(Said { code: status.code(), stdout: process.stdout(), stderr: process.stderr() })
}

impl Drop for Machine {
    /// Its processes end with it, its cgroups don't by themselves.
    fn drop(&mut self) {
        drop(self.process.take());
        let script = "mount -t cgroup2 cgroup2 /mnt && find \"/mnt/$1\" -depth -type d -exec rmdir {} +";
        let remove =
            || Command::new("unshare").args(["--mount", "sh", "-c", script, "sh", &self.name]).output();
        let _ = poll_until(Duration::from_secs(5), "its cgroups to be empty", || match remove() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        });
    }
}
