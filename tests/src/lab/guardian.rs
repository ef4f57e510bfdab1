//! The process that outlives a lab's owner and cleans up after it, however it dies.
//!
//! It is a shell script in a session of its own, so neither a terminal's Ctrl-C nor `kill -- -pgrp` reaches it. Its
//! stdin is a pipe of which only the owner holds the other end (close-on-exec): a word on it, or its end, is all it
//! waits for. The same script ends a kept lab and the leftovers of dead ones, so there is one way to end a lab.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::name::LabName;

pub(super) const SCRIPT: &str = include_str!("guardian.sh");

/// What there is to remove; made from the name alone, so that a sweep knows it too.
#[derive(Debug)]
pub(super) struct Belongings {
    pub(super) name: LabName,
    pub(super) dir: PathBuf,
    pub(super) pin_dir: PathBuf,
}

impl Belongings {
    pub(super) fn of(name: LabName) -> Self {
        // Below /run and not /tmp: the product refuses directories that others may write to.
        let dir = Path::new("/run").join(name.as_str());
        let pin_dir = Path::new("/sys/fs/bpf").join(name.as_str());
        Self { name, dir, pin_dir }
    }

    /// Ends the lab in the foreground.
    pub(super) fn end(&self) -> Result<()> {
        let status = self
            .script("end", Command::new("sh"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("start sh to end a lab")?;
        ensure!(status.success(), "ending lab {} failed ({status}), see above", self.name);
        Ok(())
    }

    fn script(&self, verb: &str, mut sh: Command) -> Command {
        sh.args(["-c", SCRIPT, "lab-guardian", verb, self.name.as_str()]).arg(&self.dir).arg(&self.pin_dir);
        sh
    }
}

#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
}

impl Guardian {
    /// Returns when the guardian is deaf to signals and waits: from then on nothing can be left behind.
    pub(super) fn watch_over(belongings: &Belongings) -> Result<Self> {
        let mut setsid = Command::new("setsid");
        setsid.arg("sh");
        let mut process = belongings
            .script("guard", setsid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start setsid (util-linux) for the lab's guardian")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("guardian's stdout")?;
        BufReader::new(stdout).read_line(&mut line).context("read the guardian's first line")?;
        ensure!(line.trim() == "armed", "the lab's guardian did not start; it said {line:?}");
        Ok(Self { process })
    }

    /// Lets the guardian end the lab, and waits until it has.
    pub(super) fn end(&mut self) -> Result<()> {
        self.tell("end")
    }

    /// Lets the guardian go without ending the lab.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.tell("keep")
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        let Some(mut pipe) = self.process.stdin.take() else { return Ok(()) };
        writeln!(pipe, "{word}").context("write to the lab's guardian")?;
        drop(pipe);
        let status = self.process.wait().context("wait for the lab's guardian")?;
        ensure!(status.success(), "the lab's guardian failed ({status}), see its messages above");
        Ok(())
    }
}
