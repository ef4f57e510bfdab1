//! On what was measured, and with which versions: numbers without them say nothing.

use std::{ffi::OsStr, fs, path::Path};

use crate::peers::{Peers, version};

/// Names of things and what they are.
#[must_use]
pub(crate) fn describe(balancer: &Path, peers: &Peers) -> Vec<(&'static str, String)> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = cpus.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown", |model| model.trim_start_matches(['\t', ' ', ':']));
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let (kernel, tcp) = (setting("kernel/osrelease"), setting("net/ipv4/tcp_congestion_control"));
    let mut facts = vec![
        ("CPU", format!("{model}, {} of them", cpus.matches("processor\t").count())),
        ("kernel", kernel.trim().to_owned()),
        // New network namespaces have it from the machine, and may not choose another.
        ("TCP's congestion control", tcp.trim().to_owned()),
        ("balancer", version(balancer.as_os_str())),
        ("nft", version(OsStr::new("nft"))),
    ];
    facts.extend(peers.versions());
    facts
}
