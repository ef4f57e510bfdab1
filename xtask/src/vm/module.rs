//! A kernel's modules, in the order in which they can be loaded. A package has no list of who needs whom: depmod makes
//! it where a kernel is installed. Each module says it itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(super) struct Module {
    pub(super) name: String,
    /// The object file, unpacked.
    pub(super) object: Vec<u8>,
}

/// The wanted modules of a kernel, each after those that it needs; what is built in needs no loading.
pub(super) fn in_load_order(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut tree = Tree { files: BTreeMap::new(), builtin: builtin(folder), ordered: Vec::new() };
    files(&folder.join("kernel"), &mut tree.files)?;
    for name in wanted {
        tree.add(name).with_context(|| format!("module {name} in {}", folder.display()))?;
    }
    Ok(tree.ordered)
}

struct Tree {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
    ordered: Vec<Module>,
}

impl Tree {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.ordered.iter().any(|module| module.name == name) || self.builtin.iter().any(|it| it == name) {
            return Ok(());
        }
        let file = self.files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let object = unpacked(file)?;
        for needed in needed_by(&object) {
            self.add(&needed).with_context(|| format!("needed by {name}"))?;
        }
        self.ordered.push(Module { name: name.to_owned(), object });
        Ok(())
    }
}

fn files(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if let Some(name) = module_name(&path) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Of `nf_nat.ko`, `nf-nat.ko.xz`: the kernel makes no difference between the two signs.
fn module_name(file: &Path) -> Option<String> {
    let (name, _) = file.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn builtin(folder: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    list.lines().filter_map(|line| module_name(Path::new(line))).collect()
}

fn unpacked(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => std::fs::read(file).with_context(|| format!("reading {}", file.display())),
        Some("xz") => {
            let output = Command::new("xz").arg("-dc").arg(file).output().context("starting xz")?;
            if !output.status.success() {
                bail!("xz -dc {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
            }
            Ok(output.stdout)
        }
        _ => bail!("{} is neither plain nor packed with xz", file.display()),
    }
}

/// What the module's own `depends=` names: one of the strings, each ended by a zero byte, of its section `.modinfo`.
fn needed_by(object: &[u8]) -> Vec<String> {
    let mut strings = object.split(|byte| *byte == 0);
    let list = strings.find_map(|string| string.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(list.unwrap_or_default());
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            needed_by(b"\x7fELF\0\0license=GPL\0depends=llc,nf-nat\0name=bridge\0"),
            ["llc", "nf_nat"]
        );
        assert_eq!(needed_by(b"\0depends=\0"), [""; 0]);
        assert_eq!(needed_by(b"nothing"), [""; 0]);
    }

    #[test]
    fn a_file_is_a_module_by_its_name_packed_or_not() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("/k/net/nf-nat.ko"), Some("nf_nat".into()));
        assert_eq!(name("/k/net/veth.ko.xz"), Some("veth".into()));
        assert_eq!(name("/k/modules.order"), None);
    }

    #[test]
    fn what_is_needed_is_loaded_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("modules.builtin", "kernel/net/ipv6/ipv6.ko\n");
        write("kernel/net/llc.ko", "\0depends=\0");
        write("kernel/net/stp.ko", "\0depends=llc\0");
        write("kernel/net/bridge.ko", "\0depends=stp,llc,ipv6\0");
        write("kernel/drivers/odd.ko", "\0depends=absent\0");
        let modules = in_load_order(folder.path(), &["bridge", "ipv6", "llc"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "bridge"]);
        let error = format!("{:#}", in_load_order(folder.path(), &["odd"]).err().unwrap());
        assert!(error.contains("needed by odd: the kernel has no module absent"), "{error}");
    }
}
