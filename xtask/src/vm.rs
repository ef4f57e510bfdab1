//! Runs the packet path's tests on other kernels: Debian's, in virtual machines that QEMU emulates.
//!
//! What a verifier accepts and a helper does changes from kernel to kernel, and the kernel of the machine that tests is
//! only one of them. Each machine boots a file system in memory that holds little more than the test programs, runs
//! them, says on its console how they ended, and powers off.
//!
//! Deliberately absent: hardware virtualisation (guests hang where it is nested, and a few minutes of emulation do),
//! network, disks, and the labs' tests, which measure time.

mod console;
mod initramfs;
mod kernel;
mod library;
mod machine;
mod module;
mod newc;
mod sources;

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, bail};

use self::kernel::Kernel;
use crate::build;
use crate::run::{cargo, test_programs_of};
use crate::setup;
use crate::test::Tally;

/// The test programs that need nothing but a kernel.
const TESTS: [&str; 3] = ["loading", "packets", "flow_table"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels of Debian by their version, such as 6.1, 6.12 or 6.18; 7 is the newest 7.x. Each is fetched once, into
    /// target/vm: remove its folder there to fetch the newest again
    #[arg(default_values = ["6.1", "6.12"], value_parser = kernel::version)]
    kernels: Vec<String>,
}

pub(crate) fn vm(arguments: &Arguments) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the virtual machines are x86_64's, and so must be the programs that run in them");
    }
    setup::for_virtual_machines()?;
    // Before minutes are spent on building.
    let kernels = arguments.kernels.iter().map(|version| kernel::provide(version));
    let kernels: Vec<Kernel> = kernels.collect::<Result<_>>()?;
    let programs = test_programs()?;
    let mut tally = Tally::default();
    // A machine keeps one core busy.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for kernels in kernels.chunks(cores) {
        for of_one in side_by_side(kernels, &programs) {
            tally.add(&of_one);
        }
    }
    tally.conclude()
}

fn side_by_side(kernels: &[Kernel], programs: &[Program]) -> Vec<Tally> {
    thread::scope(|scope| {
        let run = |kernel| scope.spawn(move || run_on(kernel, programs));
        let running: Vec<_> = kernels.iter().map(run).collect();
        let broken = || Tally { broken: true, ..Tally::default() };
        running.into_iter().map(|machine| machine.join().unwrap_or_else(|_| broken())).collect()
    })
}

fn run_on(kernel: &Kernel, programs: &[Program]) -> Tally {
    let mut tally = Tally::default();
    let ran = initramfs::make(kernel, programs)
        .and_then(|initramfs| machine::run(kernel, &initramfs, programs, &mut tally));
    if let Err(error) = ran {
        println!("{}: {error:#}", kernel.version);
        tally.broken = true;
    }
    tally
}

/// A program that runs in the machine.
pub(crate) struct Program {
    name: &'static str,
    file: PathBuf,
}

fn test_programs() -> Result<Vec<Program>> {
    let object = build::object()?;
    let mut command = cargo();
    command.args(["test", "--release", "--package", "balancer-tests", "--no-run"]);
    command.args(TESTS.iter().flat_map(|test| ["--test", test]));
    command.env("BALANCER_BPF_OBJECT", object);
    let mut built = test_programs_of(&mut command)?;
    let mut program = |name| {
        let file = built.remove(name).with_context(|| format!("cargo named no program for --test {name}"))?;
        Ok(Program { name, file })
    };
    TESTS.into_iter().map(&mut program).collect()
}
