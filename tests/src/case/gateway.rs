//! The real program in the kernel, told what it knows by the production code, run on one frame at a time.
//!
//! Everything the controller writes is written by its own calls; what else is done to tables is in `tables`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunOptions};
use balancer_common::abi::{ActiveWord, Interface, NextHop, Signals, Traced, Traffic};
use balancer_common::limits::{MAX_BACKENDS, MAX_SERVICES, MAX_TRACES};
use balancer_user::dataplane::cut::CutReport;
use balancer_user::dataplane::flows::{FlowTable, Lifetimes};
use balancer_user::dataplane::held::{Entrance, ReplayReport, Syns, Waiting};
use balancer_user::dataplane::object::{self, Loaded, Wanted};
use balancer_user::dataplane::rescue::{Rescuer, Rule};
use balancer_user::dataplane::slots::{Busy, PoolPlan, PoolSlots, assign};
use balancer_user::dataplane::tables::Tables;
use balancer_user::dataplane::traces::Wish;
use nix::net::if_::if_nametoindex;

use super::counters::Counters;
use super::given::Given;
use super::plan;
use super::scene::{Member, Scene, Side};
use super::tables::{Answers, FlowMaps, Searches};
use super::watch::Watch;

/// Room for a frame that grew.
const GROWTH_BYTES: usize = 256;
/// The contract's `idle_timeout`: how long established flows live in a [`Gateway`].
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 5 * 60);

/// Where the program finds its interfaces; a slot more than they need is never used.
const INTERFACE_SLOTS: [(Side, u16); 2] = [(Side::Lan, 1), (Side::Wan, 2)];

/// Programs that nobody uses: loading one takes longer than all cases of a topic.
static IDLE: Mutex<Vec<Gateway>> = Mutex::new(Vec::new());

/// A program of its own for as long as it lives.
pub struct Borrowed(Option<Gateway>);

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

fn idle(suits: impl Fn(&Gateway) -> bool) -> Option<Gateway> {
    let mut idle = IDLE.lock().ok()?;
    let at = idle.iter().position(suits)?;
    Some(idle.swap_remove(at))
}

impl Deref for Borrowed {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Gateway {
        self.0.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let (Some(gateway), Ok(mut idle)) = (self.0.take(), IDLE.lock()) {
            idle.push(gateway);
        }
    }
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
        Ok(Self {
            wanted,
            flow_maps: FlowMaps::of(&program.ebpf)?,
            answers: Answers::of(&program.ebpf)?,
            searches: Searches::of(&program.ebpf)?,
            watch: Watch::begin(&mut program.ebpf)?,
            tables: Tables::take(&mut program.ebpf)?,
            flows: FlowTable::take(&mut program.ebpf, Lifetimes { established: IDLE_TIMEOUT })?.into(),
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
        self.begin_anew()?;
        Ok(self.tables.publish_services(&self.plan, &self.slots)?)
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
        self.is_crowded = false;
        self.answers.allow_anew()?;
        self.searches.allow_anew()?;
        self.watch.want_all()?;
        if !self.is_as_given {
            self.tell_ways_and_active()?;
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

    /// What is counted of a backend's part in connection attempts.
    ///
    /// # Errors
    /// When the plan has no such backend, or the table can't be read.
    pub fn signals(&self, member: Member) -> Result<Signals> {
        let slot = self.slot(member).context("a backend of the plan")?;
        Ok(self.tables.signals(slot)?)
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

    fn service_slots(&self) -> Vec<(SocketAddr, u16)> {
        let pools = self.plan.iter().zip(&self.slots);
        let listening = pools.flat_map(|(pool, slots)| pool.services.iter().zip(&slots.services));
        listening.map(|(service, slot)| (service.listen, slot.index)).collect()
    }

    /// Makes a backend the active one of its pool.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn activate(&mut self, member: Member) -> Result<()> {
        let (pool, _) = self.given.member(member.address).context("a backend of the plan")?;
        let scene = pool.scene;
        self.is_as_given = false;
        self.set_active(scene, Some(member));
        Ok(())
    }

    /// Has the next connection of its pool's services try a backend.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn put_on_trial(&mut self, member: Member) -> Result<()> {
        let (pool, _) = self.given.member(member.address).context("a backend of the plan")?;
        let slot = self.slot(member).context("a backend of the plan")?;
        self.is_as_given = false;
        let pools = self.plan.iter().zip(&self.slots).filter(|(plan, _)| plan.name == pool.scene.name);
        let services = pools.flat_map(|(_, slots)| &slots.services);
        services.for_each(|service| self.tables.set_trial(service.index, slot));
        Ok(())
    }

    /// Leaves a pool without an active backend.
    pub fn deactivate(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_active(scene, None);
    }

    /// Has a pool's new flows wait.
    pub fn hold(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_word(scene, ActiveWord::hold(0, 0));
    }

    /// Has a pool refuse new flows.
    pub fn reject(&mut self, scene: &Scene) {
        self.is_as_given = false;
        self.set_word(scene, ActiveWord::reject(0, 0));
    }

    /// Has SYNs that are held for this pool come in once more. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn replay(&self, scene: &Scene) -> Result<ReplayReport> {
        self.send_on(scene, None)
    }

    /// The same with those that wait for the answer of another backend than this one.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn move_on(&self, scene: &Scene, active: Member) -> Result<ReplayReport> {
        self.send_on(scene, Some(self.slot(active).context("a backend of the plan")?))
    }

    fn send_on(&self, scene: &Scene, not_at: Option<u16>) -> Result<ReplayReport> {
        let pools = self.plan.iter().zip(&self.slots).filter(|(pool, _)| pool.name == scene.name);
        let services = pools.flat_map(|(_, slots)| &slots.services).map(|slot| slot.index).collect();
        self.enter(|entrance| self.flows.replay(&Waiting { services, not_at }, entrance))
    }

