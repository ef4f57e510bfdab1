//! The BPF object: embedded, loaded with its tables sized and, if wanted, pinned.

use std::path::Path;

use aya::EbpfLoader;
use aya::maps::MapData;
use aya::programs::Xdp;
use rustix::thread::{CapabilitySet, capabilities};

use super::DataplaneError;

/// A loaded object. Whoever holds it holds its program and those of its maps that were not taken.
pub use aya::Ebpf;

/// What `cargo xtask build` made; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer.bpf.o"));

const PROGRAM: &str = "balancer";

/// SHA-256 of the embedded object in hex; `None` in a build without it.
#[must_use]
pub fn hash() -> Option<&'static str> {
    Some(env!("BALANCER_BPF_OBJECT_HASH")).filter(|hash| *hash != "none")
}

/// Sizes that the configuration decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Established flows.
    pub max_flows: u32,
    /// Handshakes under way.
    pub max_half_open: u32,
}

impl TableSizes {
    /// Each flow has an entry for each direction.
    fn entries(&self) -> [(&'static str, u32); 2] {
        [
            ("ESTABLISHED", self.max_flows.saturating_mul(2)),
            ("HALF_OPEN", self.max_half_open.saturating_mul(2)),
        ]
    }
}

/// Loads object and program. With `pins` its maps are made there, or adopted when they are there already: only if each
/// of them is exactly what this build would make.
pub fn load(sizes: TableSizes, pins: Option<&Path>) -> Result<Ebpf, DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoObject);
    }
    let names = match pins {
        Some(directory) => adoptable(sizes, directory)?,
        None => Vec::new(),
    };
    let mut loader = EbpfLoader::new();
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    if let Some(directory) = pins {
        for name in &names {
            loader.map_pin_path(name, directory.join(name));
        }
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| DataplaneError::Load(Box::new(error)))?;
    program(&mut ebpf)?.load().map_err(|error| DataplaneError::Program(Box::new(error)))?;
    Ok(ebpf)
}

/// The XDP program of a loaded object.
pub fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::ObjectLacks("XDP program"))
}

/// The names of the object's maps, after each one that is pinned was compared with what this build would make: aya
/// reuses a pinned map without a look.
fn adoptable(sizes: TableSizes, directory: &Path) -> Result<Vec<String>, DataplaneError> {
    let object = aya_obj::Object::parse(OBJECT)
        .map_err(|error| DataplaneError::Load(Box::new(aya::EbpfError::ParseError(error))))?;
    let mut names = Vec::new();
    for (name, map) in &object.maps {
        let path = directory.join(name);
        names.push(name.clone());
        if !path.exists() {
            continue;
        }
        let not_adoptable = |difference| DataplaneError::NotAdoptable { path: path.clone(), difference };
        let pinned = MapData::from_pin(&path)
            .and_then(|pinned| pinned.info())
            .map_err(|error| not_adoptable(format!("it can't be opened ({error})")))?;
        let entries = sizes
            .entries()
            .into_iter()
            .find_map(|(sized, entries)| (sized == name).then_some(entries))
            .unwrap_or(map.max_entries());
        let facts = [
            ("its type", pinned.map_type().map_or(u32::MAX, |kind| kind as u32), map.map_type()),
            ("its key size", pinned.key_size(), map.key_size()),
            ("its value size", pinned.value_size(), map.value_size()),
            ("its number of entries", pinned.max_entries(), entries),
        ];
        if let Some((what, found, wanted)) = facts.into_iter().find(|(_, found, wanted)| found != wanted) {
            return Err(not_adoptable(format!(
                "{what} is {found}, this configuration and build want {wanted}"
            )));
        }
    }
    Ok(names)
}

/// Names what this process lacks before the kernel's bare EPERM does.
pub fn require_capabilities() -> Result<(), DataplaneError> {
    let effective = capabilities(None)
        .map_err(|error| DataplaneError::Io { what: "reading capabilities".into(), source: error.into() })?
        .effective;
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON, as before Linux 5.8.
    let admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let wanted = [
        (CapabilitySet::BPF, "CAP_BPF", admin),
        (CapabilitySet::PERFMON, "CAP_PERFMON", admin),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", false),
    ];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|(capability, _, included)| !included && !effective.contains(*capability))
        .map(|(_, name, _)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataplaneError::MissingCapabilities { missing: missing.join(", ") })
}
