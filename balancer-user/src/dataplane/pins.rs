//! The pin directory: what keeps maps and links alive without a controller.
//!
//! Everything lies under the layout's version (`v1/`), so that another layout never meets these maps.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::advice::Advice;
use super::links::{self, LINK, Pinned};
use super::{DataplaneError, layout_version};
use crate::directory::LockedDirectory;

/// What `statfs` says of a BPF file system.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Where bpffs usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// A directory on bpffs that this process alone uses. Only what this program pins is ever removed from it.
#[derive(Debug)]
pub struct PinDirectory {
    directory: LockedDirectory,
    versioned: PathBuf,
}

/// What is pinned for another layout than this program's.
#[derive(Clone, Debug)]
pub struct OtherLayout {
    /// Its directory.
    pub path: PathBuf,
    /// Its links; the program of each that has a device is on it.
    pub links: Vec<Pinned>,
}

impl PinDirectory {
    /// Makes and locks it; mounts bpffs there if that is ours to do.
    pub fn open(path: &Path) -> Result<Self, DataplaneError> {
        if let Some(target) = mount_point(path)? {
            mount_bpffs(target)?;
        }
        let directory = LockedDirectory::open(path).map_err(DataplaneError::Directory)?;
        let versioned = path.join(layout_version());
        make(&versioned)?;
        Ok(Self { directory, versioned })
    }

    /// Whether [`PinDirectory::open`] would get that far that only its lock and its owner are left to be looked at; changes
    /// nothing.
    pub fn look(path: &Path) -> Result<(), DataplaneError> {
        mount_point(path).map(drop)
    }

    /// The layouts other than this one's that something is pinned for, by their directories.
    pub fn other_layouts_in(path: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
        let mut others = layouts(path)?;
        others.retain(|layout| !layout.ends_with(layout_version()));
        let mut full = Vec::new();
        for layout in others {
            if fs::read_dir(&layout).map_err(failed("read", &layout))?.next().is_some() {
                full.push(layout);
            }
        }
        Ok(full)
    }

    /// Whether something is pinned that a daemon would take over.
    #[must_use]
    pub fn could_be_adopted(path: &Path) -> bool {
        path.join(layout_version()).join("SERVICES").exists()
    }

    /// Locks it where it exists.
    pub fn open_existing(path: &Path) -> Result<Self, DataplaneError> {
        if !on_bpffs(path)? {
            return Err(unusable(
                path,
                "it is not on a BPF file system (bpffs), so nothing of balancer's is in it",
                "name the right directory with --pin-dir",
            ));
        }
        let directory = LockedDirectory::open(path).map_err(DataplaneError::Directory)?;
        Ok(Self { directory, versioned: path.join(layout_version()) })
    }

    /// The part for this layout: maps under their names, links as `link-INTERFACE`.
    #[must_use]
    pub fn versioned(&self) -> &Path {
        &self.versioned
    }

    /// Whether nothing is pinned for this layout.
    pub fn is_empty(&self) -> Result<bool, DataplaneError> {
        let mut entries = fs::read_dir(&self.versioned).map_err(failed("read", &self.versioned))?;
        Ok(entries.next().is_none())
    }

    /// Gives up the maps that are pinned for this layout, flows and counters with them. Links stay: their program goes on with
    /// its maps until it is replaced in place. Returns how many pins there were.
    pub fn clear_maps(&self) -> Result<usize, DataplaneError> {
        remove_pins(&self.versioned, |name| !name.starts_with(LINK))
    }

    /// What other versions of this program have left: where something is pinned for another layout.
    pub fn other_layouts(&self) -> Result<Vec<OtherLayout>, DataplaneError> {
        let others = Self::other_layouts_in(self.directory.path())?.into_iter();
        others.map(|path| Ok(OtherLayout { links: links::pinned(&path)?, path })).collect()
    }

    /// Gives up what is pinned for another layout.
    pub fn clear_other(&self, other: &OtherLayout) -> Result<usize, DataplaneError> {
        let removed = remove_pins(&other.path, |_| true)?;
        self.remove_if_empty(&other.path)?;
        Ok(removed)
    }

    /// After a start that failed: what it made goes, what others made stays.
    pub fn abandon(self) -> Result<(), DataplaneError> {
        remove_pins(&self.versioned, |_| true)?;
        self.remove_if_empty(&self.versioned)?;
        self.remove_if_empty(self.directory.path())
    }

    /// Gives up what is pinned for any layout, and the directory itself. Returns how many pins there were.
    pub fn remove(self) -> Result<usize, DataplaneError> {
        let mut removed = 0;
        for layout in layouts(self.directory.path())? {
            removed += remove_pins(&layout, |_| true)?;
            self.remove_if_empty(&layout)?;
        }
        self.remove_if_empty(self.directory.path())?;
        Ok(removed)
    }

