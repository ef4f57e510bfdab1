//! The program under test, loaded and told by production code, and what it says of itself.
//!
//! Deliberately absent: how its flow tables are made. Flows come into being by handshakes, and are counted by the
//! product's own census.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use aya::programs::{ProgramFd, ProgramInfo};
use balancer_common::abi::{ActiveWord, Interface, NextHop, Seed};
use balancer_common::verdict::Reason;
use balancer_user::dataplane::flows::{FlowState, FlowTable, Lifetimes};
use balancer_user::dataplane::object::{self, Loaded, Wanted};
use balancer_user::dataplane::slots::{Busy, assign};
use balancer_user::dataplane::tables::Tables;

use super::world::World;
use crate::case::{Side, ifindex};

/// Where an IPv4 flow is when its handshake is complete, by the kernel's names (which have 15 bytes at most).
const ESTABLISHED_4: [&str; 3] = ["ESTABLISHED_4", "ESTAB_TAGS_4", "ESTAB_PAST_4"];

/// Longer than any measurement.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The interfaces' slots.
const SIDES: [(Side, u16); 2] = [(Side::Lan, 1), (Side::Wan, WAN_SLOT)];
/// That of the clients' one.
pub(super) const WAN_SLOT: u16 = 2;

/// A loaded program that knows its pools.
pub(super) struct Gateway {
    program: Loaded,
    tables: Tables,
    /// The product's own view of the flow tables.
    pub(super) flows: FlowTable,
    /// Backend slots by the name of their world.
    slots: BTreeMap<&'static str, u16>,
    pub(super) wanted: Wanted,
    pub(super) maps: Vec<MapSize>,
    pub(super) size: ProgramSize,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets that were forwarded.
    pub(super) forwarded: u64,
    /// Packets that were neither forwarded nor simply passed.
    pub(super) others: BTreeMap<Reason, u64>,
}

/// A table of the program.
#[derive(Clone, Debug)]
pub(super) struct MapSize {
    pub(super) name: String,
    pub(super) entries: u64,
    /// None in an array, whose keys are places.
    pub(super) key_bytes: u64,
    pub(super) value_bytes: u64,
    /// What the kernel has allocated for it (kernel 6.4; before, an estimate).
    pub(super) kernel_bytes: u64,
}

/// What became of the program in the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramSize {
    /// Instructions that the verifier walked through.
    pub(super) verified: u32,
    /// Bytes of instructions that it left.
    pub(super) translated: u32,
    /// Bytes of machine code.
    pub(super) jited: u32,
}

