//! The real program in the kernel, told what it knows by the production code, run on one frame at a time.
//!
//! Everything the controller writes is written by its own calls. Handles of this module's own, on the same maps, are
//! used only for what production has no call for: counting entries, and letting flows grow old.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use balancer_common::abi::{ActiveWord, FlowEntry, FlowKey, Interface, NextHop, SIDE_CLIENT, Traffic};
use balancer_common::limits::{MAX_BACKENDS, MAX_SERVICES};
use balancer_common::verdict::Reason;
use balancer_user::dataplane::flows::{FlowTable, Lifetimes};
use balancer_user::dataplane::object;
use balancer_user::dataplane::slots::{Busy, Occupied, PoolSlots, assign};
use balancer_user::dataplane::tables::Tables;
use nix::net::if_::if_nametoindex;

use super::scene::{GATEWAY, Given, Member, Side};

/// Room for a frame that grew.
const GROWTH_BYTES: usize = 256;
const WAN_MTU: u32 = 1500;
/// The contract's `idle_timeout`: how long established flows live in a [`Gateway`].
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 5 * 60);

/// A loaded program and its tables; they are gone when it is dropped.
pub struct Gateway {
    ebpf: Ebpf,
    tables: Tables,
    /// The product's own view of the flow tables.
    pub flows: FlowTable,
    half_open: HashMap<MapData, FlowKey, FlowEntry>,
    established: HashMap<MapData, FlowKey, FlowEntry>,
    given: Given,
    slots: Vec<PoolSlots>,
}

/// What the program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its return value.
    pub action: Action,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The program's word to the kernel; others than these it must not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the kernel's own stack.
    Pass,
    /// Away with it.
    Drop,
    /// Out through an interface.
    Redirect,
}

/// Every counter, and how many entries the flow tables have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Drops by reason.
    pub drops: BTreeMap<Reason, u64>,
    /// Traffic by service; all are there.
    pub services: BTreeMap<SocketAddrV4, Traffic>,
    /// Traffic by backend's name; all are there.
    pub backends: BTreeMap<String, Traffic>,
    /// Entries of handshakes under way, two for each.
    pub half_open_entries: usize,
    /// Entries of established flows, two for each.
    pub established_entries: usize,
}

impl Gateway {
    /// Loads the program and tells it what is given. The calling thread is in the lab's gateway, and stays there.
    ///
    /// # Errors
    /// Without the object, capabilities, or the interfaces `wan0` and `lan0`.
    pub fn load(given: &Given) -> Result<Self> {
        let mut ebpf = object::load(given.sizes, None).context("load the program")?;
        let half_open = second_handle(&ebpf, "HALF_OPEN")?;
        let established = second_handle(&ebpf, "ESTABLISHED")?;
        let mut tables = Tables::take(&mut ebpf)?;
        let flows = FlowTable::take(&mut ebpf, Lifetimes { established: IDLE_TIMEOUT })?;
        let slots = assign(&given.plan, &Occupied::default(), &Busy::default())?;
        tables.write_pools(&given.plan, &slots)?;
        let given = given.clone();
        let mut gateway = Self { ebpf, tables, flows, half_open, established, given, slots };
        gateway.tell_interfaces_and_ways()?;
        gateway.tables.publish_services(&gateway.given.plan, &gateway.slots)?;
        Ok(gateway)
    }

    fn tell_interfaces_and_ways(&mut self) -> Result<()> {
        for side in self.given.sides.clone() {
            let ifindex = ifindex(side)?;
            let slot = self.tables.interface_slot(ifindex)?;
            let mtu = if side == Side::Lan { self.given.lan_mtu } else { WAN_MTU };
            self.tables.set_interface(slot, Interface { ifindex, mtu, mac: side.mac(), padding: 0 })?;
        }
        let backends: Vec<(u16, Member)> = self.members().collect();
        for (slot, member) in backends {
            if !self.given.unreachable.contains(&member) {
                self.set_way(slot, Some(member))?;
            }
        }
        for (pool, slots) in self.given.plan.iter().zip(&self.slots) {
            let first = slots.backends.first().map(|slot| slot.index);
            let active =
                if pool.name == "mail" { first } else { self.given.active.and_then(|it| self.slot(it)) };
            self.tables.set_active(slots.pool.index, ActiveWord::new(active.unwrap_or(0), 0, 0));
        }
        Ok(())
    }

    /// The backends of the plan with their slots.
    fn members(&self) -> impl Iterator<Item = (u16, Member)> {
        let all = [super::scene::PRIMARY, super::scene::BACKUP, super::scene::POSTMAN];
        all.into_iter().filter_map(|member| Some((self.slot(member)?, member)))
    }

    /// The slot of a backend, if the plan has it.
    #[must_use]
    pub fn slot(&self, member: Member) -> Option<u16> {
        self.backend_slots().into_iter().find_map(|(name, slot)| (name == member.name).then_some(slot))
    }

    fn backend_slots(&self) -> Vec<(String, u16)> {
        let pools = self.given.plan.iter().zip(&self.slots);
        let named = pools.flat_map(|(pool, slots)| pool.backends.iter().zip(&slots.backends));
        named.map(|(backend, slot)| (backend.name.clone(), slot.index)).collect()
    }

