//! Finds a kernel among Debian's packages, fetches and unpacks it: by the machine's own mirror and keys, but with lists
//! of its own below the target folder, so that nothing of the machine's apt changes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sources::{self, Source};
use crate::run::{ask, find, run, target};

/// Releases before what is backported to them, older before newer: a version is looked for where most people have it
/// from.
const SUITES: [&str; 6] = ["bookworm", "trixie", "bookworm-backports", "trixie-backports", "forky", "sid"];

/// A kernel that was unpacked.
pub(super) struct Kernel {
    /// As it was asked for.
    pub(super) version: String,
    /// What was unpacked, and what is made from it.
    pub(super) folder: PathBuf,
    /// What boots.
    pub(super) image: PathBuf,
    /// Its modules.
    pub(super) modules: PathBuf,
}

/// `6.1`, `7`: numbers with dots.
pub(super) fn version(text: &str) -> Result<String> {
    if text.split('.').all(|number| !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())) {
        return Ok(text.to_owned());
    }
    bail!("a version such as 6.1, or a major version such as 7")
}

/// The kernel as it was fetched earlier, else fetched now.
pub(super) fn provide(version: &str) -> Result<Kernel> {
    let folder = target().join("vm").join(version);
    if let Some(kernel) = unpacked(version, &folder) {
        return Ok(kernel);
    }
    fetch(version, &folder).with_context(|| {
        format!(
            "kernel {version} could not be fetched. With the package of another machine: \
             dpkg-deb -x linux-image-….deb {}",
            folder.display()
        )
    })?;
    unpacked(version, &folder)
        .with_context(|| format!("the package in {} has no kernel or no modules", folder.display()))
}

fn unpacked(version: &str, folder: &Path) -> Option<Kernel> {
    // Where /lib is a link, packages say /usr/lib; since 7.2 the kernel is beside its modules.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path));
    let modules = modules.iter().find_map(|modules| only_in(modules, ""))?;
    let beside = Some(modules.join("vmlinuz")).filter(|image| image.is_file());
    let image = only_in(&folder.join("boot"), "vmlinuz-").or(beside)?;
    Some(Kernel { version: version.to_owned(), folder: folder.to_owned(), image, modules })
}

fn only_in(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut matching = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    let only = matching.next()?;
    matching.next().is_none().then_some(only)
}

fn fetch(version: &str, folder: &Path) -> Result<()> {
    if ["apt-get", "apt-cache"].iter().any(|tool| find(tool).is_none()) {
        bail!("kernels come from Debian's packages, and this system has no apt");
    }
    let mirror = sources::mirror(&sources::of_this_machine(), &SUITES).context(
        "the package sources of this machine name no mirror of Debian (none has the component main of one of the \
         suites bookworm, trixie, forky, sid)",
    )?;
    let mut unreachable = Vec::new();
    for suite in where_to_look(version) {
        let lists = Lists::of(suite, &mirror)?;
        if let Err(error) = run(&mut lists.apt("apt-get", &["update"])) {
            eprintln!("suite {suite} can't be read: {error:#}");
            unreachable.push(suite);
            continue;
        }
        let names = ask(&mut lists.apt("apt-cache", &["pkgnames", "linux-"])).unwrap_or_default();
        if let Some(release) = newest(&names, version) {
            return lists.download(&packages(&names, release), folder);
        }
        eprintln!("suite {suite} has no kernel {version}");
    }
    let doubt = if unreachable.is_empty() { String::new() } else { format!("; not read: {unreachable:?}") };
    bail!("none of Debian's suites {SUITES:?} has a cloud kernel {version}{doubt}")
}

/// The newest of a major version is in the newest suite.
fn where_to_look(version: &str) -> Vec<&'static str> {
    let mut suites = SUITES.to_vec();
    if !version.contains('.') {
        suites.reverse();
    }
    suites
}

/// The newest release of this version. The cloud kernels are small, and have what a virtual machine needs.
fn newest<'a>(names: &'a str, version: &str) -> Option<&'a str> {
    let release = |name: &'a str| {
        let release = name.strip_prefix("linux-image-")?;
        let rest = release.strip_suffix("-cloud-amd64")?.strip_prefix(version)?;
        rest.starts_with('.').then_some(release)
    };
    names.lines().filter_map(release).max_by_key(|release| numbers(release.trim_end_matches("-cloud-amd64")))
}

