//! This module's own handles on tables that the program writes, for what production has no call for: counting flows,
//! letting them grow old, breaking and forgetting them, and allowing answers anew.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use balancer_common::abi::{Address4, Address6, FlowEntry, FlowKey, SIDE_CLIENT, WireAddress};

/// The flow tables of both families.
pub(super) struct FlowMaps {
    half_open_4: Entries<Address4>,
    established_4: Entries<Address4>,
    half_open_6: Entries<Address6>,
    established_6: Entries<Address6>,
}

type Entries<A> = HashMap<MapData, FlowKey<A>, FlowEntry<A>>;

impl FlowMaps {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            half_open_4: entries(ebpf, "HALF_OPEN_4")?,
            established_4: entries(ebpf, "ESTABLISHED_4")?,
            half_open_6: entries(ebpf, "HALF_OPEN_6")?,
            established_6: entries(ebpf, "ESTABLISHED_6")?,
        })
    }

    /// Entries of handshakes and of established flows.
    pub(super) fn count(&self) -> [usize; 2] {
        [
            self.half_open_4.keys().count() + self.half_open_6.keys().count(),
            self.established_4.keys().count() + self.established_6.keys().count(),
        ]
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        clear(&mut self.half_open_4)?;
        clear(&mut self.established_4)?;
        clear(&mut self.half_open_6)?;
        clear(&mut self.established_6)
    }

    pub(super) fn grow_older(&mut self, by: Duration) -> Result<()> {
        grow_older(&mut self.half_open_4, by)?;
        grow_older(&mut self.established_4, by)?;
        grow_older(&mut self.half_open_6, by)?;
        grow_older(&mut self.established_6, by)
    }

    pub(super) fn tear_apart(&mut self) -> Result<()> {
        tear_apart(&mut self.half_open_4)?;
        tear_apart(&mut self.established_4)?;
        tear_apart(&mut self.half_open_6)?;
        tear_apart(&mut self.established_6)
    }
}

/// How many answers each CPU has sent lately: a moment and a number, see `abi::Budget`.
pub(super) struct Answers(PerCpuArray<MapData, [u64; 2]>);

impl Answers {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self(PerCpuArray::try_from(Map::PerCpuArray(second_handle(ebpf, "ANSWERS")?))?))
    }

    /// As if none had been sent.
    pub(super) fn allow_anew(&mut self) -> Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        Ok(self.0.set(0, PerCpuValues::try_from(vec![[0; 2]; cpus])?, 0)?)
    }
}

/// The production code takes the maps out of the object, so this one finds a map by its id.
fn second_handle(ebpf: &Ebpf, name: &str) -> Result<MapData> {
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    let data = match map {
        Map::HashMap(data) | Map::PerCpuArray(data) => data,
        _ => anyhow::bail!("{name} is a map of another kind"),
    };
    Ok(MapData::from_id(data.info()?.id())?)
}

fn entries<A: WireAddress>(ebpf: &Ebpf, name: &str) -> Result<Entries<A>> {
    Ok(HashMap::try_from(Map::HashMap(second_handle(ebpf, name)?))?)
}

fn clear<A: WireAddress>(table: &mut Entries<A>) -> Result<()> {
    let keys: Vec<FlowKey<A>> = table.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| Ok(table.remove(key)?))
}

fn grow_older<A: WireAddress>(table: &mut Entries<A>, by: Duration) -> Result<()> {
    let entries: Vec<(FlowKey<A>, FlowEntry<A>)> = table.iter().collect::<Result<_, _>>()?;
    for (key, mut entry) in entries {
        entry.last_seen_ns = entry.last_seen_ns.saturating_sub(by.as_nanos() as u64);
        table.insert(key, entry, 0)?;
    }
    Ok(())
}

/// Removes the client's side of every flow.
fn tear_apart<A: WireAddress>(table: &mut Entries<A>) -> Result<()> {
    let entries: Vec<(FlowKey<A>, FlowEntry<A>)> = table.iter().collect::<Result<_, _>>()?;
    for (key, _) in entries.iter().filter(|(_, entry)| entry.side == SIDE_CLIENT) {
        table.remove(key)?;
    }
    Ok(())
}
