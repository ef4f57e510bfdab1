//! The real program in the kernel, told what it knows by the production code, run on one frame at a time.
//!
//! Everything the controller writes is written by its own calls; what else is done to tables is in `tables`.

mod changes;
mod counted;
mod idle;
mod traced;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunOptions};
use balancer_common::abi::{ActiveWord, Interface, NextHop};
use balancer_user::dataplane::flows::{FlowTable, Lifetimes};
use balancer_user::dataplane::object::{self, Loaded, Wanted};
use balancer_user::dataplane::repeats::Repeats;
use balancer_user::dataplane::slots::{Busy, PoolPlan, PoolSlots, assign};
use balancer_user::dataplane::tables::Tables;
use nix::net::if_::if_nametoindex;

use super::given::Given;
use super::plan;
use super::scene::{Member, Scene, Side};
use super::tables::{Answers, FlowMaps, Searches};
use super::watch::Watch;

pub use idle::Borrowed;

use idle::idle;

/// Room for a frame that grew.
const GROWTH_BYTES: usize = 256;
/// The contract's `idle_timeout`: how long established flows live in a [`Gateway`].
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 5 * 60);

/// Where the program finds its interfaces; a slot more than they need is never used.
const INTERFACE_SLOTS: [(Side, u16); 2] = [(Side::Lan, 1), (Side::Wan, 2)];

/// A loaded program and its tables; they are gone when it is dropped.
pub struct Gateway {
    wanted: Wanted,
    program: Loaded,
    tables: Tables,
    /// The product's own view of the flow tables.
    pub flows: Arc<FlowTable>,
    flow_maps: FlowMaps,
    answers: Answers,
    searches: Searches,
    watch: Watch,
    given: Given,
    plan: Vec<PoolPlan>,
    slots: Vec<PoolSlots>,
    /// Ways and active backends are as they were given.
    is_as_given: bool,
    /// What is counted isn't what is there.
    is_crowded: bool,
    repeats: Repeats,
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

impl Gateway {
    /// A program that has been told this and knows no flows: one that nobody uses, or a new one. The calling thread is
    /// in the lab's gateway, and stays there.
    ///
    /// # Errors
    /// Without the object, capabilities, or the interfaces `wan0` and `lan0`.
    pub fn told(given: &Given) -> Result<Borrowed> {
        let mut gateway = match idle(|gateway| gateway.wanted == plan::wanted(given)) {
            Some(gateway) => gateway,
            None => Self::load(given)?,
        };
        gateway.tell_all(given)?;
        Ok(Borrowed(Some(gateway)))
    }

    fn load(given: &Given) -> Result<Self> {
        let wanted = plan::wanted(given);
        let mut program = object::load(wanted, None).context("load the program")?;
        // Before they are taken.
        let flow_maps = FlowMaps::of(&program.ebpf)?;
        let flows = FlowTable::take(&mut program.ebpf, Lifetimes { established: IDLE_TIMEOUT })?;
        Ok(Self {
            wanted,
            flow_maps,
            answers: Answers::of(&program.ebpf)?,
            searches: Searches::of(&program.ebpf)?,
            watch: Watch::begin(&mut program.ebpf)?,
            tables: Tables::take(&mut program.ebpf)?,
            repeats: Repeats::new(&flows),
            flows: flows.into(),
            program,
            given: given.clone(),
            plan: Vec::new(),
            slots: Vec::new(),
            is_as_given: false,
            is_crowded: false,
        })
    }

    /// Tells it this instead of what it has been told before, as a reload does, and forgets all flows.
    fn tell_all(&mut self, given: &Given) -> Result<()> {
        self.given = given.clone();
        self.plan = plan::pools(given);
        self.slots = assign(&self.plan, &self.tables.occupied()?, &Busy::default())?;
        self.tables.write_pools(&self.plan, &self.slots)?;
        self.tell_interfaces()?;
        self.is_as_given = false;
        self.begin_anew()
    }

    /// Tells it this, and makes it forget all flows; what was counted stays.
    ///
    /// # Errors
    /// When the tables can't be read or written, or when this wants another program.
    pub fn tell(&mut self, given: &Given) -> Result<()> {
        ensure!(self.wanted == plan::wanted(given), "this wants another program");
        if self.given == *given { self.begin_anew() } else { self.tell_all(given) }
    }

    /// Whether it can be told this.
    pub(super) fn can_be_told(&self, given: &Given) -> bool {
        self.wanted == plan::wanted(given)
    }

    /// Forgets all flows, that it has answered anybody, and what happened to backends since it was told of them; what was
    /// counted stays.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn begin_anew(&mut self) -> Result<()> {
        self.flow_maps.clear()?;
        self.repeats = Repeats::new(&self.flows);
        self.is_crowded = false;
        self.answers.allow_anew()?;
        self.searches.allow_anew()?;
        self.watch.want_all()?;
        if !self.is_as_given {
            self.tell_ways_and_active()?;
            self.tables.publish_services(&self.plan, &self.slots)?;
            self.is_as_given = true;
        }
        Ok(())
    }

