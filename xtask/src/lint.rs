//! Formatting and lints: warnings are errors, on both sides of the kernel boundary.

use anyhow::Result;

use crate::build::bpf_cargo;
use crate::run::{cargo, run, target};
use crate::setup;

pub(crate) fn lint() -> Result<()> {
    setup::for_building()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--exclude",
        "balancer-ebpf",
        "--all-targets",
        "--all-features",
        "--",
        "-Dwarnings",
    ]))?;
    // By itself, without what tests ask shared crates for.
    run(cargo().args(["check", "--package", "balancer-user"]))?;
    // Clippy's driver is tied to its toolchain, which may lack core's sources: the BPF side's lines are checked for the
    // host's target. A target folder of its own, or the other flags would rebuild everything each time.
    run(cargo()
        .args(["clippy", "--package", "balancer-ebpf", "--target-dir"])
        .arg(target().join("bpf-lint"))
        .args(["--", "-Dwarnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cpanic=abort"))?;
    let mut check = bpf_cargo("check")?;
    check.arg("--target-dir").arg(target().join("bpf"));
    let flags = check
        .get_envs()
        .find_map(|(name, value)| (name == "CARGO_ENCODED_RUSTFLAGS").then_some(value?))
        .unwrap_or_default()
        .to_owned();
    let mut strict = flags;
    strict.push("\x1f-Dwarnings");
    run(check.env("CARGO_ENCODED_RUSTFLAGS", strict))
}
