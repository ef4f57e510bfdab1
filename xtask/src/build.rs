//! Builds the BPF object and the binary that embeds it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cargo, root, run, target};
use crate::setup;

/// What a build leaves behind.
pub(crate) struct Built {
    /// The BPF object.
    pub(crate) object: PathBuf,
    /// The `balancer` binary.
    pub(crate) binary: PathBuf,
}

pub(crate) fn build() -> Result<Built> {
    let object = object()?;
    run(cargo()
        .args(["build", "--release", "--package", "balancer-user"])
        .env("BALANCER_BPF_OBJECT", &object))?;
    let binary = target().join("release/balancer");
    eprintln!("built {}", binary.display());
    Ok(Built { object, binary })
}

/// The BPF object: named by `BALANCER_BPF_OBJECT`, else built.
pub(crate) fn object() -> Result<PathBuf> {
    if let Some(object) = std::env::var_os("BALANCER_BPF_OBJECT") {
        let object = PathBuf::from(object);
        return object
            .canonicalize()
            .with_context(|| format!("BALANCER_BPF_OBJECT={}: no such file", object.display()));
    }
    setup::for_building()?;
    run(bpf_cargo("build")?.args(["--target-dir"]).arg(target().join("bpf")))?;
    // Copied only when it changed, so that cargo embeds it anew only then.
    let made = target().join(format!("bpf/{}/bpf/balancer-ebpf", bpf_target()));
    let object = target().join("bpf/balancer.bpf.o");
    let new = std::fs::read(&made).with_context(|| format!("reading {}", made.display()))?;
    if std::fs::read(&object).ok().as_ref() != Some(&new) {
        std::fs::write(&object, new).with_context(|| format!("writing {}", object.display()))?;
    }
    Ok(object)
}

/// `cargo VERB` for the BPF side: another rustc, another target, core from source, linked by bpf-linker.
pub(crate) fn bpf_cargo(verb: &str) -> Result<Command> {
    let compiler = setup::compiler()?;
    // bpf-linker takes the first libLLVM* that it meets, and a system may have four of them side by side.
    let only_llvm = target().join("bpf-llvm");
    std::fs::create_dir_all(&only_llvm)?;
    let link = only_llvm.join("libLLVM.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&compiler.llvm, &link).context("linking to LLVM")?;
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // All jumps (kernel 4.14); not the 32-bit arithmetic of v3, with which pointers into packets become numbers.
        "-Ctarget-cpu=v2".to_owned(),
        format!("-Clinker={}", setup::linker().display()),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        // Paths of the machine stay out of the object's debug information.
        format!("--remap-path-prefix={}=.", root().display()),
    ];
    let mut command = cargo();
    command
        .args([verb, "--profile", "bpf", "--package", "balancer-ebpf", "--target", bpf_target()])
        .args(["-Zbuild-std=core"])
        .env("RUSTC", &compiler.rustc)
        // aya-ebpf and build-std need unstable features of whatever rustc this is.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("LD_LIBRARY_PATH", only_llvm)
        .env_remove("RUSTFLAGS");
    Ok(command)
}

fn bpf_target() -> &'static str {
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" }
}
