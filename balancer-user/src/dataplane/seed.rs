//! The seed of flows' hashes: random, the program's constant, and kept beside the tables, in which nothing that was found by
//! it would be found by another.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData};
use balancer_common::abi::{SEED_WORDS, Seed};
use rustix::rand::{GetRandomFlags, getrandom};

use super::DataplaneError;
use super::links::LINK;

/// Where it is kept.
const MAP: &str = "SEED";

/// The one that is pinned here, or a new one that nobody can guess.
pub(super) fn known_or_new(pins: Option<&Path>) -> Result<Seed, DataplaneError> {
    if let Some(path) = pins.map(|pins| pins.join(MAP)).filter(|path| path.exists()) {
        let map = MapData::from_pin(&path).map_err(DataplaneError::map("opening", MAP))?;
        let known: Array<_, Seed> =
            Map::from_map_data(map).and_then(Array::try_from).map_err(DataplaneError::map("opening", MAP))?;
        let known = known.get(&0, 0).map_err(DataplaneError::map("reading", MAP))?;
        // All zero: whoever made the maps was ended before he could write, and before any flow was made.
        return if known == Seed::default() { random() } else { Ok(known) };
    }
    // A start that was ended while it made the maps left no link, and maps that were given up left nothing else; with both,
    // flows may have been made.
    if let Some(pins) = pins.filter(|pins| has(pins, true) && has(pins, false)) {
        let difference = "it is missing, and without it no flow in the tables is found".to_owned();
        return Err(DataplaneError::NotAdoptable { path: pins.join(MAP), difference });
    }
    random()
}

/// Whether links are pinned here, or maps.
fn has(pins: &Path, links: bool) -> bool {
    let mut names = std::fs::read_dir(pins).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with(LINK) == links)
}

/// One that nobody can guess.
fn random() -> Result<Seed, DataplaneError> {
    let mut seed = Seed([0; SEED_WORDS]);
    for word in &mut seed.0 {
        let mut random = [0; size_of::<u64>()];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|error| DataplaneError::Io {
            what: "asking for random numbers".into(),
            source: error.into(),
        })?;
        // Words of keys are multiplied with it: an odd one loses nothing of them.
        *word = u64::from_ne_bytes(random) | 1;
    }
    Ok(seed)
}

/// Keeps it with the tables.
pub(super) fn keep(ebpf: &mut Ebpf, seed: &Seed) -> Result<(), DataplaneError> {
    let map = ebpf.map_mut(MAP).ok_or(DataplaneError::ObjectLacks(MAP))?;
    let mut map: Array<&mut MapData, Seed> =
        Array::try_from(map).map_err(DataplaneError::map("opening", MAP))?;
    map.set(0, seed, 0).map_err(DataplaneError::map("writing", MAP))
}
