//! One of the two labs: a frame goes in at one end, and all that comes of it is known when it returns.
//!
//! Nothing tells that a gateway has dropped a frame. So each is followed by a marker: a segment of a connection of its own,
//! which both gateways forward, there and back again. What has not come out before the marker never will, because every
//! queue of a lab is first in, first out as long as one CPU does all of it.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{
    flow::Flow,
    frame::{ETHERNET_BYTES, Segment},
    scene::{End, Scene},
    wire::Wire,
};
use crate::{
    gateway::{Gateway, PATIENCE},
    lab::Lab,
    packet::flags::{ACK, SYN},
    poll::poll_until,
};

/// The marker's client, which no conversation has, and its port, which balancer may use towards a backend.
const MARKER: (u8, u16) = (250, 65000);
/// In every marker, before its number.
const MARK: &[u8] = b"balancer twin marker";

/// What came out of a lab, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Emerged {
    client: Vec<Vec<u8>>,
    backend: Vec<Vec<u8>>,
}

impl Emerged {
    /// At this end.
    pub(super) fn at(&self, end: End) -> &[Vec<u8>] {
        match end {
            End::Client => &self.client,
            End::Backend => &self.backend,
        }
    }

    /// The only frame, when it came out at this end.
    pub(super) fn only_at(&self, end: End) -> Option<&[u8]> {
        match (self.at(end), self.at(end.other())) {
            ([frame], []) => Some(frame),
            _ => None,
        }
    }

    pub(super) fn at_mut(&mut self, end: End) -> &mut Vec<Vec<u8>> {
        match end {
            End::Client => &mut self.client,
            End::Backend => &mut self.backend,
        }
    }
}

/// A lab with its ends in hand.
#[derive(Debug)]
pub(super) struct Side {
    name: &'static str,
    client: Wire,
    backend: Wire,
    marker: Flow,
    /// Markers sent so far.
    marks: u64,
    /// `None`: the gateway is the kernel.
    balancer: Option<Gateway>,
    /// Dropped last: it ends whatever still runs.
    _lab: Lab,
}

impl Side {
    /// Opens the marker's connection.
    pub(super) fn new(
        name: &'static str,
        scene: Scene,
        balancer: Option<Gateway>,
        lab: Lab,
        client: Wire,
        backend: Wire,
    ) -> Result<Self> {
        let marker = Flow::new(scene, (scene.client(MARKER.0), MARKER.1).into());
        let mut side = Self { name, client, backend, marker, marks: 0, balancer, _lab: lab };
        side.open_marker().with_context(|| format!("the marker's connection through the {name}"))?;
        Ok(side)
    }

    /// What the gateway counts, for people: balancer's drops by reason.
    pub(super) fn drops(&self) -> Result<String> {
        let Some(balancer) = &self.balancer else { return Ok(String::new()) };
        let stats = balancer.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
        Ok(stats["drops"].to_string())
    }

    /// Sends a frame from one end and returns all that comes of it.
    pub(super) fn put(&mut self, from: End, frame: &[u8]) -> Result<Emerged> {
        self.wire(from).send(frame)?;
        self.wait_for_silence()
    }

    fn wire(&self, end: End) -> &Wire {
        match end {
            End::Client => &self.client,
            End::Backend => &self.backend,
        }
    }

    fn open_marker(&mut self) -> Result<()> {
        let syn = self.marker.frame(End::Client, &Segment::plain(SYN))?;
        poll_until(PATIENCE, "its SYN at the backend", || {
            // Ready means decided; the way to the backend may be known a moment later.
            let arrived = self.client.send(&syn).and_then(|()| self.backend.next(Instant::now()));
            match arrived {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("nothing".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
        let answer = Segment { acknowledgement: 1, ..Segment::plain(SYN | ACK) };
        self.backend.send(&self.marker.frame(End::Backend, &answer)?)?;
        let answered = self.client.next(Instant::now() + PATIENCE)?;
        answered.context("no SYN-ACK at the client")?;
        let emerged = self.wait_for_silence()?;
        // Repeated SYNs may have come late; nothing else may be there.
        if emerged.client.is_empty() { Ok(()) } else { bail!("came back: {:02x?}", emerged.client) }
    }

    /// A marker there and back; all else that arrives meanwhile.
    fn wait_for_silence(&mut self) -> Result<Emerged> {
        self.marks += 1;
        let mut emerged = Emerged::default();
        for from in [End::Client, End::Backend] {
            let mark = [MARK, &self.marks.to_be_bytes()].concat();
            let segment =
                Segment { sequence: 1, acknowledgement: 1, payload: mark.clone(), ..Segment::plain(ACK) };
            self.wire(from).send(&self.marker.frame(from, &segment)?)?;
            self.collect(from.other(), &mark, emerged.at_mut(from.other()))?;
        }
        // The way back took longer than anything on the way forth.
        let backend = &mut emerged.backend;
        while let Some(frame) = self.backend.next(Instant::now())? {
            backend.push(frame);
        }
        Ok(emerged)
    }

    fn collect(&self, at: End, mark: &[u8], emerged: &mut Vec<Vec<u8>>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(frame) = self.wire(at).next(deadline)? {
            if frame.len() > ETHERNET_BYTES && frame.ends_with(mark) {
                return Ok(());
            }
            emerged.push(frame);
        }
        bail!(
            "the {} does not forward the marker towards the {at:?} any more; came instead: {emerged:02x?}",
            self.name
        )
    }
}