    /// Has these SYNs come in once more. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub fn take_in(&self, syns: &Syns) -> Result<ReplayReport> {
        self.enter(|entrance| syns.come_in(entrance))
    }

    /// Tells a backend that these SYNs have left it, if they have. The calling thread is in the gateway.
    ///
    /// # Errors
    /// When the plan has no such backend, or the tables can't be read.
    pub fn tell_left(&self, syns: &Syns, member: Member) -> Result<()> {
        let slot = self.slot(member).context("a backend of the plan")?;
        let way = self.tables.way(slot).context("a way to it")?;
        self.flows.tell_left(syns, &[(slot, way)].into(), &self.tables.exits(0)?);
        Ok(())
    }

    fn enter(&self, come_in: impl FnOnce(Entrance<'_>) -> ReplayReport) -> Result<ReplayReport> {
        let exits = self.tables.exits(0)?;
        Ok(come_in(Entrance { program: &self.program, exits: &exits, generic: &BTreeSet::new() }))
    }

    /// Who looks for clients that nobody answers, by this rule for all services.
    #[must_use]
    pub fn rescuer(&self, rule: Rule) -> Rescuer {
        let rules = self.service_slots().into_iter().map(|(_, slot)| (slot, rule));
        Rescuer::new(self.flows.clone(), rules.collect())
    }

    /// Ends all flows of a backend.
    ///
    /// # Errors
    /// When the plan has no such backend, or the tables can't be read.
    pub fn cut(&self, member: Member) -> Result<CutReport> {
        let slot = self.slot(member).context("a backend of the plan")?;
        Ok(self.flows.cut(slot, &self.tables.exits(slot)?, None)?)
    }

    /// The same, and keeps the SYNs that it has not answered.
    ///
    /// # Errors
    /// As [`Gateway::cut`].
    pub fn cut_and_keep(&self, member: Member) -> Result<(CutReport, Syns)> {
        let slot = self.slot(member).context("a backend of the plan")?;
        let mut syns = Syns::default();
        let report = self.flows.cut(slot, &self.tables.exits(slot)?, Some(&mut syns))?;
        Ok((report, syns))
    }

    /// Takes back the way to a backend.
    ///
    /// # Errors
    /// When the plan has no such backend.
    pub fn lose_way(&mut self, member: Member) -> Result<()> {
        let slot = self.slot(member).context("a backend of the plan")?;
        self.is_as_given = false;
        Ok(self.tables.set_way(slot, None)?)
    }

    /// Makes all flows older: as if nothing had happened for this long.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn grow_older(&mut self, by: Duration) -> Result<()> {
        self.flow_maps.grow_older(by)
    }

    /// Removes the client's side of every flow, as nothing ever should: what remains is half a flow.
    ///
    /// # Errors
    /// When the tables can't be read or written.
    pub fn tear_flows_apart(&mut self) -> Result<()> {
        self.is_crowded = true;
        self.flow_maps.tear_apart()
    }

    /// Has every lock taken by another CPU, or given back.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn set_locks(&mut self, taken: bool) -> Result<()> {
        self.flow_maps.set_locks(taken)
    }

    /// Has every CPU look for room no more in this moment.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn exhaust_searches(&mut self) -> Result<()> {
        self.searches.exhaust()
    }

    /// Has more handshakes counted than there may be, none of them where a new one could take its place.
    ///
    /// # Errors
    /// When the table can't be written.
    pub fn crowd_handshakes(&mut self) -> Result<()> {
        self.is_crowded = true;
        self.flow_maps.crowd()
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

    /// Has this traced instead of everything, for so long.
    ///
    /// # Errors
    /// When the program can't be told.
    pub fn trace(&mut self, wishes: &[Wish], lasts: Duration) -> Result<()> {
        self.watch.want(wishes, lasts)
    }

    /// What was told since then to whoever traces: of the last frame, as a rule.
    pub fn traced(&mut self) -> Vec<Traced> {
        self.watch.told()
    }

    /// How many packets each wish wanted that it wasn't told of.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn untold(&self) -> Result<[u64; MAX_TRACES]> {
        self.watch.missed()
    }

    /// Whether the program looks at packets for anybody.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn is_tracing(&self) -> Result<bool> {
        self.watch.is_on()
    }

    /// The slot of the service that listens there.
    #[must_use]
    pub fn service_slot(&self, listen: SocketAddr) -> Option<u16> {
        self.service_slots().into_iter().find_map(|(at, slot)| (at == listen).then_some(slot))
    }

    /// All counters of who is in the plan.
    ///
    /// # Errors
    /// When a table can't be read.
    pub fn counters(&self) -> Result<Counters> {
        let [half_open_entries, established_entries] = self.flow_maps.count()?;
        let [half_open, established] = self.flow_maps.counted()?;
        if !self.is_crowded {
            ensure!(
                [half_open as usize, established as usize].map(|flows| 2 * flows)
                    == [half_open_entries, established_entries],
                "{half_open} handshakes and {established} flows are counted, {half_open_entries} and \
                 {established_entries} lines are there"
            );
        }
        let mut counters = Counters { half_open_entries, established_entries, ..Counters::default() };
        for (reason, tally) in self.tables.tallies()? {
            counters.drops.insert(reason, tally.dropped);
            counters.answers.insert(reason, tally.answered);
            counters.passed.insert(reason, tally.passed);
        }
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
pub(crate) fn xdp_md(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// The kernel's number for an interface of this network.
pub(crate) fn ifindex(interface: &str) -> Result<u32> {
    if_nametoindex(interface).with_context(|| format!("look for {interface} in this network"))
}