impl Gateway {
    /// Loads the program and tells it of these worlds. The calling thread is in the lab's gateway.
    pub(super) fn load(wanted: Wanted, worlds: &[&'static World]) -> Result<Self> {
        let mut program = object::load(wanted, None).context("load the program")?;
        ensure!(program.frags.is_ok(), "{:?}: the feeder reaches only a program with frags", program.frags);
        let info = program.program()?.info().context("ask for the program's size")?;
        let mut gateway = Self {
            maps: map_sizes(&info)?,
            size: program_size(&info)?,
            tables: Tables::take(&mut program.ebpf)?,
            flows: FlowTable::take(&mut program.ebpf, Lifetimes { established: IDLE_TIMEOUT })?,
            program,
            slots: BTreeMap::new(),
            wanted,
        };
        gateway.tell(worlds)?;
        Ok(gateway)
    }

    fn tell(&mut self, worlds: &[&'static World]) -> Result<()> {
        let plan: Vec<_> = worlds.iter().map(|world| world.pool()).collect();
        let slots = assign(&plan, &self.tables.occupied()?, &Busy::default())?;
        self.tables.write_pools(&plan, &slots)?;
        for (side, slot) in SIDES {
            let ifindex = ifindex(side.interface())?;
            self.tables.set_interface(slot, Interface { ifindex, mtu: 1500, mac: side.mac(), padding: 0 })?;
        }
        let [(_, lan), _] = SIDES;
        for (world, slots) in worlds.iter().zip(&slots) {
            let backend = slots.backends[0].index;
            let (source, mac) = world.way();
            self.tables.set_way(backend, Some((source, NextHop { mac, interface: lan })))?;
            self.tables.set_active(slots.pool.index, ActiveWord::new(backend, 0, 0));
            self.slots.insert(world.name, backend);
        }
        Ok(self.tables.publish_services(&plan, &slots)?)
    }

    /// The program.
    pub(super) fn fd(&mut self) -> Result<&ProgramFd> {
        Ok(self.program.program()?.fd()?)
    }

    /// A handle of one's own on an array of the program, by its name: the production code has taken the maps.
    pub(super) fn array<V: Pod>(&mut self, name: &str) -> Result<Array<MapData, V>> {
        let ids = self.program.program()?.info()?.map_ids()?.context("this kernel doesn't tell maps")?;
        for id in ids {
            if MapInfo::from_id(id)?.name_as_str() == Some(name) {
                let map = Map::from_map_data(MapData::from_id(id)?)?;
                return Array::try_from(map).with_context(|| format!("open {name}"));
            }
        }
        bail!("the program has no map {name}")
    }

    /// What its hashes are made with.
    pub(super) fn seed(&self) -> Result<Seed> {
        let map = self.program.ebpf.map("SEED").context("the object has no map SEED")?;
        Ok(Array::<_, Seed>::try_from(map)?.get(&0, 0)?)
    }

    /// The slot of this world's backend.
    pub(super) fn slot(&self, world: &World) -> Option<u16> {
        self.slots.get(world.name).copied()
    }

    /// What the program has counted of all worlds.
    pub(super) fn counted(&self) -> Result<Counted> {
        let mut counted = Counted::default();
        for slot in self.slots.values() {
            counted.forwarded += self.tables.backend_traffic(*slot)?.packets;
        }
        for (reason, tally) in self.tables.tallies()? {
            counted.others.insert(reason, tally.dropped + tally.answered + tally.passed);
        }
        Ok(counted)
    }

    /// Looks at the age of every flow; returns how many are established, by the name of their world.
    pub(super) fn census(&mut self) -> Result<BTreeMap<&'static str, u64>> {
        let census = self.flows.sweep().established;
        let of = |slot| census.get(slot).copied().unwrap_or_default();
        Ok(self.slots.iter().map(|(name, slot)| (*name, of(slot))).collect())
    }

    /// Looks at every flow as `balancer flows` does; returns how many are established. Those for which there was no place are
    /// still handshakes.
    pub(super) fn listed(&self) -> u64 {
        let mut flows = 0;
        // What is told of a flow is made for whoever wants it, and must not be left out because nobody looks.
        self.flows.for_each(|flow| flows += u64::from(black_box(flow).state == FlowState::Established));
        flows
    }

    /// Bytes of tables for each IPv4 flow that there may be: of keys and values, and all that the kernel allocates.
    pub(super) fn bytes_per_flow(&self) -> [f64; 2] {
        let tables = self.maps.iter().filter(|map| ESTABLISHED_4.contains(&map.name.as_str()));
        let bytes =
            tables.fold([0, 0], |[plain, kernel], map| [plain + map.bytes(), kernel + map.kernel_bytes]);
        bytes.map(|bytes| bytes as f64 / f64::from(self.wanted.max_flows))
    }
}

impl MapSize {
    /// Of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.entries * (self.key_bytes + self.value_bytes)
    }
}

impl Counted {
    /// What was counted since.
    pub(super) fn since(&self, before: &Self) -> Self {
        let others = self
            .others
            .iter()
            .map(|(reason, count)| (*reason, count - before.others.get(reason).copied().unwrap_or_default()));
        Self {
            forwarded: self.forwarded - before.forwarded,
            others: others.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

fn program_size(info: &ProgramInfo) -> Result<ProgramSize> {
    Ok(ProgramSize {
        verified: info.verified_instruction_count().context("this kernel doesn't count what it verifies")?,
        translated: info.size_translated().context("this kernel hides the program's size")?,
        jited: info.size_jitted(),
    })
}

fn map_sizes(info: &ProgramInfo) -> Result<Vec<MapSize>> {
    let ids = info.map_ids()?.context("this kernel doesn't tell a program's maps")?;
    let mut sizes = ids.into_iter().map(map_size).collect::<Result<Vec<_>>>()?;
    sizes.sort_by(|one, other| other.kernel_bytes.cmp(&one.kernel_bytes).then(one.name.cmp(&other.name)));
    Ok(sizes)
}

fn map_size(id: u32) -> Result<MapSize> {
    let info = MapInfo::from_id(id)?;
    let fd = info.fd()?;
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let is_array = matches!(info.map_type()?, MapType::Array | MapType::PerCpuArray);
    let locked = facts.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(MapSize {
        name: info.name_as_str().unwrap_or("?").to_owned(),
        entries: info.max_entries().into(),
        key_bytes: if is_array { 0 } else { info.key_size().into() },
        value_bytes: info.value_size().into(),
        kernel_bytes: locked.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default(),
    })
}
