//! The file system in memory that a virtual machine boots: the test programs, the kernel's modules and the tools that
//! labs use, taken from this machine with their libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::newc::Archive;
use super::{Program, library, module};
use crate::run::find;

const INIT: &str = include_str!("init.sh");

/// What labs are made with. The shell too: busybox's own would run its applets `ip` and `nsenter` instead.
const TOOLS: [&str; 6] = ["busybox", "sh", "ip", "ethtool", "nsenter", "setsid"];
/// What labs are made of.
const MODULES: [&str; 2] = ["veth", "bridge"];
const FOLDERS: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// Writes it beside the kernel, and returns where.
pub(super) fn make(kernel: &Kernel, programs: &[Program]) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder);
    }
    archive.file("/init", INIT.as_bytes());
    let tools: Vec<(&str, PathBuf)> = TOOLS
        .into_iter()
        .map(|tool| Ok((tool, find(tool).with_context(|| format!("{tool} is not on this machine"))?)))
        .collect::<Result<_>>()?;
    for (tool, file) in &tools {
        archive.file(&format!("/bin/{tool}"), &read(file)?);
    }
    let mut order = String::new();
    for Program { name, file } in programs {
        archive.file(&format!("/tests/{name}"), &read(file)?);
        order.push_str(&format!("{name}\n"));
    }
    archive.file("/tests/order", order.as_bytes());
    let linked: Vec<PathBuf> =
        tools.into_iter().map(|(_, file)| file).chain(programs.iter().map(|it| it.file.clone())).collect();
    for library in library::of(&linked)? {
        archive.file(&library.to_string_lossy(), &read(&library)?);
    }
    let mut order = String::new();
    for module in module::in_load_order(&kernel.modules, &MODULES)? {
        archive.file(&format!("/modules/{}.ko", module.name), &module.object);
        order.push_str(&format!("{}\n", module.name));
    }
    archive.file("/modules/order", order.as_bytes());
    let file = kernel.folder.join("initramfs");
    std::fs::write(&file, archive.finish()).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}
