//! Debian's packages, fetched and unpacked below the target folder, not installed: what would start a service, on a machine
//! that only wanted a program of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::as_root;
use crate::run::{find, run};

/// Unpacks these, and what else they need and the system hasn't.
pub(super) fn unpack(packages: &[&str], into: &Path) -> Result<()> {
    if ["apt-get", "dpkg-deb"].iter().any(|tool| find(tool).is_none()) {
        bail!("this system has no apt: install them with its package manager");
    }
    let archives = into.join("archives");
    fs::create_dir_all(archives.join("partial")).with_context(|| format!("making {}", archives.display()))?;
    run(&mut as_root(&["apt-get", "update"]))?;
    let place = format!("Dir::Cache::archives={}", archives.display());
    let words = ["apt-get", "install", "--yes", "--download-only", "--no-install-recommends", "-o", &place];
    run(as_root(&words).args(packages))?;
    let entries = fs::read_dir(&archives).with_context(|| format!("reading {}", archives.display()))?;
    for archive in entries {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into))?;
        }
    }
    Ok(())
}
