//! How flows come into being: by handshakes, some at a time; what those cost is measured on the way, beside inserts into
//! a full table of the kernel's.

use anyhow::{Context, Result, ensure};

use super::gateway::Gateway;
use super::report::{Comparison, Wanted};
use super::samples::Row;
use super::subject::{Fate, Program, Subject};
use super::world::{FLOWS_MAX, Flows, SNAT4, SNAT6, Segment, World};
use super::{Bench, FLOOR_INSERT, MISSING_MAX, ONLY_IPV4, WORLDS};

/// The handshake's packets, and what each is to the flow.
const HANDSHAKE: [(Segment, &str); 3] = [
    (Segment::Syn, "SYN of a new flow"),
    (Segment::SynAck, "SYN-ACK"),
    (Segment::Ack, "ACK that completes the handshake"),
];

/// The harness's row for handshakes of a world.
fn harness_by_chunks(world: &World) -> &'static str {
    if world.is_ipv6() { "harness, IPv6, for handshakes" } else { "harness, for handshakes" }
}

impl Bench {
    /// Makes flows until there are as many as this stage has, in every world and in the peer's table.
    pub(super) fn fill(&mut self, stage: usize) -> Result<()> {
        let count = self.scale.stages[stage];
        let is_last = stage + 1 == self.scale.stages.len();
        if stage == 0 {
            for (place, world) in WORLDS.into_iter().chain([(ONLY_IPV4, &SNAT4)]) {
                self.handshakes(place, world, Flows { first: 0, count }, false)?;
            }
            self.learn(0..count)?;
            return Ok(());
        }
        let had = self.scale.stages[stage - 1];
        if is_last {
            self.fill_the_peers_table()?;
        }
        let chunk = self.scale.chunk;
        for first in (0..count).step_by(chunk as usize).filter(|first| first + chunk > had) {
            // One that has a flow already isn't of new flows only.
            let is_measured = is_last && first >= had;
            for (place, world) in WORLDS {
                self.handshakes(place, world, Flows { first, count: chunk }, is_measured)?;
            }
            if is_measured {
                self.insert_into_full(chunk)?;
                self.harness_by_chunks(chunk)?;
            }
        }
        self.learn(had..count)?;
        if is_last {
            self.compare_handshakes(count);
        }
        self.take_census(count)
    }

    /// The handshakes of these flows, all SYNs first.
    pub(super) fn handshakes(
        &mut self,
        place: usize,
        world: &'static World,
        flows: Flows,
        is_measured: bool,
    ) -> Result<()> {
        for (segment, what) in HANDSHAKE {
            // What is missing afterwards is for the census to tell.
            let missing = (flows.count as f64 * MISSING_MAX).ceil() as u64 * u64::from(flows.count > 1);
            let program = Program::Product(place, Fate::Forwarded { missing });
            let what = format!("{}: {what}", world.name);
            let most = self.scale.most_flows();
            let subject = Subject::new(what, program, world, segment, flows)
                .among(most)
                .less(Row::new(harness_by_chunks(world), most));
            let packets = flows.count as u32;
            if is_measured {
                self.measure(&subject, packets)?;
            } else {
                subject.run(&mut self.feeder, &mut self.gateways, packets)?;
            }
        }
        Ok(())
    }

    /// The peer's table is full when it has seen more keys than it has room for; a quarter more, as it forgets some early.
    fn fill_the_peers_table(&mut self) -> Result<()> {
        let entries = 2 * self.scale.most_flows();
        let packets = entries + entries / 4;
        self.floor_insert().run(&mut self.feeder, &mut self.gateways, packets as u32)?;
        self.inserted += packets;
        Ok(())
    }

    /// Never seen keys into the full table: there are twice as many flows as it has room for, and all have their turn.
    fn insert_into_full(&mut self, chunk: u64) -> Result<()> {
        let subject = self.floor_insert();
        self.measure(&subject, chunk as u32)?;
        self.inserted += chunk;
        Ok(())
    }

    /// Test runs of so few packets, with what beginning and ending one costs.
    fn harness_by_chunks(&mut self, chunk: u64) -> Result<()> {
        for world in [&SNAT4, &SNAT6] {
            let flows = Flows { first: 0, count: chunk };
            let what = harness_by_chunks(world);
            let subject = Subject::new(what, Program::Empty, world, Segment::Syn, flows);
            self.measure(&subject.among(self.scale.most_flows()), chunk as u32)?;
        }
        Ok(())
    }

    fn floor_insert(&self) -> Subject {
        let flows = Flows { first: 0, count: 2 * FLOWS_MAX };
        Subject::new(FLOOR_INSERT, Program::FloorInsert, &SNAT4, Segment::Syn, flows)
            .among(self.scale.most_flows())
            .less(Row::new(harness_by_chunks(&SNAT4), self.scale.most_flows()))
            .after(self.inserted)
    }

    /// Tells the peer of these flows.
    pub(super) fn learn(&mut self, flows: std::ops::Range<u64>) -> Result<()> {
        self.feeder.learn(flows.flat_map(|flow| SNAT4.recipes(flow))).context("tell the peer of flows")
    }

    fn compare_handshakes(&mut self, count: u64) {
        for (_, world) in WORLDS {
            for (segment, what) in HANDSHAKE {
                let is_promised = world.name == SNAT4.name && segment != Segment::SynAck;
                let wanted = if is_promised { Wanted::AtMost(1.0) } else { Wanted::Nothing };
                self.comparisons.push(Comparison {
                    row: Row::new(format!("{}: {what}", world.name), count),
                    with: Row::new(FLOOR_INSERT, count),
                    wanted,
                });
            }
        }
    }

    /// How many of the flows that should be there are not.
    fn take_census(&mut self, count: u64) -> Result<()> {
        let census = self.gateways.iter_mut().map(Gateway::census).collect::<Result<Vec<_>>>()?;
        let mut missing = [0; 3];
        for (place, world) in WORLDS {
            let found = census[place].get(world.name).copied().unwrap_or_default();
            ensure!(found <= count, "{}: {found} flows, of {count} that were opened", world.name);
            let lost = count - found;
            ensure!(
                lost as f64 <= count as f64 * MISSING_MAX,
                "{}: {lost} of {count} flows are missing",
                world.name
            );
            if lost > 0 {
                println!("{}: {lost} of {count} flows found no place", world.name);
            }
            missing[place] = missing[place].max(lost);
        }
        self.missing = missing;
        Ok(())
    }
}
