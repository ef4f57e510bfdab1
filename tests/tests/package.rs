//! The Debian package, on a machine that runs systemd: installed, configured, installed again under load, and purged.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status},
    inventory::attached_programs,
    lab::Topology,
    machine::{Machine, Parts},
    poll::poll_until,
    site::{Options, Programs, Site, WEB},
};

const SERVICE: &str = "balancer.service";

/// What a package has to have.
const FILES: [&str; 13] = [
    "/usr/bin/balancer",
    "/lib/systemd/system/balancer.service",
    "/usr/lib/sysusers.d/balancer.conf",
    "/usr/share/bash-completion/completions/balancer",
    "/usr/share/zsh/vendor-completions/_balancer",
    "/usr/share/fish/vendor_completions.d/balancer.fish",
    "/usr/share/man/man1/balancer.1.gz",
    "/usr/share/man/man1/balancer-failover.1.gz",
    "/usr/share/doc/balancer/copyright",
    "/usr/share/doc/balancer/changelog.gz",
    "/usr/share/doc/balancer/examples/balancer.toml",
    "/usr/share/doc/balancer/docs/operating.md",
    "/usr/share/doc/balancer/docs/promotion.md",
];

#[test]
fn a_package_has_everything_and_belongs_to_root() -> Result<()> {
    let root = tempfile::tempdir()?;
    let package = package_under_test()?.display().to_string();
    run(&["dpkg-deb", "--extract", &package, &root.path().display().to_string()])?;
    for file in FILES {
        let found = fs::metadata(root.path().join(file.trim_start_matches('/'))).context(file)?;
        ensure!(found.is_file() && found.len() > 0, "{file}");
    }
    ensure!(!root.path().join("etc").exists(), "nothing that would start something");
    let listed = run(&["dpkg-deb", "--contents", &package])?;
    for line in listed.lines() {
        ensure!(line.contains(" root/root "), "{line}");
        // Nobody else may write to it.
        let mode = line.split(' ').next().unwrap_or_default();
        ensure!(["drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"].contains(&mode), "{line}");
    }
    let version = run(&[&root.path().join("usr/bin/balancer").display().to_string(), "--version"])?;
    let depends = run(&["dpkg-deb", "--field", &package, "Depends", "Version"])?;
    let packed = depends.lines().find_map(|line| line.strip_prefix("Version: ")).context("Version")?;
    ensure!(version.starts_with(&format!("balancer {packed} ")), "{version} in {depends}");
    ensure!(depends.contains("libc6 (>= 2."), "{depends}");
    Ok(())
}

#[test]
fn a_package_is_installed_upgraded_under_load_and_purged_without_a_trace() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("package", &Topology::two_armed(), Options::default(), &programs)?;
    (0..2).try_for_each(|server| site.serve(server))?;
    let machine = Machine::boot(site.lab(), Parts::new(site.lab())?)?;
    let package = machine.shared().join("balancer.deb");
    fs::copy(package_under_test()?, &package)?;
    let package = package.display().to_string();
    let before = machine.do_well(&["find", "/usr", "/etc", "/var/lib", "-xdev", "-name", "*balancer*"])?;

    machine.do_well(&["dpkg", "--install", &package])?;
    assert_eq!(machine.property(SERVICE, "ActiveState")?, "inactive", "it has no configuration yet");
    assert_eq!(machine.property(SERVICE, "UnitFileState")?, "enabled");
    machine.do_well(&["getent", "group", "balancer"])?;
    machine.do_well(&["bash", "-n", "/usr/share/bash-completion/completions/balancer"])?;
    let example = "/usr/share/doc/balancer/examples/balancer.toml";
    machine.do_well(&["balancer", "check", "--no-resolve", "--config", example])?;

    configure(&site, &machine)?;
    machine.do_well(&["systemctl", "start", SERVICE])?;
    let first = ready(&machine)?;
    let load = site.start_load(WEB, &["--rate", "100", "--parallel", "50", "--connections", "600"])?;
    let pid = machine.property(SERVICE, "MainPID")?;
    machine.do_well(&["dpkg", "--install", &package])?;
    let after = ready(&machine)?;
    assert_ne!(machine.property(SERVICE, "MainPID")?, pid, "the new one runs");
    assert_eq!(after.link_ids(), first.link_ids());
    let report = load.report()?;
    ensure!(report["failed"] == 0, "{report}");

    machine.do_well(&["dpkg", "--purge", "balancer"])?;
    let programs = attached_programs(site.lab().gateway())?;
    ensure!(programs.is_empty(), "what nobody could take away any more: {programs:?}");
    let find = ["find", "/usr", "/etc", "/var/lib", "/sys/fs/bpf", "-xdev", "-name", "*balancer*"];
    // What /etc/balancer still has is the operator's.
    machine.do_well(&["rm", "-r", "/etc/balancer"])?;
    assert_eq!(machine.do_well(&find)?, before);
    Ok(())
}

fn configure(site: &Site, machine: &Machine) -> Result<()> {
    let ca_file = site.ca_file().display().to_string();
    let text = site.configuration(Options::default()).replace(&ca_file, "/etc/balancer/ca.pem");
    fs::write(machine.shared().join("balancer.toml"), text)?;
    fs::copy(site.ca_file(), machine.shared().join("ca.pem"))?;
    for file in ["balancer.toml", "ca.pem"] {
        let from = machine.shared().join(file).display().to_string();
        machine.do_well(&["install", "-D", "-m", "644", &from, &format!("/etc/balancer/{file}")])?;
    }
    Ok(())
}

fn ready(machine: &Machine) -> Result<Status> {
    poll_until(PATIENCE, "all servers to be up", || {
        let said = machine.run(&["balancer", "status", "-o", "json"]);
        let status = said.and_then(|said| said.expect(0)?.json()).map(Status);
        match status {
            Ok(status) if status.0["daemon"].is_object() && status.are_all_up() => Ok(status),
            other => Err(format!("{other:?}; {}", machine.console())),
        }
    })
}

/// No other is looked for: a test must not pass with one that was forgotten somewhere.
fn package_under_test() -> Result<PathBuf> {
    let named =
        env::var_os("BALANCER_PACKAGE").context("BALANCER_PACKAGE is not set: run cargo xtask test")?;
    let package = Path::new(&named);
    ensure!(package.is_file(), "BALANCER_PACKAGE={}: no such file", package.display());
    Ok(package.to_owned())
}

fn run(words: &[&str]) -> Result<String> {
    let output = std::process::Command::new(words[0]).args(&words[1..]).output();
    let output = output.with_context(|| format!("{words:?}"))?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
