//! Finds or installs what the project needs on a machine: a compiler for BPF with core's sources, bpf-linker, and the
//! tools of the tests.
//!
//! Nothing here is needed for `cargo build` of the host's side. What is installed goes through the machine's ordinary
//! clients (rustup, cargo, apt-get); bpf-linker goes into a private root under the target folder, not over the user's.

mod peers;
mod promtool;
mod unpack;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{ask, cargo, find, run, target};

pub(crate) use peers::{Peers, peers};
pub(crate) use promtool::promtool;

/// The newest that borrows rustc's own LLVM; later ones want an LLVM 23 of their own.
const BPF_LINKER: &str = "0.10.1";

/// A program, and Debian's package that has it.
type Tool = (&'static str, &'static str);

/// What a lab is made of, the demo's too, and Debian's packages that have it.
const LAB_TOOLS: [Tool; 6] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
    ("openssl", "openssl"),
];

/// What the tests use besides.
const TEST_TOOLS: [Tool; 11] = [
    ("bpftool", "bpftool"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("prlimit", "util-linux"),
    ("groupadd", "passwd"),
    ("systemd-analyze", "systemd"),
    ("keepalived", "keepalived"),
    ("psql", "postgresql-client"),
    ("pg_createcluster", "postgresql"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// What packs a package.
const PACKING_TOOLS: [Tool; 4] =
    [("dpkg", "dpkg"), ("dpkg-deb", "dpkg"), ("gzip", "gzip"), ("date", "coreutils")];

/// What a virtual machine is made of: the emulator, what unpacks a kernel, and what goes into its file system.
const VM_TOOLS: [Tool; 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("ldd", "libc-bin"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Go ahead without asking (also with CI=true)
    #[arg(short, long)]
    yes: bool,
    /// Only report what is there and what is missing; exit 1 if something is missing
    #[arg(long)]
    check: bool,
}

/// A rustc that compiles for BPF, and the LLVM that it uses: bpf-linker must read its bitcode with the same one.
pub(crate) struct BpfCompiler {
    pub(crate) rustc: PathBuf,
    pub(crate) llvm: PathBuf,
}

pub(crate) fn setup(arguments: &Arguments) -> Result<()> {
    provide(&[COMPILER, LINKER, LABS, TESTS, PROMTOOL, PACKING], arguments)
}

fn provide(needs: &[Need], arguments: &Arguments) -> Result<()> {
    // A compiler that was named and isn't one is a mistake to be told, not something to be installed.
    if std::env::var_os("BALANCER_BPF_RUSTC").is_some() {
        compiler()?;
    }
    let mut missing = false;
    for need in needs {
        match (need.found)() {
            Some(found) => eprintln!("found    {}: {found}", need.what),
            None if arguments.check => {
                missing = true;
                eprintln!("missing  {}: `cargo xtask setup` would {}", need.what, need.plan);
            }
            None => {
                eprintln!("missing  {}", need.what);
                install(need, arguments)?;
            }
        }
    }
    if missing {
        bail!("something is missing: run `cargo xtask setup`");
    }
    Ok(())
}

/// What building the BPF object needs, found or installed.
pub(crate) fn for_building() -> Result<()> {
    provide(&[COMPILER, LINKER], &Arguments { yes: false, check: false })
}

/// What demo and benchmarks need besides, found or installed.
pub(crate) fn for_labs() -> Result<()> {
    provide(&[LABS], &Arguments { yes: false, check: false })
}

/// What tests need besides, found or installed.
pub(crate) fn for_tests() -> Result<()> {
    provide(&[LABS, TESTS, PROMTOOL], &Arguments { yes: false, check: false })
}

/// What packing needs besides, found or installed.
pub(crate) fn for_packaging() -> Result<()> {
    provide(&[PACKING], &Arguments { yes: false, check: false })
}

/// What the virtual machines need besides, found or installed.
pub(crate) fn for_virtual_machines() -> Result<()> {
    provide(&[VIRTUAL_MACHINES], &Arguments { yes: false, check: false })
}

/// What `bench path` needs besides, found or installed.
pub(crate) fn for_peers() -> Result<Peers> {
    provide(&[PEERS], &Arguments { yes: false, check: false })?;
    peers().context("nginx and HAProxy were there a moment ago")
}

struct Need {
    what: &'static str,
    plan: &'static str,
    found: fn() -> Option<String>,
    install: fn() -> Result<()>,
}

const COMPILER: Need = Need {
    what: "BPF compiler (rustc with the sources of core)",
    plan: "try `rustup component add rust-src`, then Debian's rustc-web and rust-web-src",
    found: || compiler().ok().map(|compiler| compiler.rustc.display().to_string()),
    install: install_compiler,
};

const LINKER: Need = Need {
    what: "bpf-linker",
    plan: "install it with cargo into target/tools",
    found: || linker_version().map(|version| format!("{version} in {}", linker().display())),
    install: install_linker,
};

const LABS: Need = Need {
    what: "tools of the labs (ip, ethtool, nft, nsenter, curl, openssl)",
    plan: "install their Debian packages",
    found: || missing(&LAB_TOOLS).is_empty().then(|| "all of them".to_owned()),
    install: || install_tools("labs", &LAB_TOOLS),
};

const TESTS: Need = Need {
    what: "tools of the tests (bpftool, util-linux, systemd, keepalived, PostgreSQL, Chromium)",
    plan: "install their Debian packages",
    found: || missing(&TEST_TOOLS).is_empty().then(|| "all of them".to_owned()),
    install: || install_tools("tests", &TEST_TOOLS),
};

const PROMTOOL: Need = Need {
    what: "promtool, which reads alert rules",
    plan: "unpack Debian's prometheus into target/tools, without installing it",
    found: || promtool().map(|promtool| promtool.display().to_string()),
    install: promtool::install,
};

const PACKING: Need = Need {
    what: "tools that make packages (dpkg, gzip, date)",
    plan: "install their Debian packages",
    found: || missing(&PACKING_TOOLS).is_empty().then(|| "all of them".to_owned()),
    install: || install_tools("packages", &PACKING_TOOLS),
};

const VIRTUAL_MACHINES: Need = Need {
    what: "tools of the virtual machines (QEMU, busybox, dpkg-deb, xz, and those of the tests)",
    plan: "install their Debian packages",
    found: || missing(&VM_TOOLS).is_empty().then(|| "all of them".to_owned()),
    install: || install_tools("virtual machines", &VM_TOOLS),
};

const PEERS: Need = Need {
    what: "peers to measure beside (nginx with its stream module, HAProxy)",
    plan: "unpack their Debian packages into target/tools, without installing them",
    found: || peers().map(|peers| format!("{} and {}", peers.nginx.display(), peers.haproxy.display())),
    install: peers::install,
};

fn install(need: &Need, arguments: &Arguments) -> Result<()> {
    let unattended = arguments.yes || std::env::var_os("CI").is_some_and(|value| value == "true");
    if !unattended && std::io::stdin().is_terminal() {
        eprint!("{}? [Y/n] ", need.plan);
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "" | "y" | "Y" | "yes") {
            bail!("{} is missing and was not installed", need.what);
        }
    }
    (need.install)()?;
    match (need.found)() {
        Some(found) => {
            eprintln!("now there: {found}");
            Ok(())
        }
        None => bail!("{} is still missing after its installation", need.what),
    }
}

/// The compiler for BPF: named by `BALANCER_BPF_RUSTC`, else the current toolchain's if it has core's sources, else
/// Debian's.
pub(crate) fn compiler() -> Result<BpfCompiler> {
    let named = std::env::var_os("BALANCER_BPF_RUSTC").map(PathBuf::from);
    if let Some(rustc) = named {
        return usable(&rustc)
            .with_context(|| format!("BALANCER_BPF_RUSTC={} has no sources of core", rustc.display()));
    }
    let candidates = ["rustc", "/usr/bin/rustc"].map(PathBuf::from);
    candidates.iter().find_map(|rustc| usable(rustc)).context(
        "no rustc with the sources of core: run `cargo xtask setup`. Without a network: name one with \
         BALANCER_BPF_RUSTC, or a ready object with BALANCER_BPF_OBJECT",
    )
}

/// A rustc is usable if core's sources are beside it and its LLVM is the major version that bpf-linker wants.
fn usable(rustc: &Path) -> Option<BpfCompiler> {
    let sysroot = PathBuf::from(ask(Command::new(rustc).args(["--print", "sysroot"]))?);
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }
    let llvm = llvm_of(rustc, &sysroot)?;
    Some(BpfCompiler { rustc: rustc.to_owned(), llvm })
}

/// The library that rustc's driver is linked with: in the toolchain's own folder, or where the system has its LLVM.
fn llvm_of(rustc: &Path, sysroot: &Path) -> Option<PathBuf> {
    let verbose = ask(Command::new(rustc).arg("-vV"))?;
    let version = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let major = version.split('.').next()?;
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [sysroot.join("lib"), PathBuf::from(machine), PathBuf::from("/usr/lib64")];
    let names = [format!("libLLVM.so.{major}"), format!("libLLVM-{major}")];
    folders.iter().find_map(|folder| {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files.into_iter().find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            names.iter().any(|wanted| name.starts_with(wanted.as_str()))
        })
    })
}

