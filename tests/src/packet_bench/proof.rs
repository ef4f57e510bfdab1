//! What is measured is what should be: the feeder's packets are right, and the peer does the product's job.

use anyhow::{Result, ensure};

use super::subject::{Fate, Program, Subject};
use super::world::{DNAT4, Flows, SNAT4, SNAT6, Segment};
use super::{Bench, DIRECTIONS, ONLY_IPV4};

const SEGMENTS: [Segment; 6] = [
    Segment::Syn,
    Segment::SynAck,
    Segment::Ack,
    Segment::FromClient,
    Segment::FromBackend,
    Segment::Foreign,
];

/// One with a client, a port and a service that others don't have, and one with all bits set.
const FLOWS: [u64; 2] = [77, (1 << 20) - 1];

impl Bench {
    /// What the feeder makes of each segment is what it would be from scratch, to the byte.
    pub(super) fn prove_the_feeder(&mut self) -> Result<()> {
        for world in [&SNAT4, &DNAT4, &SNAT6] {
            for segment in SEGMENTS {
                for flow in FLOWS {
                    let flows = Flows { first: flow, count: 1 };
                    let subject = Subject::new("proof", Program::Empty, world, segment, flows);
                    let made = subject.run(&mut self.feeder, &mut self.gateways, 2)?.frame;
                    let wanted = world.frame(segment, flow);
                    ensure!(
                        made == wanted,
                        "{}, {segment:?} of flow {flow}: the feeder makes\n{made:02x?} instead of\n{wanted:02x?}",
                        world.name
                    );
                }
            }
        }
        Ok(())
    }

    /// What the peer makes of a packet is what the product makes of it, to the byte.
    pub(super) fn prove_the_floor(&mut self) -> Result<()> {
        let [flow, _] = FLOWS;
        let flows = Flows { first: flow, count: 1 };
        self.handshakes(ONLY_IPV4, &SNAT4, flows, false)?;
        self.learn(flow..flow + 1)?;
        for (segment, direction) in DIRECTIONS {
            let mut made_by = |program| {
                let subject = Subject::new("proof", program, &SNAT4, segment, flows);
                Ok::<_, anyhow::Error>(subject.run(&mut self.feeder, &mut self.gateways, 2)?.frame)
            };
            let of_peer = made_by(Program::Floor)?;
            let of_product = made_by(Program::Product(ONLY_IPV4, Fate::Forwarded { missing: 0 }))?;
            ensure!(
                of_peer == of_product,
                "{direction}: the peer makes\n{of_peer:02x?} of what the product makes\n{of_product:02x?}"
            );
        }
        Ok(())
    }
}
