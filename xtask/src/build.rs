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

/// The product. Made of the same crates as in [`build_with_tests`], whose features tests ask for: what is tested and
/// measured is what is packed.
pub(crate) fn build() -> Result<Built> {
    build_targets(&["--bin", "balancer"])
}

/// The product with what its tests and labs need besides. By one command: of two cargo would build a third of the crates
/// twice.
pub(crate) fn build_with_tests() -> Result<Built> {
    build_targets(&["--bins"])
}

fn build_targets(targets: &[&str]) -> Result<Built> {
    let object = object()?;
    run(cargo()
        .args(["build", "--release", "--package", "balancer-user", "--package", "balancer-tests"])
        .args(targets)
        .env("BALANCER_BPF_OBJECT", &object))?;
    let binary = target().join("release/balancer");
    eprintln!("built {}", binary.display());
    Ok(Built { object, binary })
}

/// A program of the BPF side.
struct Object {
    /// Its binary in the package.
    name: &'static str,
    /// The variable that names one that was built elsewhere.
    variable: &'static str,
    /// What it is called below the target folder.
    file: &'static str,
}

/// What the product embeds.
const PRODUCT: Object =
    Object { name: "balancer-ebpf", variable: "BALANCER_BPF_OBJECT", file: "bpf/balancer.bpf.o" };

/// What measures it.
const BENCH: Object =
    Object { name: "balancer-bench", variable: "BALANCER_BENCH_OBJECT", file: "bpf/balancer-bench.bpf.o" };

/// What measures whole paths. Apart from the other: to load one of its small programs makes all maps of an object.
const PATH: Object =
    Object { name: "balancer-path", variable: "BALANCER_PATH_OBJECT", file: "bpf/balancer-path.bpf.o" };

/// The BPF object: named by `BALANCER_BPF_OBJECT`, else built.
pub(crate) fn object() -> Result<PathBuf> {
    PRODUCT.found_or_built()
}

/// The object with the programs that measure the packet path: named by `BALANCER_BENCH_OBJECT`, else built.
pub(crate) fn bench_object() -> Result<PathBuf> {
    BENCH.found_or_built()
}

/// The object with the programs that measure whole paths: named by `BALANCER_PATH_OBJECT`, else built.
pub(crate) fn path_object() -> Result<PathBuf> {
    PATH.found_or_built()
}

impl Object {
    fn found_or_built(&self) -> Result<PathBuf> {
        if let Some(object) = std::env::var_os(self.variable) {
            let object = PathBuf::from(object);
            return object
                .canonicalize()
                .with_context(|| format!("{}={}: no such file", self.variable, object.display()));
        }
        setup::for_building()?;
        run(bpf_cargo("build")?.args(["--bin", self.name, "--target-dir"]).arg(target().join("bpf")))?;
        // Copied only when it changed, so that cargo embeds it anew only then.
        let made = target().join(format!("bpf/{}/bpf/{}", bpf_target(), self.name));
        let object = target().join(self.file);
        let new = std::fs::read(&made).with_context(|| format!("reading {}", made.display()))?;
        if std::fs::read(&object).ok().as_ref() != Some(&new) {
            std::fs::write(&object, new).with_context(|| format!("writing {}", object.display()))?;
        }
        Ok(object)
    }
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
        // All jumps (kernel 4.14); not the 32-bit arithmetic of v3, with which functions need more of the stack than older
        // kernels allow.
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