fn install_compiler() -> Result<()> {
    if find("rustup").is_some() {
        let added = run(Command::new("rustup").args(["component", "add", "rust-src"]));
        if added.is_ok() && compiler().is_ok() {
            return Ok(());
        }
        eprintln!("that didn't do; Debian's packages are next");
    }
    apt_install(&["rustc-web", "rust-web-src"]).context(
        "no compiler for BPF could be installed. With a network: `rustup component add rust-src`, or Debian's \
         rustc-web and rust-web-src. Without: BALANCER_BPF_RUSTC=<a rustc with rust-src>, or \
         BALANCER_BPF_OBJECT=<an object built elsewhere by `cargo xtask build`, target/bpf/balancer.bpf.o>",
    )
}

/// bpf-linker in its private root.
pub(crate) fn linker() -> PathBuf {
    target().join("tools/bin/bpf-linker")
}

/// As cargo's own record of the root tells: the program itself needs its LLVM even to print a version.
fn linker_version() -> Option<String> {
    let record = std::fs::read_to_string(target().join("tools/.crates.toml")).ok()?;
    (record.contains(&format!("\"bpf-linker {BPF_LINKER} ")) && linker().is_file())
        .then(|| BPF_LINKER.to_owned())
}

fn install_linker() -> Result<()> {
    let version = format!("={BPF_LINKER}");
    let tools = target().join("tools");
    run(cargo()
        .args(["install", "bpf-linker", "--version", &version, "--locked", "--force", "--root"])
        .arg(tools))
    .context(
        "bpf-linker could not be installed: cargo needs its registry once. Without a network: name a ready \
             object with BALANCER_BPF_OBJECT",
    )
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|(tool, _)| find(tool).is_none()).collect()
}

fn install_tools(whose: &str, tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    apt_install(&packages).with_context(|| {
        let tools: Vec<&str> = missing.iter().map(|(tool, _)| *tool).collect();
        format!("the {whose} need {}: install them with your system's package manager", tools.join(", "))
    })
}

fn apt_install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this system has no apt-get");
    }
    run(&mut as_root(&["apt-get", "update"]))?;
    let mut install = as_root(&["apt-get", "install", "--yes", "--no-install-recommends"]);
    install.env("DEBIAN_FRONTEND", "noninteractive").args(packages);
    run(&mut install)
}

pub(crate) fn is_root() -> bool {
    ask(Command::new("id").arg("-u")).is_some_and(|uid| uid == "0")
}

/// By sudo, unless we are root.
pub(crate) fn as_root(words: &[&str]) -> Command {
    let mut all = if is_root() { Vec::new() } else { vec!["sudo"] };
    all.extend(words);
    let mut command = Command::new(all[0]);
    command.args(&all[1..]);
    command
}
