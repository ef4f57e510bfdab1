//! Packet cases: given a state, this packet must have this fate, in the kernel, to the byte and to the counter.
//!
//! ```text
//! Case::new("a new flow goes to the active backend")
//!     .packet(tcp(CLIENT, WEB).syn()).expect(forwarded_to(PRIMARY).opening())
//! ```
//! The program is the real one, loaded and told by the production code, and run by `BPF_PROG_TEST_RUN`; several packets
//! of a case meet the state that the earlier ones left. Each packet's whole frame is compared with one that is built
//! from scratch, and each counter with what it was plus what this packet may have changed. Deliberately absent: where
//! a redirect really leads (a test run doesn't carry it out; the source MAC tells the interface that was meant, and
//! the labs do the rest).

mod gateway;
mod model;
mod scene;

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use balancer_common::verdict::Reason;

use crate::lab::{Lab, Topology};
use crate::packet::Packet;

pub use gateway::{Action, Counters, Gateway, IDLE_TIMEOUT, Outcome};
pub use model::{Expect, dropped, forwarded_to, passed, returned_to};
pub use scene::{
    API, BACKUP, CLIENT, GATEWAY, Given, LAN_MAC, MAIL, Member, OTHER_CLIENT, POSTMAN, PRIMARY, ROUTER_MAC,
    Side, USUAL_SNAT_PORTS, VIP, WAN_MAC, WEB, gateway, tcp, usual,
};

use model::{Fate, Input};

/// The clients' first sequence number in [`Case::handshake`].
pub const CLIENT_ISN: u32 = 0x1122_3344;
/// The backends' first sequence number in [`Case::handshake`]: it wraps soon.
pub const BACKEND_ISN: u32 = 0xffff_fff0;

/// A claim about the program, and the packets that prove it.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    given: Given,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Packet { input: Input, through: Side, expect: Option<Expect> },
    Change(Change),
}

/// Something that happens between packets.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// `passwords` has another active backend, or none.
    Activate(Option<Member>),
    /// The way to this backend isn't known any more.
    LoseWay(Member),
    /// No flow gets a packet for this long.
    Silence(Duration),
    /// The device of this side is gone, from the whole lab.
    Pull(Side),
}

impl Case {
    /// A case in the [`usual`] state.
    #[must_use]
    pub fn new(claim: &str) -> Self {
        Self { name: claim.to_owned(), given: usual(), steps: Vec::new() }
    }

    /// In this state instead of the usual one.
    #[must_use]
    pub fn given(self, given: Given) -> Self {
        Self { given, ..self }
    }

    /// This packet comes in, on the side that its source MAC is on.
    #[must_use]
    pub fn packet(mut self, packet: Packet) -> Self {
        let through = Side::of(&packet);
        self.steps.push(Step::Packet { input: Input::Tcp(Box::new(packet)), through, expect: None });
        self
    }

    /// This frame comes in from the clients' side.
    #[must_use]
    pub fn frame(mut self, frame: Vec<u8>) -> Self {
        self.steps.push(Step::Packet { input: Input::Raw(frame), through: Side::Wan, expect: None });
        self
    }

    /// What becomes of the packet or frame before.
    ///
    /// # Panics
    /// When there is none: the case would prove nothing.
    #[must_use]
    pub fn expect(mut self, expected: Expect) -> Self {
        let Some(Step::Packet { expect: expect @ None, .. }) = self.steps.last_mut() else {
            panic!("{}: an expectation without a packet", self.name);
        };
        *expect = Some(expected);
        self
    }

    /// This happens next.
    #[must_use]
    pub fn then(mut self, change: Change) -> Self {
        self.steps.push(Step::Change(change));
        self
    }

    /// A whole handshake, from the client's own port, with [`CLIENT_ISN`] and [`BACKEND_ISN`].
    #[must_use]
    pub fn handshake(self, client: SocketAddrV4, service: SocketAddrV4, member: Member) -> Self {
        let from_client =
            |packet: Packet| packet.seq(CLIENT_ISN.wrapping_add(1)).acks(BACKEND_ISN.wrapping_add(1));
        let answer = tcp(member.at(self.given.backend_port(service)), gateway(client.port()));
        self.packet(tcp(client, service).syn().seq(CLIENT_ISN))
            .expect(forwarded_to(member).opening())
            .packet(answer.syn_ack().seq(BACKEND_ISN).acks(CLIENT_ISN.wrapping_add(1)))
            .expect(returned_to(client))
            .packet(from_client(tcp(client, service).ack()))
            .expect(forwarded_to(member).establishing())
    }

    /// What the case claims.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The reasons that the case provokes.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let expectations = self.steps.iter().filter_map(|step| match step {
            Step::Packet { expect, .. } => expect.as_ref(),
            Step::Change(_) => None,
        });
        let reasons = expectations.filter_map(|expect| match expect.fate {
            Fate::Dropped(reason) => Some(reason),
            Fate::ToBackend(..) | Fate::ToClient(_) | Fate::Passed => None,
        });
        reasons.collect()
    }

    /// Runs the case with a program of its own, in the network that this thread is in.
    fn run(&self) -> Result<()> {
        let mut gateway = Gateway::load(&self.given)?;
        let mut before = gateway.counters()?;
        for (index, step) in self.steps.iter().enumerate() {
            let number = index + 1;
            match step {
                Step::Change(change) => carry_out(*change, &mut gateway)?,
                Step::Packet { input, through, expect } => {
                    let expect = expect.as_ref().with_context(|| format!("step {number} expects nothing"))?;
                    let outcome = gateway.run(*through, &input.frame())?;
                    let after = gateway.counters()?;
                    let differences = expect.compare(&self.given, input, &outcome, &before, &after);
                    ensure!(differences.is_empty(), "step {number}:\n    {}", differences.join("\n    "));
                    before = after;
                }
            }
        }
        gateway.nothing_is_counted_elsewhere()
    }
}

fn carry_out(change: Change, gateway: &mut Gateway) -> Result<()> {
    match change {
        Change::Activate(member) => gateway.activate(member),
        Change::LoseWay(member) => gateway.lose_way(member),
        Change::Silence(duration) => gateway.grow_older(duration),
        Change::Pull(side) => gateway.pull(side),
    }
}

/// Runs a closure on a thread that is in the gateway of a lab of its own.
///
/// # Errors
/// What the closure returns, or when there can be no lab.
pub fn on_a_gateway<T: Send>(label: &str, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let lab = Lab::new(label, &Topology::two_armed())?;
    lab.gateway().enter(body)?
}

/// Runs all cases, and tells every one that fails.
///
/// # Errors
/// The claims that aren't true, with what was seen instead.
pub fn run_all(label: &str, cases: &[Case]) -> Result<()> {
    on_a_gateway(label, || {
        let failed: Vec<String> =
            cases.iter().filter_map(|case| Some(format!("{}: {:#}", case.name, case.run().err()?))).collect();
        if !failed.is_empty() {
            bail!("{} of {} claims are not true:\n{}", failed.len(), cases.len(), failed.join("\n"));
        }
        Ok(())
    })
}
