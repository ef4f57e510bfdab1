//! The rounds: each subject in turn, in every round, so that what changes on the machine meanwhile meets all alike.

use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::plain::Busy;

use super::{
    cables::Cables,
    metric::Metric,
    samples::{Attempts, BUSY_MAX, Samples},
    stand::Stand,
    subject::Subject,
    turn::Turn,
};

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often each subject has its turn.
    pub rounds: u32,
    /// For each value.
    pub window: Duration,
}

/// Carries the plan out; each report of each client goes to `raw`, as a line of JSON.
///
/// # Errors
/// When a subject can't be started, or nothing comes through it.
pub fn measure(stand: &Stand, plan: Plan, raw: &mut File) -> Result<Samples> {
    let mut run = Run { stand, plan, raw, samples: Samples::default(), busy_meanwhile: 0.0 };
    for round in 0..plan.rounds {
        let started = Instant::now();
        for offset in 0..Subject::ALL.len() {
            // Another one first in each round: nobody always follows the same one.
            let subject = Subject::ALL[(offset + round as usize) % Subject::ALL.len()];
            let turn = Turn::start(stand, subject)?;
            run.turn(round, subject).with_context(|| format!("measure {}", subject.name()))?;
            turn.end().with_context(|| format!("end {}", subject.name()))?;
        }
        eprintln!("round {} of {}: {:.0} s", round + 1, plan.rounds, started.elapsed().as_secs_f64());
    }
    Ok(run.samples)
}

struct Run<'a> {
    stand: &'a Stand,
    plan: Plan,
    raw: &'a mut File,
    samples: Samples,
    /// CPU seconds a second that the machine spends when nothing is measured.
    busy_meanwhile: f64,
}

impl Run<'_> {
    fn turn(&mut self, round: u32, subject: Subject) -> Result<()> {
        self.busy_meanwhile = Busy::meanwhile(self.plan.window / 2)?;
        self.samples.add_busy_meanwhile(subject, self.busy_meanwhile);
        if subject.takes_connections() {
            self.connections(round, subject)?;
            self.conversation(round, subject)?;
            self.bulk(round, subject, Cables::Wire, 1)?;
            self.bulk(round, subject, Cables::Wire, 4)?;
        }
        if subject.forwards_frames() {
            // Merged or not, a bare ACK stays alone, and with GRO the gateway of each subject polls in batches.
            Cables::Merging.set(self.stand.lab())?;
            let frames = self.stand.frames(subject, self.plan.window)?;
            self.keep(round, subject, "frames", &json!({"frames_per_second": frames}))?;
            ensure!(frames > 0.0, "no frame came through");
            self.samples.add(Metric::Frames, subject, frames / 1e3);
        }
        if subject.takes_connections() {
            self.bulk(round, subject, Cables::Merging, 1)?;
            self.bulk(round, subject, Cables::Whole, 1)?;
        }
        Cables::Wire.set(self.stand.lab())
    }

    fn connections(&mut self, round: u32, subject: Subject) -> Result<()> {
        for (parallel, metric) in [("1", Metric::OneByOne), ("64", Metric::Parallel)] {
            let told = self.client(round, subject, &["connections", "--parallel", parallel])?;
            let (ok, failed) = (number(&told["ok"])?, number(&told["failed"])?);
            self.samples.count(subject, Attempts { ok: ok as u64, failed: failed as u64 });
            if failed > 0.0 {
                self.samples.note(format!("{}, {parallel} at a time: {}", subject.name(), told["errors"]));
            }
            ensure!(ok > 0.0, "no connection was answered: {told}");
            self.samples.add(metric, subject, ok / number(&told["seconds"])?);
            if parallel == "1" {
                for (metric, value) in [
                    (Metric::ConnectP50, &told["connect_us"]["p50"]),
                    (Metric::ConnectP99, &told["connect_us"]["p99"]),
                    (Metric::AnswerP50, &told["answer_us"]["p50"]),
                    (Metric::AnswerP99, &told["answer_us"]["p99"]),
                ] {
                    self.samples.add(metric, subject, number(value)?);
                }
            } else {
                self.cpu(Metric::CpuPerConnection, subject, &told, 1e6 / ok)?;
            }
        }
        Ok(())
    }

    fn conversation(&mut self, round: u32, subject: Subject) -> Result<()> {
        let told = self.client(round, subject, &["conversation"])?;
        for (metric, value) in [
            (Metric::RoundTripP50, &told["round_trip_us"]["p50"]),
            (Metric::RoundTripP99, &told["round_trip_us"]["p99"]),
        ] {
            self.samples.add(metric, subject, number(value)?);
        }
        Ok(())
    }

    fn bulk(&mut self, round: u32, subject: Subject, cables: Cables, streams: u8) -> Result<()> {
        let metric = match (cables, streams) {
            (Cables::Wire, 1) => Metric::Bulk,
            (Cables::Wire, _) => Metric::BulkOfFour,
            (Cables::Merging, _) => Metric::BulkMerged,
            (Cables::Whole, _) => Metric::BulkWhole,
        };
        cables.set(self.stand.lab())?;
        let told = self.client(round, subject, &["streams", "--streams", &streams.to_string()]);
        let told = match told {
            // Known and said in the README: a checksum that is left to hardware is wrong once it was rewritten.
            Err(error) if cables == Cables::Whole && subject == Subject::Balancer => {
                self.keep(round, subject, "64 KiB packets", &json!(format!("{error:#}")))?;
                self.samples.note(
                    "balancer, 64 KiB packets: no connection. Hosts that send them leave the checksums to hardware, \
                     and on virtual cables there is none (`partial_checksum` in `balancer stats`; `ethtool -K … tx off` \
                     mends it)"
                        .to_owned(),
                );
                return Ok(());
            }
            told => told?,
        };
        let (bytes, seconds) = (number(&told["bytes"])?, number(&told["seconds"])?);
        self.samples.add(metric, subject, bytes * 8.0 / seconds / 1e9);
        if metric == Metric::Bulk {
            self.cpu(Metric::CpuPerGigabyte, subject, &told, 1e3 / (bytes / 1e9))?;
        }
        Ok(())
    }

    /// CPU seconds of a client's window without those that the machine spends anyway, times `factor`.
    fn cpu(&mut self, metric: Metric, subject: Subject, told: &Value, factor: f64) -> Result<()> {
        if self.busy_meanwhile > BUSY_MAX {
            return Ok(());
        }
        let (seconds, busy) = (number(&told["seconds"])?, number(&told["busy_seconds"])?);
        self.samples.add(metric, subject, (busy - self.busy_meanwhile * seconds).max(0.0) * factor);
        Ok(())
    }

    fn client(&mut self, round: u32, subject: Subject, words: &[&str]) -> Result<Value> {
        let told = self.stand.client(words, subject.target(self.stand.lab()), self.plan.window)?;
        self.keep(round, subject, &words.join(" "), &told)?;
        Ok(told)
    }

    fn keep(&mut self, round: u32, subject: Subject, what: &str, told: &Value) -> Result<()> {
        let line = json!({
            "round": round,
            "subject": subject.name(),
            "what": what,
            "busy_meanwhile": self.busy_meanwhile,
            "told": told,
        });
        writeln!(self.raw, "{line}").context("write the raw output")
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} instead of a number"))
}
