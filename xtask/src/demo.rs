//! Builds everything and starts the demonstration, which lives with the tests: it uses the same labs.

use std::os::unix::process::CommandExt;

use anyhow::{Result, bail};

use crate::build::{Built, build_with_tests};
use crate::run::{find, target};
use crate::setup::{self, as_root, is_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave the lab up, and say how to look into it and how to end it
    #[arg(long)]
    keep: bool,
}

/// The binary under test, and the programs of the labs beside it.
pub(crate) fn build_with_labs() -> Result<Built> {
    // Before minutes are spent on building.
    if !is_root() && find("sudo").is_none() {
        bail!("network namespaces and XDP need root, and there is no sudo: run this as root");
    }
    setup::for_labs()?;
    build_with_tests()
}

pub(crate) fn demo(arguments: &Arguments) -> Result<()> {
    let built = build_with_labs()?;
    let binary = built.binary.to_string_lossy().into_owned();
    let demo = target().join("release/demo").to_string_lossy().into_owned();
    let mut words = Vec::new();
    // sudo gives the environment up; what says how to print must come through.
    let no_color = std::env::var("NO_COLOR").map(|value| format!("NO_COLOR={value}"));
    if let Ok(no_color) = &no_color {
        words.extend(["env", no_color]);
    }
    words.extend([demo.as_str(), "--balancer", &binary]);
    if arguments.keep {
        words.push("--keep");
    }
    let error = as_root(&words).exec();
    bail!("starting {demo}: {error}");
}
