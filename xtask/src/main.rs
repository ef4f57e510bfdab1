//! `cargo xtask`: everything that is done with this project, on a fresh machine too.

mod bench;
mod build;
mod deb;
mod demo;
mod lint;
#[cfg(test)]
mod rooms;
mod run;
mod setup;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, tests and demonstrates balancer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building and testing need; every command is printed before it runs
    Setup(setup::Arguments),
    /// Build target/release/balancer with the BPF object embedded
    Build,
    /// Run every test; the last line is "N passed, N failed, N skipped"
    Test(test::Arguments),
    /// Do to the gateway under load what it has to live through, for half an hour; the last line is as for `test`
    Soak(soak::Arguments),
    /// Run the packet path's tests on other kernels, in virtual machines
    Vm(vm::Arguments),
    /// Show a failover of real TLS traffic in network namespaces
    Demo(demo::Arguments),
    /// Measure: how long a failover takes and what clients notice, what a packet costs, what a whole path gives
    Bench(bench::Arguments),
    /// Pack a Debian package into target/deb
    Deb,
    /// Check formatting and lints, of the host's side and of the BPF side
    Lint,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::setup(&arguments),
        Verb::Build => build::build().map(drop),
        Verb::Test(arguments) => test::test(&arguments),
        Verb::Soak(arguments) => soak::soak(&arguments),
        Verb::Vm(arguments) => vm::vm(&arguments),
        Verb::Demo(arguments) => demo::demo(&arguments),
        Verb::Bench(arguments) => bench::bench(&arguments),
        Verb::Deb => deb::deb(),
        Verb::Lint => lint::lint(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain in one line, without a backtrace: what went wrong is outside of this program.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