    fn service_slots(&self) -> Vec<(SocketAddrV4, u16)> {
        let pools = self.given.plan.iter().zip(&self.slots);
        let listening = pools.flat_map(|(pool, slots)| pool.services.iter().zip(&slots.services));
        listening.map(|(service, slot)| (service.listen, slot.index)).collect()
    }

    fn set_way(&mut self, slot: u16, member: Option<Member>) -> Result<()> {
        let lan = self.tables.interface_slot(ifindex(Side::Lan)?)?;
        let way = member.map(|member| (GATEWAY, NextHop { mac: member.mac, interface: lan }));
        Ok(self.tables.set_way(slot, way)?)
    }

    /// Makes a backend the active one of its pool; `None`: `passwords` has none.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn activate(&mut self, member: Option<Member>) -> Result<()> {
        let slot = member.map(|member| self.slot(member).context("a backend of the plan")).transpose()?;
        self.tables.set_active(self.slots[0].pool.index, ActiveWord::new(slot.unwrap_or(0), 0, 0));
        Ok(())
    }

    /// Takes back the way to a backend.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn lose_way(&mut self, member: Member) -> Result<()> {
        let slot = self.slot(member).context("a backend of the plan")?;
        self.set_way(slot, None)
    }

    /// Makes all flows older: as if nothing had happened for this long.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn grow_older(&mut self, by: Duration) -> Result<()> {
        for table in [&mut self.half_open, &mut self.established] {
            let entries: Vec<(FlowKey, FlowEntry)> = table.iter().collect::<Result<_, _>>()?;
            for (key, mut entry) in entries {
                entry.last_seen_ns = entry.last_seen_ns.saturating_sub(by.as_nanos() as u64);
                table.insert(key, entry, 0)?;
            }
        }
        Ok(())
    }

    /// Removes the client's side of every flow, as nothing ever should: what remains is half a flow.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn tear_flows_apart(&mut self) -> Result<()> {
        for table in [&mut self.half_open, &mut self.established] {
            let entries: Vec<(FlowKey, FlowEntry)> = table.iter().collect::<Result<_, _>>()?;
            for (key, _) in entries.iter().filter(|(_, entry)| entry.side == SIDE_CLIENT) {
                table.remove(key)?;
            }
        }
        Ok(())
    }

    /// Deletes the device of this side, as when a card is pulled.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn pull(&self, side: Side) -> Result<()> {
        let status = Command::new("ip").args(["link", "delete", side.interface()]).status()?;
        ensure!(status.success(), "ip link delete {}: {status}", side.interface());
        Ok(())
    }

    /// One frame through the program, as if it had come in on this side.
    ///
    /// # Errors
    /// When the kernel refuses to run it, or the program answers with anything but an [`Action`].
    pub fn run(&mut self, through: Side, frame: &[u8]) -> Result<Outcome> {
        let mut after = vec![0; frame.len() + GROWTH_BYTES];
        let context = xdp_md(frame.len(), ifindex(through)?);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = object::program(&mut self.ebpf)?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        after.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            4 => Action::Redirect,
            other => anyhow::bail!("the program answers {other}"),
        };
        Ok(Outcome { action, frame: after })
    }

    /// All counters of who is in the plan.
    ///
    /// # Errors
    /// When a table can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let mut counters = Counters {
            drops: self.tables.drops()?.into_iter().collect(),
            half_open_entries: self.half_open.keys().count(),
            established_entries: self.established.keys().count(),
            ..Counters::default()
        };
        for (listen, slot) in self.service_slots() {
            counters.services.insert(listen, self.tables.service_traffic(slot)?);
        }
        for (name, slot) in self.backend_slots() {
            counters.backends.insert(name, self.tables.backend_traffic(slot)?);
        }
        Ok(counters)
    }

    /// Fails when a slot that nobody has was counted in.
    ///
    /// # Errors
    /// As told, or when a table can't be read.
    pub fn nothing_is_counted_elsewhere(&self) -> Result<()> {
        let services: Vec<u16> = self.service_slots().into_iter().map(|(_, slot)| slot).collect();
        let backends: Vec<u16> = self.backend_slots().into_iter().map(|(_, slot)| slot).collect();
        for slot in (0..MAX_SERVICES as u16).filter(|slot| !services.contains(slot)) {
            ensure!(
                self.tables.service_traffic(slot)? == Traffic::default(),
                "service slot {slot} was counted"
            );
        }
        for slot in (0..MAX_BACKENDS as u16).filter(|slot| !backends.contains(slot)) {
            ensure!(
                self.tables.backend_traffic(slot)? == Traffic::default(),
                "backend slot {slot} was counted"
            );
        }
        Ok(())
    }
}

/// `struct xdp_md` of the kernel's ABI: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
/// Offsets, not pointers, for a test run.
fn xdp_md(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn ifindex(side: Side) -> Result<u32> {
    if_nametoindex(side.interface()).with_context(|| format!("look for {} in this network", side.interface()))
}

/// The production code takes the maps out of the object, so this one finds the map by its id.
fn second_handle(ebpf: &Ebpf, name: &str) -> Result<HashMap<MapData, FlowKey, FlowEntry>> {
    let Some(Map::HashMap(map)) = ebpf.map(name) else { anyhow::bail!("the object has no hash map {name}") };
    Ok(HashMap::try_from(Map::HashMap(MapData::from_id(map.info()?.id())?))?)
}
