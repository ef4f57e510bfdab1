//! What clients notice when the primary fails: of its death, of its silence, and of the end of their idle connections.
//!
//! New TLS connections at a steady rate, by clients that know nothing of any of it, to two servers behind balancer, nginx
//! or HAProxy, one after the other and round after round, each in a lab of its own. What each connection took is told by its
//! client; who was affected by a death is told by who stands between (see `turn.rs`). Deliberately not here: what a path
//! gives when nothing fails, which is `path/`.

mod idle;
mod plan;
mod report;
mod subject;
mod turn;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{account::Account, peers::Peers, site::Programs};
use plan::Plan;
use report::Report;
use subject::{Failure, Subject};
use turn::Turn;

/// What a document says before the report.
pub const PREFACE: &str = include_str!("retry_bench/preface.md");

/// What to measure, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of a site.
    pub programs: Programs,
    /// Beside whom.
    pub peers: Peers,
    /// The file of the raw output.
    pub raw: PathBuf,
    /// As little as shows that everything works, and no judgement.
    pub quick: bool,
    /// How often; `None`: as often as is usual.
    pub rounds: Option<u32>,
    /// Only subjects whose name contains this.
    pub only: Option<String>,
}

impl Options {
    fn has(&self, subject: &str) -> bool {
        self.only.as_ref().is_none_or(|only| subject.contains(only))
    }
}

/// The report in Markdown, and whether everything is as promised; it always is when nothing is judged.
///
/// # Errors
/// When something can't be started, or nothing comes through it.
pub fn run(options: &Options) -> Result<(String, bool)> {
    let plan = if options.quick { Plan::QUICK } else { Plan::USUAL };
    let plan = Plan { rounds: options.rounds.unwrap_or(plan.rounds), ..plan };
    let mut measured = Measured { accounts: Vec::new(), idle_ms: Vec::new() };
    let mut raw = Raw::create(&options.raw)?;
    for round in 0..plan.rounds {
        let started = Instant::now();
        for failure in [Failure::Killed, Failure::Silenced] {
            let subjects = failure.subjects();
            for offset in 0..subjects.len() {
                // Another one first in each round: nobody always follows the same one.
                let subject = subjects[(offset + round as usize) % subjects.len()];
                if !options.has(&subject.name()) {
                    continue;
                }
                let told = Turn::start(subject, failure, options)
                    .and_then(|turn| turn.run(&plan))
                    .with_context(|| format!("measure {}, {}", subject.name(), failure.title()))?;
                raw.keep(round, failure.title(), &subject.name(), &told.raw)?;
                measured.accounts.push((failure, subject, told.account));
            }
        }
        if options.has(idle::NAME) {
            let told =
                idle::measure(&options.programs, plan.idle_flows).context("measure idle connections")?;
            raw.keep(round, "primary silenced", idle::NAME, &told.raw)?;
            measured.idle_ms.push(told.took_ms);
        }
        eprintln!("round {} of {}: {:.0} s", round + 1, plan.rounds, started.elapsed().as_secs_f64());
    }
    let report = Report::of(&measured);
    let text = report.text(&plan, &options.programs.balancer, &options.peers);
    Ok((text, options.quick || report.missed().is_empty()))
}

/// All turns of all rounds.
struct Measured {
    accounts: Vec<(Failure, Subject, Account)>,
    /// From the decision to the last client's RST.
    idle_ms: Vec<f64>,
}

/// A line of JSON for each turn.
struct Raw(File);

impl Raw {
    fn create(file: &Path) -> Result<Self> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        File::create(file).map(Self).with_context(|| format!("create {}", file.display()))
    }

    fn keep(&mut self, round: u32, what: &str, subject: &str, told: &Value) -> Result<()> {
        let line = json!({"round": round, "what": what, "subject": subject, "told": told});
        writeln!(self.0, "{line}").context("write the raw output")
    }
}
