//! `cargo xtask deb`: a Debian package of the binary, its unit, its pages and its completions.
//!
//! Made by dpkg-deb from a folder of files, without debhelper: what is in it is the list in [`stage`]. The same inputs make the
//! same package, byte by byte. Deliberately not in it: an active configuration. The service waits until there is one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::build::build;
use crate::run::{ask, root, run, target};
use crate::setup;

/// Of the package and all that is in it; a native package, so there is no Debian revision.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("deb/postinst")),
    ("prerm", include_str!("deb/prerm")),
    ("postrm", include_str!("deb/postrm")),
];
const COPYRIGHT: &str = include_str!("deb/copyright");
/// Whoever is in it may read the control socket.
const SYSUSERS: &str = "g balancer -\n";

/// Completions, and where each shell looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/balancer"),
    ("zsh", "usr/share/zsh/vendor-completions/_balancer"),
    ("fish", "usr/share/fish/vendor_completions.d/balancer.fish"),
];

pub(crate) fn deb() -> Result<()> {
    setup::for_packaging()?;
    let built = build()?;
    package(&built.binary, &target().join("deb")).map(drop)
}

/// Packs this binary, below this folder. Returns the package.
pub(crate) fn package(binary: &Path, folder: &Path) -> Result<PathBuf> {
    let architecture =
        ask(Command::new("dpkg").arg("--print-architecture")).context("asking dpkg for the architecture")?;
    let epoch = source_date()?;
    let files = folder.join("root");
    if files.exists() {
        fs::remove_dir_all(&files).with_context(|| format!("removing {}", files.display()))?;
    }
    stage(binary, &files, epoch)?;
    control(binary, &files, &architecture)?;
    let package = folder.join(format!("balancer_{VERSION}_{architecture}.deb"));
    // gzip: several threads of xz may cut a file differently.
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "--build"])
        .args([&files, &package])
        .env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    eprintln!("packed {}", package.display());
    Ok(package)
}

/// No file is newer than this: that of the last commit, unless the builder says otherwise.
fn source_date() -> Result<u64> {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok();
    let commit = || ask(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()));
    let date = said.or_else(commit).context("neither SOURCE_DATE_EPOCH nor a commit tells a date")?;
    date.parse().with_context(|| format!("SOURCE_DATE_EPOCH={date}: seconds since 1970 are wanted"))
}

/// Everything that is installed.
fn stage(binary: &Path, files: &Path, epoch: u64) -> Result<()> {
    let put = |name: &str, content: &[u8]| put(files, name, content, 0o644);
    let copy = |from: &str, name: &str| put(name, &read(&root().join(from))?);
    self::put(files, "usr/bin/balancer", &read(binary)?, 0o755)?;
    copy("balancer-user/systemd/balancer.service", "lib/systemd/system/balancer.service")?;
    put("usr/lib/sysusers.d/balancer.conf", SYSUSERS.as_bytes())?;
    for (shell, name) in COMPLETIONS {
        put(name, printed(binary, &["completions", shell])?.as_bytes())?;
    }

    let pages = files.join("usr/share/man/man1");
    fs::create_dir_all(&pages)?;
    run(Command::new(binary).args(["man", "--dir"]).arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        compress(&page?.path())?;
    }

    let doc = "usr/share/doc/balancer";
    let readme = String::from_utf8(read(&root().join("README.md"))?).context("README.md")?;
    put(&format!("{doc}/examples/balancer.toml"), first_configuration(&readme)?.as_bytes())?;
    put(&format!("{doc}/README.md"), readme.as_bytes())?;
    for document in fs::read_dir(root().join("docs")).context("list docs")? {
        let name = document?.file_name();
        let name = name.to_str().context("a document's name")?;
        copy(&format!("docs/{name}"), &format!("{doc}/docs/{name}"))?;
    }
    put(&format!("{doc}/copyright"), COPYRIGHT.as_bytes())?;
    put(&format!("{doc}/changelog"), changelog(epoch)?.as_bytes())?;
    compress(&files.join(doc).join("changelog"))
}

/// The one of the README that its reader begins with.
fn first_configuration(readme: &str) -> Result<&str> {
    let (_, rest) = readme.split_once("```toml\n").context("a configuration in the README")?;
    Ok(rest.split_once("```").context("its end")?.0)
}

