//! What the kernel holds for one instance: its programs, links and maps, by the kernel's ids.
//!
//! Found from the links that `status` names, by who refers to whom: a forgotten program still refers to the instance's
//! maps. Counting everything that the kernel has would count the labs of other tests too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use serde_json::Value;

use crate::{gateway::Status, lab::Host};

/// Ids of everything that an instance holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All that use one of the maps, attached or not.
    pub programs: BTreeSet<u32>,
    /// Of all those programs.
    pub links: BTreeSet<u32>,
    /// Of the attached programs.
    pub maps: BTreeSet<u32>,
}

impl Inventory {
    /// Of the instance with this status. What vanishes while it is listed is gone, and isn't counted.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let own_links = status.link_ids();
        let links: Vec<_> = loaded_links().filter_map(Result::ok).collect();
        let own_links = links.iter().filter(|link| own_links.contains(&link.id().into()));
        let attached: BTreeSet<_> = own_links.map(|link| link.program_id()).collect();
        let programs: Vec<_> = loaded_programs()
            .filter_map(Result::ok)
            .map(|program| (program.id(), program.map_ids().ok().flatten().unwrap_or_default()))
            .collect();
        let maps: BTreeSet<_> = programs
            .iter()
            .filter(|(id, _)| attached.contains(id))
            .flat_map(|(_, maps)| maps.iter().copied())
            .collect();
        let programs: BTreeSet<_> = programs
            .into_iter()
            .filter(|(_, used)| used.iter().any(|map| maps.contains(map)))
            .map(|(id, _)| id)
            .collect();
        let links = links.iter().filter(|link| programs.contains(&link.program_id())).map(|link| link.id());
        Self { links: links.collect(), programs, maps }
    }

    /// What of it the kernel still has.
    #[must_use]
    pub fn remaining(&self) -> Self {
        let programs = loaded_programs().filter_map(Result::ok).map(|program| program.id());
        let links = loaded_links().filter_map(Result::ok).map(|link| link.id());
        let maps = loaded_maps().filter_map(Result::ok).map(|map| map.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
        }
    }

    /// How many programs, links and maps.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.programs.len(), self.links.len(), self.maps.len()]
    }
}

/// The XDP programs on a host's interfaces as `ip link` shows them: interface and program id.
///
/// # Errors
/// When `ip` fails or says something else than expected.
pub fn attached_programs(host: &Host) -> Result<BTreeMap<String, u64>> {
    let shown = host.run(["ip", "-json", "link", "show"])?.stdout;
    let links: Vec<Value> = serde_json::from_slice(&shown).context("the answer of ip -json link show")?;
    let program =
        |link: &Value| Some((link["ifname"].as_str()?.to_owned(), link["xdp"]["prog"]["id"].as_u64()?));
    Ok(links.iter().filter_map(program).collect())
}
