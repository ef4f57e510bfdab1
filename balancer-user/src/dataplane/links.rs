//! Pinned links: which device the program of each is on, whatever that is called now.
//!
//! A pin has the name that its interface had; devices are renamed, and names are given to others. So a link is found by its
//! device. bpffs moves a pin in one step, also over another one, whose link then ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::sys::SyscallError;

use super::DataplaneError;

/// What links' pins begin with.
pub(super) const LINK: &str = "link-";
/// What a pin ends with on its way to another name.
const MOVING: &str = "%moving";
/// So often a directory is read in which names change: each change takes microseconds, and comes when a person or udev renames
/// an interface.
const READINGS: usize = 16;

/// A pinned link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The pin.
    pub path: PathBuf,
    /// The kernel's id of the link.
    pub id: u32,
    /// The kernel's id of its program.
    pub program_id: u32,
    /// The kernel's index of the device, in the network namespace that it is in; `None`: it is gone.
    pub ifindex: Option<u32>,
}

impl Pinned {
    /// Whether it is on the device of this index, which has this program: one in another network namespace may have the same
    /// index.
    #[must_use]
    pub fn is_on(&self, ifindex: u32, program_id: u32) -> bool {
        self.program_id == program_id && self.ifindex == Some(ifindex)
    }
}

/// A link's pin, by interface name. bpffs has no names with a dot, which VLAN interfaces usually have.
pub(super) fn pin_path(pins: &Path, interface: &str) -> PathBuf {
    pins.join(format!("{LINK}{}", interface.replace('%', "%25").replace('.', "%2e")))
}

/// The links that are pinned in a directory; none where there is no directory. Others may rename pins meanwhile.
pub fn pinned(pins: &Path) -> Result<Vec<Pinned>, DataplaneError> {
    let open = |path: &Path| {
        let link = PinnedLink::from_pin(path).map_err(|error| match error {
            LinkError::SyscallError(SyscallError { io_error, .. }) => io_error,
            error => io::Error::other(error),
        })?;
        let link: FdLink = link.into();
        let info = link.info().map_err(io::Error::other)?;
        let (id, program_id) = (info.id(), info.program_id());
        Ok(Pinned { path: path.to_owned(), id, program_id, ifindex: device(id)? })
    };
    opened(pins, open)
}

/// Opens each link's pin. Whoever reads a directory while a pin gets another name may see it twice, or not at all: what was
/// opened counts if the names are the same afterwards.
fn opened<T>(pins: &Path, mut open: impl FnMut(&Path) -> io::Result<T>) -> Result<Vec<T>, DataplaneError> {
    let mut paths = listed(pins)?;
    for _ in 0..READINGS {
        let mut links = Vec::new();
        for path in &paths {
            match open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                link => links.push(link.map_err(|error| pin_error(path, error))?),
            }
        }
        let now = listed(pins)?;
        if links.len() == paths.len() && now == paths {
            return Ok(links);
        }
        paths = now;
    }
    Err(pin_error(pins, "its links have other names each time it is read: try again"))
}

/// The links' pins, in the order of their names.
fn listed(pins: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let entries = match fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| pin_error(pins, error))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| pin_error(pins, error))?;
        if entry.file_name().to_string_lossy().starts_with(LINK) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The device that the program of a link of this id is on, as the kernel shows it among our open files.
