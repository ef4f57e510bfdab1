//! nginx and HAProxy, beside which `bench path` and `bench retry` measure.
//!
//! Those of the system if it has them. Else Debian's packages are unpacked below the target folder, not installed: their
//! installation would start two services, on machines that only wanted to measure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::unpack::unpack;
use crate::run::{find, target};

/// The programs and what belongs to them; what else these need and the system hasn't, apt adds.
const PACKAGES: [&str; 3] = ["nginx", "libnginx-mod-stream", "haproxy"];

/// Where distributions have nginx's modules.
const MODULES: [&str; 2] = ["usr/lib/nginx/modules", "usr/lib64/nginx/modules"];

pub(crate) struct Peers {
    pub(super) nginx: PathBuf,
    nginx_stream: PathBuf,
    pub(super) haproxy: PathBuf,
    /// Where the libraries are that the system hasn't.
    libraries: PathBuf,
}

impl Peers {
    /// Tells a benchmark where they are.
    pub(crate) fn tell(&self, bench: &mut Command) {
        bench.arg("--nginx").arg(&self.nginx).arg("--nginx-stream").arg(&self.nginx_stream);
        bench.arg("--haproxy").arg(&self.haproxy).arg("--libraries").arg(&self.libraries);
    }
}

/// All of them, if they are there.
pub(crate) fn peers() -> Option<Peers> {
    let own = unpacked();
    let program = |name: &str| find(name).or_else(|| there(own.join("usr/sbin").join(name)));
    let module =
        |root: &Path| MODULES.iter().find_map(|folder| there(root.join(folder).join("ngx_stream_module.so")));
    Some(Peers {
        nginx: program("nginx")?,
        nginx_stream: module(Path::new("/")).or_else(|| module(&own))?,
        haproxy: program("haproxy")?,
        libraries: own.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
    })
}

pub(super) fn install() -> Result<()> {
    unpack(&PACKAGES, &unpacked()).context("nginx with its stream module, and HAProxy")
}

fn unpacked() -> PathBuf {
    target().join("tools/peers")
}

fn there(file: PathBuf) -> Option<PathBuf> {
    file.is_file().then_some(file)
}