fn changelog(epoch: u64) -> Result<String> {
    let date = ask(Command::new("date").args(["--utc", "--rfc-email", "--date", &format!("@{epoch}")]));
    let date = date.context("asking date for that of the changelog")?;
    Ok(format!(
        "balancer ({VERSION}) unstable; urgency=medium\n\n  * See README.md for what this version does.\n\n \
         -- The balancer maintainers <balancer@localhost>  {date}\n"
    ))
}

fn control(binary: &Path, files: &Path, architecture: &str) -> Result<()> {
    let size: u64 = sizes(files)?.div_ceil(1024);
    let depends = depends(&read(binary)?)?;
    let text = format!(
        "Package: balancer\nVersion: {VERSION}\nArchitecture: {architecture}\n\
         Maintainer: The balancer maintainers <balancer@localhost>\nInstalled-Size: {size}\nDepends: {depends}\n\
         Recommends: systemd, iproute2, ethtool\nSection: net\nPriority: optional\n\
         Description: XDP failover load balancer for a Linux gateway\n \
         Rewrites each TCP flow of a virtual address to the one active backend, in the\n \
         kernel's fast path; a controller probes the backends and moves everything to\n \
         the next one when it fails. Traffic goes on while the controller is restarted.\n"
    );
    put(files, "DEBIAN/control", text.as_bytes(), 0o644)?;
    for (name, script) in SCRIPTS {
        put(files, &format!("DEBIAN/{name}"), script.as_bytes(), 0o755)?;
    }
    Ok(())
}

/// The libraries that the binary names, each in the package that has it, and the newest glibc that it asks for.
fn depends(binary: &[u8]) -> Result<String> {
    let text = binary.split(|byte| !byte.is_ascii_graphic()).filter_map(|word| str::from_utf8(word).ok());
    let words: BTreeSet<&str> = text.collect();
    let glibc =
        words.iter().filter_map(|word| word.strip_prefix("GLIBC_2.")?.split('.').next()?.parse().ok());
    let newest: u32 = glibc.max().context("the binary asks for no version of glibc")?;
    // Its own parts come with it.
    ensure!(words.contains("libc.so.6"), "the binary isn't linked with glibc");
    let compiler = if words.contains("libgcc_s.so.1") { ", libgcc-s1" } else { "" };
    Ok(format!("libc6 (>= 2.{newest}){compiler}"))
}

fn sizes(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(fs::symlink_metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| sizes(&entry?.path())).sum()
}

fn put(files: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let path = files.join(name);
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    // Whatever the builder's umask is.
    for made in folder.ancestors().take_while(|made| made.starts_with(files)) {
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn printed(binary: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary).args(arguments).output();
    let output = output.with_context(|| format!("starting {}", binary.display()))?;
    if !output.status.success() {
        bail!("{} {}: {}", binary.display(), arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Without name and date, which would differ.
fn compress(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    run(Command::new("gzip").args(["-9", "-n", "-f"]).arg(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what a package is made of, as the real one does.
    const BINARY: &str = "#!/bin/sh\n# GLIBC_2.4 GLIBC_2.34 GLIBC_2.9 libc.so.6 libgcc_s.so.1\n\
        if [ \"$1\" = man ]; then echo page > \"$3/balancer.1\"; else echo \"$2\"; fi\n";

    #[test]
    fn the_same_inputs_make_the_same_package() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary");
        fs::write(&binary, BINARY).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let made = ["one", "other"].map(|name| {
            let package = package(&binary, &folder.path().join(name)).unwrap();
            fs::read(package).unwrap()
        });
        assert!(made[0] == made[1], "{} and {} bytes", made[0].len(), made[1].len());
    }

    #[test]
    fn the_newest_version_that_is_asked_for_is_the_oldest_that_will_do() {
        assert_eq!(depends(BINARY.as_bytes()).unwrap(), "libc6 (>= 2.34), libgcc-s1");
        assert!(depends(b"static").is_err());
    }

    #[test]
    fn the_example_is_the_first_configuration_of_the_readme() {
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        let example = first_configuration(&readme).unwrap();
        assert!(example.starts_with("[gateway]") && example.contains("[[pool.backend]]"), "{example}");
    }
}
