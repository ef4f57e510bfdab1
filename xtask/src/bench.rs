//! Builds everything and starts a benchmark, which lives with the tests: it uses the same labs.

use anyhow::Result;

use crate::demo::build_with_labs;
use crate::run::{run, target};
use crate::setup::as_root;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// From the death or silence of the primary to the first connection on the backup
    Failover {
        /// How often each
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    let What::Failover { runs } = arguments.what;
    let built = build_with_labs()?;
    let bench = target().join("release/bench-failover").to_string_lossy().into_owned();
    let binary = built.binary.to_string_lossy().into_owned();
    run(&mut as_root(&[&bench, "--balancer", &binary, "--runs", &runs.to_string()]))
}
