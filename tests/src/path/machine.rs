//! On what was measured, and with which versions: numbers without them say nothing.

use std::{ffi::OsStr, fs, process::Command};

use super::programs::Programs;

/// Names of things and what they are.
#[must_use]
pub(super) fn describe(programs: &Programs) -> Vec<(&'static str, String)> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = cpus.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown", |model| model.trim_start_matches(['\t', ' ', ':']));
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let (kernel, tcp) = (setting("kernel/osrelease"), setting("net/ipv4/tcp_congestion_control"));
    let version = |program: &OsStr, flag: &str| version(programs, program, flag);
    vec![
        ("CPU", format!("{model}, {} of them", cpus.matches("processor\t").count())),
        ("kernel", kernel.trim().to_owned()),
        // New network namespaces have it from the machine, and may not choose another.
        ("TCP's congestion control", tcp.trim().to_owned()),
        ("balancer", version(programs.balancer.as_os_str(), "--version")),
        ("nft", version(OsStr::new("nft"), "--version")),
        ("nginx", version(programs.nginx.as_os_str(), "-v")),
        ("HAProxy", version(programs.haproxy.as_os_str(), "-v")),
    ]
}

/// The first line that it says about itself, wherever it says it.
fn version(programs: &Programs, program: &OsStr, flag: &str) -> String {
    let mut command = Command::new(program);
    command.arg(flag);
    if let Some(libraries) = &programs.libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let said = match command.output() {
        Ok(output) if output.stdout.is_empty() => output.stderr,
        Ok(output) => output.stdout,
        Err(error) => return format!("unknown ({error})"),
    };
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
}