    /// Leaves a directory that others use, or that is a mount of its own.
    fn remove_if_empty(&self, path: &Path) -> Result<(), DataplaneError> {
        match fs::remove_dir(path) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::ResourceBusy
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                ) =>
            {
                Err(failed("remove", path)(error))
            }
            _ => Ok(()),
        }
    }
}

impl OtherLayout {
    /// As pin paths and `--version` tell it.
    #[must_use]
    pub fn version(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The directories of all layouts, this one's included, in the order of their names.
fn layouts(path: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let mut layouts = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let entry = entry.map_err(failed("read", path))?;
        if is_layout(&entry.file_name().to_string_lossy()) {
            layouts.push(entry.path());
        }
    }
    layouts.sort();
    Ok(layouts)
}

/// Whether a directory of this name is that of a layout.
fn is_layout(name: &str) -> bool {
    let version = name.strip_prefix('v').unwrap_or_default();
    !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes the pins in one layout's directory whose names are these; nothing of ours has directories below.
fn remove_pins(path: &Path, is_one: impl Fn(&str) -> bool) -> Result<usize, DataplaneError> {
    let mut removed = 0;
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed("read", path))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("read", path))?.path();
        let is_one = entry.file_name().is_some_and(|name| is_one(&name.to_string_lossy()));
        if is_one && !fs::symlink_metadata(&entry).map_err(failed("look at", &entry))?.is_dir() {
            fs::remove_file(&entry).map_err(failed("remove", &entry))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn make(path: &Path) -> Result<(), DataplaneError> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("make", path)(error)),
        _ => Ok(()),
    }
}

fn on_bpffs(path: &Path) -> Result<bool, DataplaneError> {
    let directory =
        open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
            Errno::ACCESS => unusable(path, "only root may look at it", "run this as root"),
            error => failed("open", path)(error.into()),
        })?;
    let facts = fstatfs(&directory).map_err(|error| failed("look at", path)(error.into()))?;
    Ok(facts.f_type as i64 == BPF_FS_MAGIC)
}

/// What helps where pins can't be.
const REMEDIES: &str = "mount it (`mount -t bpf bpf /sys/fs/bpf`), enter network namespaces with `nsenter --net=` instead of \
                        `ip netns exec`, or name a directory on bpffs with --pin-dir";

fn unusable(path: &Path, cause: impl Into<String>, remedies: &str) -> DataplaneError {
    DataplaneError::PinDirectory { path: path.to_owned(), problem: Advice::by_hand(cause, remedies) }
}

/// Where bpffs is to be mounted for pins to be possible at `path`; `None`: it is there. Only if what we mount is seen by
/// everybody: in another mount namespace (`ip netns exec` makes one) the pins would vanish with it.
fn mount_point(path: &Path) -> Result<Option<&Path>, DataplaneError> {
    if path.components().any(|part| part.as_os_str().to_string_lossy().contains('.')) {
        return Err(unusable(path, "bpffs has no names with a dot", "name another --pin-dir"));
    }
    if on_bpffs(path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path))? {
        return Ok(None);
    }
    if !shares_the_first_mount_namespace() {
        return Err(unusable(path, "it is not on a BPF file system (bpffs)", REMEDIES));
    }
    let target = if path.starts_with(BPFFS) { Path::new(BPFFS) } else { path };
    let hides_something = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    if target == path && hides_something() {
        return Err(unusable(path, "a mount there would hide the files in it", REMEDIES));
    }
    Ok(Some(target))
}

fn mount_bpffs(target: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(target)
        .map_err(|error| unusable(target, format!("it can't be made ({error})"), REMEDIES))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Without a mode it would be open to everybody.
    mount(c"bpf", target, c"bpf", flags, c"mode=0700")
        .map_err(|error| unusable(target, format!("bpffs can't be mounted there ({error})"), REMEDIES))
}

/// Whether process 1 sees what we mount. A mount's id is its own in each namespace, so the same root mount means the same
/// namespace; the links in `/proc/1/ns` would tell more directly, but ask for the right to trace process 1.
fn shares_the_first_mount_namespace() -> bool {
    let root_mount = |process: &str| {
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
        root.split(' ').next().map(ToOwned::to_owned)
    };
    let first = root_mount("1");
    first.is_some() && first == root_mount("self")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataplaneError {
    let path = path.to_owned();
    move |source| DataplaneError::Io { what: format!("{}: cannot {action} it", path.display()), source }
}
