//! The demo: a failover of real TLS traffic that a person can watch, and a program can trust.
//!
//! It needs nothing but root and the binaries: lab, certificates and configuration are made on the spot. What it tells
//! comes from the daemon's log and from the clients, and each step is waited for, so that it ends well only if all of
//! it happened. The lab's guardian leaves nothing behind, however the demo ends; so there are no signal handlers here.

mod account;
mod attempt;
mod kept;
mod log;
mod page;
mod site;
mod steps;
mod timeline;

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;

use page::{Page, Tone};
use site::{FIRST, SECOND, SERVICES, Site};
use timeline::Timeline;

/// What to show, and how.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The program to show.
    pub balancer: PathBuf,
    /// Leave the lab up in the end, or when a step fails.
    pub is_kept: bool,
}

impl Demo {
    /// Shows it all on stdout; when a step fails, the end of the daemon's log goes to stderr.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn show(&self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the demo needs root: it makes network namespaces and loads XDP programs. Run `cargo xtask demo` where \
             there is sudo, or as root"
        );
        let balancer = self.balancer.canonicalize();
        let balancer = balancer
            .with_context(|| format!("--balancer {}: run `cargo xtask build`", self.balancer.display()))?;
        let lab_host = lab_host()?;
        let page = Page::open();
        page.text(Tone::Title, "balancer: a failover of real TLS traffic, in network namespaces of its own")?;
        for lab in Lab::sweep_leftovers()? {
            page.text(Tone::Plain, &format!("removed what an earlier lab had left behind: {lab}"))?;
        }
        let site = Site::build(&balancer, &lab_host).context("build the lab")?;
        page.text(Tone::Plain, "\n")?;
        introduce(&page, site.lab())?;

        let mut timeline = Timeline::new(page, site);
        let played = steps::play(&mut timeline);
        if played.is_err() {
            complain(&timeline.log_tail());
        }
        let Timeline { page, site, .. } = timeline;
        if self.is_kept {
            site.keep()?.tell(&page)?;
        } else {
            site.end()?;
        }
        played?;
        kept::tell_next(&balancer, &page)
    }
}

/// The end of the daemon's log, if it has said anything.
fn complain(log_tail: &[String]) {
    if !log_tail.is_empty() {
        eprintln!("\nThe end of the daemon's log:");
    }
    log_tail.iter().for_each(|line| eprintln!("  {line}"));
}

/// The servers' and clients' program, built with this one.
fn lab_host() -> Result<PathBuf> {
    let file = env::current_exe().context("where this program is")?.with_file_name("lab-host");
    ensure!(
        file.is_file(),
        "{} is missing: run `cargo build --package balancer-tests --bins`",
        file.display()
    );
    Ok(file)
}

/// A picture of the lab, and what is going to happen.
fn introduce(page: &Page, lab: &Lab) -> Result<()> {
    let (client, vip) = (lab.client().address(), lab.vip());
    let [first, second] = [0, 1].map(|index| lab.backend(index).address());
    let trunk = format!("  client {client} ───── wan0 [ gateway ] lan0 ─────");
    let indent = |columns: usize| " ".repeat(columns);
    let branch = indent(trunk.chars().count());
    let below_gateway = indent(trunk.find("wan0").map_or(0, |at| trunk[..at].chars().count()));
    page.text(Tone::Plain, &format!("{trunk}┬─── {FIRST} {first}, first in order"))?;
    page.text(Tone::Plain, &format!("{branch}└─── {SECOND} {second}, next in order"))?;
    page.text(Tone::Plain, &format!("{below_gateway}VIP {vip}"))?;
    for (name, port, backend_port) in SERVICES {
        let from = format!("{vip}:{port}");
        page.text(
            Tone::Plain,
            &format!("{below_gateway}{from:<18} -> port {backend_port:<5} of the servers ({name})"),
        )?;
    }
    page.text(Tone::Title, "\nWhat happens, under traffic all the time:")?;
    for (number, title) in (1..).zip(steps::TITLES) {
        page.text(Tone::Plain, &format!("  {number}. {title}"))?;
    }
    Ok(())
}
