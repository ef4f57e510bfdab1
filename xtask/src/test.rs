//! Runs every test: those of what both sides share, then all others, of which most need root and a kernel.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{bench_object, build_with_tests};
use crate::deb;
use crate::run::{cargo, target};
use crate::setup::{self, is_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// What a test runner's closing lines add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Something ended without saying how many tests it ran.
    pub(crate) broken: bool,
}

pub(crate) fn test(arguments: &Arguments) -> Result<()> {
    let mut rest = in_labs()?;
    let mut tally = Tally::default();
    let filter = arguments.filter.as_slice();
    // Apart: what it is tested with asks shared crates for other features.
    let mut common = cargo();
    common.args(["test", "--no-fail-fast", "--release", "--package", "balancer-common"]).args(filter);
    tally.count(&mut common)?;
    tally.count(rest.args(["--package", "balancer-user", "--package", "xtask"]).args(filter))?;
    tally.conclude()
}

/// The command for tests that need root and a kernel, with everything built that they need.
pub(crate) fn in_labs() -> Result<Command> {
    if !is_root() {
        bail!("the tests in namespaces need root: run `cargo xtask` as root");
    }
    setup::for_tests()?;
    let built = build_with_tests()?;
    let bench_object = bench_object()?;
    setup::for_packaging()?;
    let package = deb::package(&built.binary, &target().join("deb"))?;
    let mut command = cargo();
    command
        .args(["test", "--no-fail-fast", "--release", "--package", "balancer-tests"])
        .env("BALANCER_BPF_OBJECT", &built.object)
        .env("BALANCER_BENCH_OBJECT", bench_object)
        .env("BALANCER_BINARY", &built.binary)
        .env("BALANCER_PACKAGE", package)
        .env("BALANCER_PROMTOOL", setup::promtool().context("promtool was there a moment ago")?)
        // Each lab has its own namespaces, so tests run side by side; two at a time, as a lab keeps a core busy.
        .env("RUST_TEST_THREADS", "2");
    Ok(command)
}

impl Tally {
    /// Runs `cargo test`, shows what it prints, and adds up its result lines.
    pub(crate) fn count(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo test")?;
        let output = child.stdout.take().context("cargo test has an output")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            self.read(&line);
        }
        // A test program that doesn't build, crashes or is killed prints no result line.
        self.broken |= !child.wait()?.success();
        Ok(())
    }

    /// Adds a result line up; `false`: the line is none.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let Some(result) = line.strip_prefix("test result: ") else { return false };
        self.passed += number_before(result, " passed");
        self.failed += number_before(result, " failed");
        self.skipped += number_before(result, " ignored");
        true
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
    }

    /// The last line, and whether all is well.
    pub(crate) fn conclude(&self) -> Result<()> {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.broken || self.failed > 0 {
            bail!("not everything passed");
        }
        Ok(())
    }
}

fn number_before(line: &str, word: &str) -> u64 {
    line.split(word)
        .next()
        .and_then(|head| head.rsplit(|letter: char| !letter.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn a_result_line_is_understood() {
        let line = "FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.23s";
        assert_eq!(number_before(line, " passed"), 12);
        assert_eq!(number_before(line, " failed"), 3);
        assert_eq!(number_before(line, " ignored"), 1);
    }
}
