//! One measurement: packets of one kind into one program, and proof that the program did with all of them what it
//! should.

use anyhow::{Result, bail, ensure};
use balancer_common::verdict::Reason;

use super::feeder::{Feeder, Run, Target};
use super::gateway::{Counted, Gateway};
use super::samples::Row;
use super::world::{Flows, Segment, World};

/// `enum xdp_action`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
const REDIRECT: u32 = 4;

/// How many elements an LRU table may lack when it should be just full: a CPU takes free ones by 128, and evicts when
/// there are not as many left.
const LRU_MISSING: u64 = 512;

/// Who gets the packets, and what must become of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Sends them back as they are.
    Empty,
    /// The peer: sends all of them on.
    Floor,
    /// The peer's insert: always succeeds.
    FloorInsert,
    /// The product, by its place among the gateways.
    Product(usize, Fate),
}

/// What must become of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All are forwarded, but for those of flows that are known to be missing.
    Forwarded { missing: u64 },
    /// Each is forwarded, or refused because too many handshakes are under way.
    ForwardedOrRefused,
    /// All go to the kernel's own stack, uncounted.
    Passed,
}

/// The harness's row for a world.
pub(super) fn harness(world: &World) -> &'static str {
    if world.is_ipv6() { "harness, IPv6 (in no other row)" } else { "harness (in no other row)" }
}

/// Packets of one kind into one program.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) row: Row,
    pub(super) program: Program,
    pub(super) world: &'static World,
    pub(super) segment: Segment,
    pub(super) flows: Flows,
    /// Packets that were made of these flows before.
    made: u64,
    /// What making the packets costs.
    pub(super) harness: Option<Row>,
}

impl Subject {
    /// The row has as many flows as the packets, and so has the harness's that is subtracted.
    pub(super) fn new(
        what: impl Into<String>,
        program: Program,
        world: &'static World,
        segment: Segment,
        flows: Flows,
    ) -> Self {
        let harness = (program != Program::Empty).then(|| Row::new(harness(world), flows.count));
        Self { row: Row::new(what, flows.count), program, world, segment, flows, made: 0, harness }
    }

    /// In a row that says it belongs to so many flows.
    pub(super) fn among(mut self, flows: u64) -> Self {
        self.row.flows = flows;
        self
    }

    /// Measured by this harness.
    pub(super) fn less(mut self, harness: Row) -> Self {
        self.harness = Some(harness);
        self
    }

    /// Goes on after so many packets.
    pub(super) fn after(mut self, made: u64) -> Self {
        self.made = made;
        self
    }

    /// Runs it once.
    pub(super) fn run(&self, feeder: &mut Feeder, gateways: &mut [Gateway], packets: u32) -> Result<Run> {
        let mut plan = self.world.plan(self.segment, self.flows);
        plan.made = self.made;
        let side = self.segment.side();
        match self.program {
            Program::Empty => {
                let run = feeder.run(Target::Own("empty"), &plan, side, packets)?;
                self.ensure_action(&run, &[TX])?;
                Ok(run)
            }
            Program::Floor => {
                let most = u64::from(packets) * LRU_MISSING / u64::from(feeder.entries);
                self.run_floor("floor", feeder, packets, most)
            }
            Program::FloorInsert => self.run_floor("floor_insert", feeder, packets, 0),
            Program::Product(place, fate) => {
                let gateway = &mut gateways[place];
                let before = gateway.counted()?;
                let run = feeder.run(Target::Product(gateway.fd()?), &plan, side, packets)?;
                self.judge(fate, &run, &gateway.counted()?.since(&before), packets)?;
                Ok(run)
            }
        }
    }

    fn run_floor(&self, name: &'static str, feeder: &mut Feeder, packets: u32, most: u64) -> Result<Run> {
        let mut plan = self.world.plan(self.segment, self.flows);
        plan.made = self.made;
        let [sent_before, failed_before] = feeder.floor_counts()?;
        let run = feeder.run(Target::Own(name), &plan, self.segment.side(), packets)?;
        let [sent, failed] = feeder.floor_counts()?;
        let (sent, failed) = (sent - sent_before, failed - failed_before);
        ensure!(
            sent + failed == u64::from(packets) && failed <= most,
            "{}: {name} has sent {sent} of {packets} packets on, and failed with {failed}",
            self.row.what
        );
        Ok(run)
    }

    /// The kernel tells only the last packet's action, so counters have to tell the others'.
    fn judge(&self, fate: Fate, run: &Run, counted: &Counted, packets: u32) -> Result<()> {
        let packets = u64::from(packets);
        let refused = counted.others.get(&Reason::HalfOpenFull).copied().unwrap_or_default();
        let others: u64 = counted.others.values().sum();
        let is_right = match fate {
            Fate::Forwarded { missing: 0 } => counted.forwarded == packets && others == 0,
            Fate::Forwarded { missing } => {
                let most = missing * packets.div_ceil(self.flows.count);
                counted.forwarded + most >= packets
            }
            Fate::ForwardedOrRefused => counted.forwarded + refused == packets,
            Fate::Passed => counted.forwarded + others == 0,
        };
        if !is_right {
            bail!("{}: of {packets} packets that should be {fate:?} there were {counted:?}", self.row.what);
        }
        match fate {
            Fate::Forwarded { missing: 0 } => self.ensure_action(run, &[REDIRECT]),
            Fate::Forwarded { .. } => Ok(()),
            Fate::ForwardedOrRefused => self.ensure_action(run, &[REDIRECT, DROP]),
            Fate::Passed => self.ensure_action(run, &[PASS]),
        }
    }

    fn ensure_action(&self, run: &Run, wanted: &[u32]) -> Result<()> {
        ensure!(
            wanted.contains(&run.action),
            "{}: the last packet's action is {}, not one of {wanted:?}",
            self.row.what,
            run.action
        );
        Ok(())
    }
}
