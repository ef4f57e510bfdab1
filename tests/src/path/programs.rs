//! The programs that are measured, and those that measure; nothing is looked for here.

use std::path::PathBuf;

/// Where they are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The product.
    pub balancer: PathBuf,
    /// Server and clients.
    pub lab_host: PathBuf,
    /// The BPF object of `balancer-ebpf/src/path`.
    pub object: PathBuf,
    /// A program, or its name.
    pub nginx: PathBuf,
    /// Its stream module, if that isn't built in.
    pub nginx_stream: Option<PathBuf>,
    /// A program, or its name.
    pub haproxy: PathBuf,
    /// Where the libraries of both are, if not in the system's places.
    pub libraries: Option<PathBuf>,
}
