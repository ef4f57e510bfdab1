//! The programs that are measured, and those that measure; nothing is looked for here.

use std::path::PathBuf;

use crate::peers::Peers;

/// Where they are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The product.
    pub balancer: PathBuf,
    /// Server and clients.
    pub lab_host: PathBuf,
    /// The BPF object of `balancer-ebpf/src/path`.
    pub object: PathBuf,
    /// nginx and HAProxy.
    pub peers: Peers,
}
