//! Odd packets, one by one: what no conversation has in it, because a gateway has to refuse it, answer it, or can be
//! expected to get it wrong.
//!
//! Each row stands on a connection of its own. It says what becomes of the packet on both sides, so that a row in which
//! nothing comes out of either is one that says so.

mod extensions;
mod headers;
mod icmp;
mod segments;

use anyhow::{Context as _, Result, ensure};

use super::{
    Listed, Twins,
    flow::Flow,
    frame::{ETHERNET_BYTES, Segment},
    scene::{End, Scene},
};
use crate::packet::flags::{ACK, PSH, SYN};

/// Sequence numbers of the SYN and the SYN-ACK.
const CLIENT_ISN: u32 = 1000;
const BACKEND_ISN: u32 = 5_000_000;
/// What the client has said in an established connection, and the backend too.
const WORDS: &[u8] = b"some words, to be quoted";

/// How far the connection is when the odd packet comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Nothing,
    /// The SYN was sent, and nothing came back.
    SynSent,
    /// The SYN-ACK has arrived, and was not acknowledged.
    SynAnswered,
    /// Both have said some words.
    Established,
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// It comes out at the other end, of both alike.
    Forwarded,
    /// Both answer with the same bytes.
    Answered,
    /// Both answer with an ICMP error about it, alike or as listed.
    Error,
    /// Neither says anything.
    Nothing,
    /// They differ as listed.
    Listed(Listed),
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Odd {
    /// What it is.
    pub name: &'static str,
    stage: Stage,
    from: End,
    frames: fn(&Talk) -> Result<Vec<Vec<u8>>>,
    becomes: Becomes,
}

/// A connection that an odd packet is put into.
#[derive(Debug)]
struct Talk {
    scene: Scene,
    flow: Flow,
    /// What the next segment of an end looks like.
    client: Segment,
    backend: Segment,
    /// The IP packet of the connection that has arrived last at each end; empty before there is one.
    at_client: Vec<u8>,
    at_backend: Vec<u8>,
}

impl Odd {
    /// All rows for this scene.
    #[must_use]
    pub fn table(scene: Scene) -> Vec<Self> {
        [segments::table(scene), headers::table(scene), extensions::table(scene), icmp::table(scene)].concat()
    }

    /// The listed difference that it shows, if it shows one.
    #[must_use]
    pub fn shows(&self) -> Option<Listed> {
        match self.becomes {
            Becomes::Error => Some(Listed::GatewaysError),
            Becomes::Listed(listed) => Some(listed),
            Becomes::Forwarded | Becomes::Answered | Becomes::Nothing => None,
        }
    }

    /// Puts it into both labs; `number` is its own in the table.
    ///
    /// # Errors
    /// When something else becomes of it than its row says.
    pub fn run(&self, twins: &mut Twins, scene: Scene, number: u64) -> Result<()> {
        let talk = Talk::begin(twins, scene, number, self.stage).context("before the odd packet")?;
        let mut frames = (self.frames)(&talk)?;
        let last = frames.pop().context("a row without a packet")?;
        for frame in frames {
            twins.put(self.from, &frame, &[])?;
        }
        let listed = self.shows();
        let fate = twins.put(self.from, &last, listed.as_slice())?;
        let is_as_said = match self.becomes {
            Becomes::Forwarded => fate.forwarded().is_ok(),
            Becomes::Answered | Becomes::Error => fate.answered().is_some(),
            Becomes::Nothing => fate.is_silence(),
            Becomes::Listed(listed) => fate.difference == Some(listed),
        };
        let claim = listed.map_or("", Listed::claim);
        ensure!(is_as_said, "{:?} was expected, but both are alike: {fate:02x?}\n{claim}", self.becomes);
        Ok(())
    }
}

impl Talk {
    fn begin(twins: &mut Twins, scene: Scene, number: u64, stage: Stage) -> Result<Self> {
        let flow = Flow::new(scene, scene.client_of(number));
        let opening = |flags, sequence| Segment { sequence, ..Segment::plain(flags) };
        let mut talk = Self {
            scene,
            flow,
            client: opening(SYN, CLIENT_ISN),
            backend: opening(SYN | ACK, BACKEND_ISN),
            at_client: Vec::new(),
            at_backend: Vec::new(),
        };
        if stage == Stage::Nothing {
            return Ok(talk);
        }
        talk.say(twins, End::Client)?;
        (talk.client.flags, talk.client.sequence) = (ACK, CLIENT_ISN + 1);
        talk.backend.acknowledgement = CLIENT_ISN + 1;
        if stage == Stage::SynSent {
            return Ok(talk);
        }
        talk.say(twins, End::Backend)?;
        (talk.backend.flags, talk.backend.sequence) = (ACK, BACKEND_ISN + 1);
        talk.client.acknowledgement = BACKEND_ISN + 1;
        if stage == Stage::SynAnswered {
            return Ok(talk);
        }
        for from in [End::Client, End::Backend] {
            let segment = talk.next(from).clone();
            talk.next_mut(from).payload = WORDS.to_vec();
            talk.next_mut(from).flags = ACK | PSH;
            talk.say(twins, from)?;
            *talk.next_mut(from) = segment;
            let said = WORDS.len() as u32;
            talk.next_mut(from).sequence += said;
            talk.next_mut(from.other()).acknowledgement += said;
        }
        Ok(talk)
    }

    fn say(&mut self, twins: &mut Twins, from: End) -> Result<()> {
        let frame = self.flow.frame(from, self.next(from))?;
        let fate = twins.put(from, &frame, &[])?;
        let packet = fate.forwarded()?[ETHERNET_BYTES..].to_vec();
        match from {
            End::Client => self.at_backend = packet,
            End::Backend => self.at_client = packet,
        }
        Ok(())
    }

    fn next(&self, from: End) -> &Segment {
        match from {
            End::Client => &self.client,
            End::Backend => &self.backend,
        }
    }

    fn next_mut(&mut self, from: End) -> &mut Segment {
        match from {
            End::Client => &mut self.client,
            End::Backend => &mut self.backend,
        }
    }

    /// The next segment of an end, changed, as the only frame of a row.
    fn one(&self, from: End, change: impl FnOnce(&mut Segment)) -> Result<Vec<Vec<u8>>> {
        let mut segment = self.next(from).clone();
        change(&mut segment);
        Ok(vec![self.flow.frame(from, &segment)?])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::twin::{Family, Forwarding};

    #[test]
    fn every_listed_difference_has_a_row_that_shows_it() {
        let scenes = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            [Forwarding::Snat, Forwarding::Dnat].map(|forwarding| Scene { family, forwarding, lan_mtu: 1400 })
        });
        let shown: BTreeSet<Listed> = scenes.flat_map(Odd::table).filter_map(|odd| odd.shows()).collect();
        assert_eq!(shown, Listed::ALL.iter().copied().collect());
    }
}
