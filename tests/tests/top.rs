//! `balancer top` in a real pseudo-terminal, which `script` (util-linux) makes: what it shows, what a key does once it is
//! confirmed, and that the terminal is as before afterwards.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Process, Topology},
    poll::poll_until,
    site::{Options, Programs, Site},
};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, Signal, kill_process},
};

/// What puts a terminal back: its first screen, and its cursor.
const PUT_BACK: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

/// A running `top`, with somebody at the keys.
struct Top {
    process: Process,
    keys: File,
    pid_file: PathBuf,
}

impl Top {
    fn start(site: &Site, name: &str) -> Result<Self> {
        let (fifo, pid_file) =
            (site.lab().dir().join(format!("{name}.keys")), site.lab().dir().join(format!("{name}.pid")));
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        let words: Vec<String> =
            site.gateway.words(&["top"]).iter().map(|word| format!("'{word}'")).collect();
        let (pid, fifo_name) = (pid_file.display(), fifo.display());
        let inner = format!("stty rows 24 cols 110; echo $$ > {pid}; exec {}", words.join(" "));
        let outer = "exec script -qefc \"$1\" /dev/null < \"$2\"";
        let command =
            ["env", "TERM=xterm", "SHELL=/bin/sh", "sh", "-c", outer, "sh", &inner, &fifo_name.to_string()];
        let process = site.lab().gateway().spawn(command)?;
        // Waits until it is opened for reading.
        let keys = OpenOptions::new().write(true).open(&fifo)?;
        Ok(Self { process, keys, pid_file })
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).context("press keys")
    }

    /// What was drawn so far, one behind the other: where the cursor was moved there is a space.
    fn drawn(&self) -> String {
        let raw = self.process.stdout();
        let mut text = String::new();
        let mut rest = raw.as_str();
        while let Some(at) = rest.find("\x1b[") {
            text.push_str(&rest[..at]);
            let sequence = &rest[at + 2..];
            // The last one may be half written.
            let Some(end) = sequence.find(|c: char| c.is_ascii_alphabetic()) else { return text };
            if sequence.as_bytes().get(end) == Some(&b'H') {
                text.push(' ');
            }
            rest = &sequence[end + 1..];
        }
        text + rest
    }

    fn wait_for(&self, what: &str) -> Result<()> {
        poll_until(PATIENCE, what, || {
            let drawn = self.drawn();
            if drawn.contains(what) { Ok(()) } else { Err(drawn) }
        })
    }

    /// It has ended, well, and has put the terminal back.
    fn expect_end(mut self) -> Result<()> {
        let status = self.process.wait(PATIENCE)?;
        let raw = self.process.stdout();
        ensure!(status.success(), "{status}: {raw:?}");
        let last = raw.rfind("passwords").context("something was drawn")?;
        ensure!(PUT_BACK.iter().all(|code| raw[last..].contains(code)), "not put back: {:?}", &raw[last..]);
        Ok(())
    }
}

#[test]
fn it_shows_who_serves_and_fails_over_once_that_is_confirmed() -> Result<()> {
    let mut site = site("top")?;
    let mut top = Top::start(&site, "keys")?;
    top.wait_for("passwords serving on server1")?;
    top.wait_for("● server1")?;
    top.press("f")?;
    top.wait_for("balancer failover passwords?")?;
    top.press("n")?;
    top.press("f")?;
    top.press("y")?;
    site.gateway.wait_until("the pool to be on server2", |status| status.active() == "server2")?;
    ensure!(site.gateway.logged("transition").len() == 2, "the one that was not confirmed moved nothing");
    site.gateway.kill();
    top.wait_for("NO DAEMON: this is from the pinned maps")?;
    site.gateway.start(&[])?;
    top.press("q")?;
    top.expect_end()
}

#[test]
fn a_signal_puts_the_terminal_back() -> Result<()> {
    let site = site("top_signal")?;
    for (name, signal) in [("term", Signal::TERM), ("hup", Signal::HUP)] {
        let top = Top::start(&site, name)?;
        top.wait_for("passwords serving on server1")?;
        let pid: i32 = fs::read_to_string(&top.pid_file)?.trim().parse()?;
        kill_process(Pid::from_raw(pid).context("a process id")?, signal)?;
        top.expect_end()?;
    }
    Ok(())
}

#[test]
fn without_a_terminal_it_refuses_and_says_what_works() -> Result<()> {
    let site = site("top_none")?;
    let said = site.gateway.verb(&["top"])?.expect(2)?;
    ensure!(said.stdout.is_empty() && said.stderr.contains("balancer status --watch"), "{said:?}");
    Ok(())
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), Options::default(), &programs)
}