fn device(id: u32) -> io::Result<Option<u32>> {
    let shown = id.to_string();
    for file in fs::read_dir("/proc/self/fdinfo")? {
        // Others are opened and closed meanwhile.
        let Ok(text) = fs::read_to_string(file?.path()) else { continue };
        if value(&text, "link_id:") == Some(&shown) {
            let ifindex = value(&text, "ifindex:").and_then(|index| index.parse().ok());
            return Ok(ifindex.filter(|index| *index != 0));
        }
    }
    Err(io::Error::other("the kernel does not show it in /proc/self/fdinfo"))
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Moves pins to other names, all at once: names may be exchanged. What was there before ends.
pub(super) fn rename(moves: &[(PathBuf, PathBuf)]) -> Result<(), DataplaneError> {
    let moves: Vec<_> = moves.iter().filter(|(from, to)| from != to).collect();
    let between = |to: &Path| {
        let mut name = to.to_owned().into_os_string();
        name.push(MOVING);
        PathBuf::from(name)
    };
    for (from, to) in &moves {
        fs::rename(from, between(to)).map_err(|error| pin_error(from, error))?;
    }
    for (_, to) in &moves {
        fs::rename(between(to), to).map_err(|error| pin_error(to, error))?;
    }
    Ok(())
}

pub(super) fn pin_error(path: &Path, problem: impl std::fmt::Display) -> DataplaneError {
    DataplaneError::Pin { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_dot_has_a_pin_without_one() {
        assert_eq!(pin_path(Path::new("/pins"), "eth0.10"), Path::new("/pins/link-eth0%2e10"));
    }

    #[test]
    fn the_device_of_a_link_is_read_as_the_kernel_writes_it() {
        let text = "pos:\t0\nlink_type:\txdp\nlink_id:\t7\nprog_tag:\tabc\nprog_id:\t9\nifindex:\t3\n";
        assert_eq!((value(text, "link_id:"), value(text, "ifindex:")), (Some("7"), Some("3")));
    }

    #[test]
    fn names_are_exchanged_and_what_was_there_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name), name).unwrap();
        }
        rename(&[(path("a"), path("b")), (path("b"), path("a")), (path("c"), path("c"))]).unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!([read("a"), read("b"), read("c")], ["b", "a", "c"]);
        rename(&[(path("a"), path("c"))]).unwrap();
        assert_eq!((read("c"), path("a").exists()), ("b".to_owned(), false));
    }

    #[test]
    fn a_pin_that_gets_another_name_while_it_is_looked_at_is_found_by_that() {
        let directory = tempfile::tempdir().unwrap();
        let [from, between, to] =
            ["link-eth0", "link-wan%moving", "link-wan"].map(|name| directory.path().join(name));
        fs::write(&from, "the link").unwrap();
        fs::write(directory.path().join("SERVICES"), "").unwrap();
        let mut steps = vec![(between.clone(), to.clone()), (from.clone(), between)];
        // Its name is another one just before it is opened, twice.
        let open = |path: &Path| {
            steps.pop().map_or(Ok(()), |(from, to)| fs::rename(from, to))?;
            Ok((path.to_owned(), fs::read_to_string(path)?))
        };
        assert_eq!(opened(directory.path(), open).unwrap(), [(to.clone(), "the link".to_owned())]);
        // And once after it was opened, as another one that was not there before.
        let mut is_first = true;
        let open = |path: &Path| {
            let text = fs::read_to_string(path)?;
            if std::mem::take(&mut is_first) {
                fs::rename(&to, &from)?;
            }
            Ok((path.to_owned(), text))
        };
        assert_eq!(opened(directory.path(), open).unwrap(), [(from, "the link".to_owned())]);
        assert_eq!(opened(&directory.path().join("gone"), |_| Ok(())).unwrap(), []);
    }

    #[test]
    fn a_directory_whose_names_never_stay_is_an_error_and_what_can_not_be_opened_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = |n: usize| directory.path().join(format!("link-{n}"));
        fs::write(path(0), "").unwrap();
        let mut n = 0;
        let open = |_: &Path| {
            n += 1;
            fs::rename(path(n - 1), path(n))
        };
        assert!(opened(directory.path(), open).is_err());
        assert_eq!(n, READINGS);
        let denied = opened(directory.path(), |_| Err::<(), _>(io::ErrorKind::PermissionDenied.into()));
        let said = denied.unwrap_err().to_string();
        assert!(said.contains(&format!("link-{READINGS}")) && said.contains("permission denied"), "{said}");
    }
}
