//! Runs what CI runs in short, in full: the gateway is killed, reloaded, upgraded, stopped and has its interfaces taken away
//! under load, for about half an hour.

use anyhow::Result;

use crate::test::{Tally, in_labs};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what has this in its name
    filter: Option<String>,
}

pub(crate) fn soak(arguments: &Arguments) -> Result<()> {
    let mut command = in_labs()?;
    // One after the other: each of them is a load for the whole machine.
    command.env("BALANCER_SOAK", "full").env("RUST_TEST_THREADS", "1");
    let mut tally = Tally::default();
    tally.count(command.args(["--test", "soak", "--test", "quick"]).args(arguments.filter.as_slice()))?;
    tally.conclude()
}