/// What the release is in: one package, and since 7.2 one for each part.
fn packages<'a>(names: &'a str, release: &str) -> Vec<&'a str> {
    let parts = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
    let is_part = |name: &str| parts.iter().any(|part| name.strip_prefix(part) == Some(release));
    names.lines().filter(|name| is_part(name)).collect()
}

/// All numbers in it: `6.12.95+deb12` is newer than `6.12.9+deb12`, and than `6.12.95`.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// One suite's package lists, read with apt but kept from the machine's own.
struct Lists {
    folder: PathBuf,
}

impl Lists {
    fn of(suite: &str, mirror: &Source) -> Result<Self> {
        let lists = Self { folder: target().join("vm/apt").join(suite) };
        for folder in ["lists/partial", "cache/archives/partial", "no-preferences"] {
            std::fs::create_dir_all(lists.folder.join(folder))
                .with_context(|| format!("making {}", lists.folder.display()))?;
        }
        for (name, content) in
            [("debian.sources", mirror.with_suite(suite)), ("apt.conf", configuration(&lists.folder))]
        {
            let file = lists.folder.join(name);
            std::fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(lists)
    }

    fn apt(&self, tool: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.arg("-qq").arg(format!("--config-file={}", self.folder.join("apt.conf").display()));
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// Fetches packages and unpacks them: in a folder of another name first, so that half a kernel is none.
    fn download(&self, packages: &[&str], folder: &Path) -> Result<()> {
        let unfinished = folder.with_file_name(format!("unfinished-{}", std::process::id()));
        std::fs::create_dir_all(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
        run(self.apt("apt-get", &["download"]).args(packages).current_dir(&unfinished))?;
        for package in packages {
            let archive = only_in(&unfinished, &format!("{package}_"))
                .with_context(|| format!("apt-get has not downloaded {package}"))?;
            run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unfinished))?;
            std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
        }
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        std::fs::rename(&unfinished, folder).with_context(|| format!("making {}", folder.display()))
    }
}

/// Everything of apt's in this folder; the machine's own sources, preferences and hooks left out. What isn't signed by
/// the mirror's keys, or isn't what the signed lists say, is refused.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"{folder}/debian.sources\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{folder}/no-preferences\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::State::status \"/dev/null\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         Acquire::AllowInsecureRepositories \"false\";\n\
         Acquire::AllowWeakRepositories \"false\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Retries \"3\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Get::AllowUnauthenticated \"false\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-50-cloud-amd64\n\
        linux-image-6.1.0-51-amd64\nlinux-image-6.1.0-51-cloud-amd64-unsigned\n\
        linux-image-6.1.0-51-cloud-amd64-dbg\nlinux-image-cloud-amd64\n\
        linux-image-6.12.95+deb12-cloud-amd64\nlinux-image-6.12.95+deb12.1-cloud-amd64\n\
        linux-image-6.12.9+deb12-cloud-amd64\nlinux-image-7.2.12+deb14-cloud-amd64\n\
        linux-headers-7.10.2+deb14-cloud-amd64\nlinux-modules-7.10.2+deb14-cloud-amd64\n\
        linux-binary-7.10.2+deb14-cloud-amd64\nlinux-binary-unsigned-7.10.2+deb14-cloud-amd64\n\
        linux-image-7.10.2+deb14-cloud-amd64\n";

    #[test]
    fn the_newest_cloud_kernel_of_a_version_is_taken() {
        assert_eq!(newest(NAMES, "6.1"), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(newest(NAMES, "6.12"), Some("6.12.95+deb12.1-cloud-amd64"));
        assert_eq!(newest(NAMES, "7"), Some("7.10.2+deb14-cloud-amd64"));
        assert_eq!(newest(NAMES, "5.10"), None);
    }

    #[test]
    fn a_release_is_one_package_or_has_its_parts_in_packages() {
        assert_eq!(packages(NAMES, "6.1.0-50-cloud-amd64"), ["linux-image-6.1.0-50-cloud-amd64"]);
        let parts =
            ["modules", "binary", "image"].map(|part| format!("linux-{part}-7.10.2+deb14-cloud-amd64"));
        assert_eq!(packages(NAMES, "7.10.2+deb14-cloud-amd64"), parts);
    }

    #[test]
    fn a_version_is_numbers() {
        assert_eq!(version("6.12").unwrap(), "6.12");
        for wrong in ["", "6.", ".1", "../x", "6.1-rc1", "all"] {
            assert!(version(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_major_version_is_looked_for_in_the_newest_suite_first() {
        assert_eq!(where_to_look("7").first(), Some(&"sid"));
        assert_eq!(where_to_look("6.1").first(), Some(&"bookworm"));
    }
}
