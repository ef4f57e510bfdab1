//! Shows a failover of real TLS traffic; `cargo xtask demo` builds and starts it. What it does is in `src/demo.rs`.

use std::{path::PathBuf, process::ExitCode};

use balancer_tests::demo::Demo;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Shows a failover of real TLS traffic in network namespaces; needs root")]
struct Arguments {
    /// The program to show
    #[arg(long, value_name = "PATH", default_value = "target/release/balancer")]
    balancer: PathBuf,
    /// Leave the lab up, and say how to look into it and how to end it
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let Arguments { balancer, keep } = Arguments::parse();
    match (Demo { balancer, is_kept: keep }).show() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
