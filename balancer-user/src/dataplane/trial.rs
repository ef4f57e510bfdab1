//! What would come of a start, for whoever only looks (`balancer doctor`): whether the kernel takes the program, what its
//! tables would take, whether pinned ones could be adopted, and whose another program is. Nothing is pinned or attached.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{loaded_links, loaded_programs};
use balancer_common::abi::Tally;
use balancer_common::verdict::Reason;

use super::DataplaneError;
use super::object::{self, Wanted};

/// What the kernel can do with the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Frames may lie in several buffers; if not, why.
    pub frags: Result<(), String>,
    /// Frames can be put before the program; if not, why.
    pub live_frames: Result<(), String>,
    /// It was compiled to machine code.
    pub is_compiled: bool,
}

/// Loads the program with tables of no size, and lets go of it.
pub fn try_out() -> Result<Trial, DataplaneError> {
    let mut loaded =
        object::load(Wanted { max_flows: 1, max_half_open: 1, ipv4: true, ipv6: true, frags: true }, None)?;
    let info = loaded.program()?.info().map_err(|error| DataplaneError::Program(Box::new(error)))?;
    Ok(Trial { frags: loaded.frags, live_frames: loaded.live_frames, is_compiled: info.size_jitted() > 0 })
}

/// Memory that the values of the tables take, in bytes; nearly all of it is in arrays, which keep no keys.
pub fn memory(wanted: Wanted) -> Result<u64, DataplaneError> {
    let all_cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u64);
    let object = object::parsed()?;
    let sized = wanted.entries();
    let of_one = |(name, map): (&String, &aya_obj::Map)| {
        let entries =
            sized.iter().find(|(sized, _)| sized == name).map_or(map.max_entries(), |(_, entries)| *entries);
        let cpus = if is_per_cpu(map.map_type()) { all_cpus } else { 1 };
        u64::from(map.value_size().next_multiple_of(8)) * u64::from(entries) * cpus
    };
    Ok(object::shared(&object).map(of_one).sum())
}

/// The sizes with which a start would adopt what is pinned in this layout's directory; an error if that isn't what this build
/// would make.
pub fn adoptable(wanted: Wanted, directory: &Path) -> Result<Wanted, DataplaneError> {
    let kept = wanted.of_pinned_sizes(directory);
    object::adoptable(kept, directory).map(|_| kept)
}

/// Packets that were dropped for this reason since the tables were made that are pinned in this layout's directory.
pub fn dropped(reason: Reason, directory: &Path) -> Result<u64, DataplaneError> {
    const REASONS: &str = "REASONS";
    let failed = |operation| DataplaneError::map(operation, REASONS);
    let map =
        MapData::from_pin(directory.join(REASONS)).and_then(Map::from_map_data).map_err(failed("opening"))?;
    let reasons: PerCpuArray<MapData, Tally> = map.try_into().map_err(failed("opening"))?;
    let tallies = reasons.get(&(reason as u32), 0).map_err(failed("reading"))?;
    Ok(tallies.iter().map(|tally| tally.dropped).sum())
}

/// What the kernel tells of a program, if this process may ask (CAP_SYS_ADMIN).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The name that its owner has given to it.
    pub name: Option<String>,
    /// The link that holds it; without one it was attached by netlink.
    pub link: Option<u32>,
}

/// Whose a program is.
#[must_use]
pub fn owner(program: u32) -> Owner {
    let known = loaded_programs().filter_map(Result::ok).find(|known| known.id() == program);
    let link = loaded_links().filter_map(Result::ok).find(|link| link.program_id() == program);
    Owner {
        name: known.and_then(|known| known.name_as_str().map(ToOwned::to_owned)),
        link: link.map(|link| link.id()),
    }
}

fn is_per_cpu(kind: u32) -> bool {
    use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH};
    [BPF_MAP_TYPE_PERCPU_ARRAY as u32, BPF_MAP_TYPE_PERCPU_HASH as u32].contains(&kind)
}