    /// An unknown interface's place is taken by another one: there is no call to forget one.
    fn tell_interfaces(&mut self) -> Result<()> {
        for (side, slot) in INTERFACE_SLOTS {
            let is_known = self.given.sides.contains(&side);
            let ifindex = if is_known { ifindex(side.interface())? } else { ifindex("lo")? };
            let mtu = if side == Side::Lan { self.given.lan_mtu } else { self.given.wan_mtu };
            self.tables.set_interface(slot, Interface { ifindex, mtu, mac: side.mac(), padding: 0 })?;
        }
        Ok(())
    }

    fn tell_ways_and_active(&mut self) -> Result<()> {
        let [(_, interface), _] = INTERFACE_SLOTS;
        let services = self.slots.iter().flat_map(|slots| &slots.services);
        services.for_each(|service| self.tables.set_trial(service.index, 0));
        for pool in self.given.clone().pools {
            for member in pool.scene.members() {
                let slot = self.slot(member).context("a backend of the plan")?;
                let is_reachable = !self.given.unreachable.contains(&member);
                let hop = NextHop { mac: member.mac, interface };
                self.tables.set_way(slot, is_reachable.then_some((pool.scene.gateway, hop)))?;
            }
            self.set_active(pool.scene, pool.active);
        }
        Ok(())
    }

    /// Makes a backend the active one of this pool, or nobody.
    fn set_active(&self, scene: &Scene, member: Option<Member>) {
        let slot = member.and_then(|member| self.slot(member));
        if let Some(member) = member {
            self.set_successors(scene, member);
        }
        self.set_word(scene, ActiveWord::new(slot.unwrap_or(0), 0, 0));
    }

    /// The backends that attempts go on to which the active one did not take: all behind it, in order.
    fn set_successors(&self, scene: &Scene, active: Member) {
        let behind = |member: &Member| *member != active && !self.given.are_alone;
        let slots = scene.members().into_iter().filter(behind).filter_map(|member| self.slot(member));
        let slots: Vec<u16> = slots.collect();
        for (_, pool) in self.plan.iter().zip(&self.slots).filter(|(pool, _)| pool.name == scene.name) {
            self.tables.set_successors(pool.pool.index, &slots);
        }
    }

    fn set_word(&self, scene: &Scene, word: ActiveWord) {
        let pools = self.plan.iter().zip(&self.slots);
        for (_, slots) in pools.filter(|(pool, _)| pool.name == scene.name) {
            self.tables.set_active(slots.pool.index, word);
        }
    }

    /// The slot of a backend, if the plan has it.
    #[must_use]
    pub fn slot(&self, member: Member) -> Option<u16> {
        self.backend_slots().into_iter().find_map(|(name, slot)| (name == member.name).then_some(slot))
    }

    fn backend_slots(&self) -> Vec<(String, u16)> {
        let pools = self.plan.iter().zip(&self.slots);
        let named = pools.flat_map(|(pool, slots)| pool.backends.iter().zip(&slots.backends));
        named.map(|(backend, slot)| (backend.name.clone(), slot.index)).collect()
    }

    /// The slot of the service that listens there.
    #[must_use]
    pub fn service_slot(&self, listen: SocketAddr) -> Option<u16> {
        self.service_slots().into_iter().find_map(|(at, slot)| (at == listen).then_some(slot))
    }

    fn service_slots(&self) -> Vec<(SocketAddr, u16)> {
        let pools = self.plan.iter().zip(&self.slots);
        let listening = pools.flat_map(|(pool, slots)| pool.services.iter().zip(&slots.services));
        listening.map(|(service, slot)| (service.listen, slot.index)).collect()
    }

    /// One frame through the program, as if it had come in on this side.
    ///
    /// # Errors
    /// When the kernel refuses to run it, or the program answers with anything but an [`Action`].
    pub fn run(&mut self, through: Side, frame: &[u8]) -> Result<Outcome> {
        self.watch.allow_anew()?;
        self.run_on(through, frame)
    }

    /// The same, without room for more to be told of to whoever traces.
    ///
    /// # Errors
    /// As [`Gateway::run`].
    pub fn run_on(&mut self, through: Side, frame: &[u8]) -> Result<Outcome> {
        let mut after = vec![0; frame.len() + GROWTH_BYTES];
        let context = xdp_md(frame.len(), ifindex(through.interface())?);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.program.program()?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        after.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            4 => Action::Redirect,
            other => anyhow::bail!("the program answers {other}"),
        };
        Ok(Outcome { action, frame: after })
    }
}

/// `struct xdp_md` of the kernel's ABI: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
/// Offsets, not pointers, for a test run.
pub(crate) fn xdp_md(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// The kernel's number for an interface of this network.
pub(crate) fn ifindex(interface: &str) -> Result<u32> {
    if_nametoindex(interface).with_context(|| format!("look for {interface} in this network"))
}
