//! Packet cases: given a state, this packet must have this fate, in the kernel, to the byte and to the counter.
//!
//! ```text
//! Case::of(&SNAT6, "a new flow goes to the active backend")
//!     .packet(SNAT6.flow().syn()).expect(forwarded_to(SNAT6.primary).opening())
//! ```
//! The program is the real one, loaded and told by the production code, and run by `BPF_PROG_TEST_RUN`; several packets
//! of a case meet the state that the earlier ones left. Each packet's whole frame is compared with one that is built
//! from scratch, each counter with what it was plus what this packet may have changed, and what is told of it to whoever traces
//! with what became of it. Deliberately absent: where
//! a redirect really leads (a test run doesn't carry it out; the source MAC tells the interface that was meant, and
//! the labs do the rest).

mod answer;
mod counters;
mod expect;
mod flow;
mod gateway;
mod given;
mod model;
mod plan;
mod scene;
mod tables;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use balancer_common::abi::Signals;
use balancer_common::verdict::Reason;

use crate::lab::{Lab, Topology};
use crate::packet::{Icmp, Packet};

pub use counters::Counters;
pub use expect::{Counter, Expect, answered, dropped, forwarded_to, passed, passed_for, returned_to};
pub use flow::{BACKEND_ISN, BACKEND_NEXT, CLIENT_ISN, CLIENT_NEXT, Flow};
pub use gateway::{Action, Borrowed, Gateway, IDLE_TIMEOUT, Outcome};
pub(crate) use gateway::{ifindex, xdp_md};
pub use given::{Given, USUAL_SNAT_PORTS, usual};
pub use scene::{
    DNAT4, DNAT6, Forwarding, LAN_MAC, MAIL, Member, OTHER_ROUTER_MAC, POOLS, ROUTER_MAC, SCENES, SNAT4,
    SNAT6, Scene, Service, Side, WAN_MAC, WIDE4, WIDE6, icmp, tcp,
};

use model::{Arrival, Input};

/// A claim about the program, and the packets that prove it.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    given: Given,
    steps: Vec<Step>,
    signals: Vec<(Member, Signals)>,
}

#[derive(Clone, Debug)]
enum Step {
    Packet { input: Input, through: Side, expect: Option<Expect> },
    Change(Change),
}

/// Something that happens between packets.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// This backend's pool has it for its active one.
    Activate(Member),
    /// The pool has no active backend.
    Deactivate(&'static Scene),
    /// The pool's new flows wait.
    Hold(&'static Scene),
    /// The pool refuses new flows.
    Reject(&'static Scene),
    /// No service of the pool is one any more.
    Withdraw(&'static Scene),
    /// The way to this backend isn't known any more.
    LoseWay(Member),
    /// The next connection of its pool's services tries this backend.
    Trial(Member),
    /// No flow gets a packet for this long.
    Silence(Duration),
    /// The device of this side is gone, from the whole lab.
    Pull(Side),
    /// Another CPU has every lock of new flows, or none.
    Locks(bool),
    /// There are more handshakes than there may be, and none could make room.
    Crowd,
    /// Of every flow there is only the backend's side, as of one that another CPU is making or has just taken out.
    TearApart,
    /// No CPU may look for room once more, for a moment.
    Exhaust,
}

impl Case {
    /// A case in the [`usual`] state.
    #[must_use]
    pub fn new(claim: &str) -> Self {
        Self { name: claim.to_owned(), given: usual(), steps: Vec::new(), signals: Vec::new() }
    }

    /// As [`Case::new`], about packets of one kind.
    #[must_use]
    pub fn of(scene: &Scene, claim: &str) -> Self {
        Self::new(&format!("{claim} ({})", scene.name))
    }

    /// In this state instead of the usual one.
    #[must_use]
    pub fn given(self, given: Given) -> Self {
        Self { given, ..self }
    }

    /// This packet comes in, on the side that its source MAC is on.
    #[must_use]
    pub fn packet(self, packet: Packet) -> Self {
        let through = Side::of(packet.ethernet.source);
        self.packet_through(through, packet)
    }

    /// This packet comes in, on this side.
    #[must_use]
    pub fn packet_through(self, through: Side, packet: Packet) -> Self {
        self.step(Input::Tcp(Box::new(packet)), through)
    }

    /// This message comes in, on the side that its source MAC is on.
    #[must_use]
    pub fn icmp(self, message: Icmp) -> Self {
        let through = Side::of(message.ethernet.source);
        self.step(Input::Icmp(Box::new(message)), through)
    }

    /// This frame comes in from the clients' side.
    #[must_use]
    pub fn frame(self, frame: Vec<u8>) -> Self {
        self.step(Input::Raw(frame), Side::Wan)
    }

    fn step(mut self, input: Input, through: Side) -> Self {
        self.steps.push(Step::Packet { input, through, expect: None });
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

    /// The flow's handshake, all expected to be as it should.
    #[must_use]
    pub fn handshake(self, flow: Flow) -> Self {
        self.opening(flow)
            .packet(flow.syn_ack())
            .expect(returned_to(flow.client))
            .packet(flow.request())
            .expect(forwarded_to(flow.member).seen_as(flow.peer).establishing())
    }

    /// The flow's SYN, which is forwarded.
    #[must_use]
    pub fn opening(self, flow: Flow) -> Self {
        self.packet(flow.syn()).expect(forwarded_to(flow.member).seen_as(flow.peer).opening())
    }

    /// By all of it, this has been counted of a backend's part in connection attempts.
    #[must_use]
    pub fn signalled(mut self, member: Member, signals: Signals) -> Self {
        self.signals.push((member, signals));
        self
    }

    /// What the case claims.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The reasons that the case provokes, and what counts them.
    #[must_use]
    pub fn reasons(&self) -> Vec<(Counter, Reason)> {
        let expectations = self.steps.iter().filter_map(|step| match step {
            Step::Packet { expect, .. } => expect.as_ref(),
            Step::Change(_) => None,
        });
        expectations.filter_map(Expect::reason).collect()
    }

    /// Runs the case on a program that knows what is given.
    ///
    /// # Errors
    /// What isn't as expected.
    pub fn run(&self, gateway: &mut Gateway) -> Result<()> {
        let mut before = gateway.counters()?;
        let signalled = self.signals.iter().map(|(member, _)| gateway.signals(*member));
        let signalled = signalled.collect::<Result<Vec<_>>>()?;
        for (index, step) in self.steps.iter().enumerate() {
            let number = index + 1;
            match step {
                Step::Change(change) => {
                    carry_out(*change, gateway)?;
                    if matches!(change, Change::TearApart) {
                        before = gateway.counters()?;
                    }
                }
                Step::Packet { input, through, expect } => {
                    let expect = expect.as_ref().with_context(|| format!("step {number} expects nothing"))?;
                    let outcome = gateway.run(*through, &input.frame())?;
                    let after = gateway.counters()?;
                    let arrival = Arrival { input, through: *through };
                    let mut differences = expect.compare(&self.given, arrival, &outcome, &before, &after);
                    differences.extend(watch::differences(expect, arrival, &gateway.traced()));
                    ensure!(differences.is_empty(), "step {number}:\n    {}", differences.join("\n    "));
                    before = after;
                }
            }
        }
        for ((member, expected), before) in self.signals.iter().zip(signalled) {
            let seen = since(before, gateway.signals(*member)?);
            ensure!(seen == *expected, "{}: {expected:?} expected, {seen:?} seen", member.name);
        }
        Ok(())
    }
}

/// What was counted between two looks.
fn since(before: Signals, after: Signals) -> Signals {
    Signals {
        syns: after.syns - before.syns,
        syn_acks: after.syn_acks - before.syn_acks,
        refused: after.refused - before.refused,
        unreachable: after.unreachable - before.unreachable,
        unanswered: after.unanswered - before.unanswered,
        retried_refused: after.retried_refused - before.retried_refused,
        retried_unanswered: after.retried_unanswered - before.retried_unanswered,
        rescued: after.rescued - before.rescued,
    }
}

fn carry_out(change: Change, gateway: &mut Gateway) -> Result<()> {
    match change {
        Change::Activate(member) => gateway.activate(member),
        Change::Deactivate(scene) => {
            gateway.deactivate(scene);
            Ok(())
        }
        Change::Hold(scene) => {
            gateway.hold(scene);
            Ok(())
        }
        Change::Reject(scene) => {
            gateway.reject(scene);
            Ok(())
        }
        Change::Withdraw(scene) => gateway.withdraw(scene),
        Change::LoseWay(member) => gateway.lose_way(member),
        Change::Trial(member) => gateway.put_on_trial(member),
        Change::Silence(duration) => gateway.grow_older(duration),
        Change::Pull(side) => gateway.pull(side),
        Change::Locks(taken) => gateway.set_locks(taken),
        Change::Crowd => gateway.crowd_handshakes(),
        Change::TearApart => gateway.tear_flows_apart(),
        Change::Exhaust => gateway.exhaust_searches(),
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

/// The programs of a test: as many as its cases want different ones.
#[derive(Default)]
struct Programs(Vec<Borrowed>);

impl Programs {
    /// A program that has been told this and knows no flows.
    fn told(&mut self, given: &Given) -> Result<&mut Gateway> {
        if let Some(known) = self.0.iter().position(|program| program.can_be_told(given)) {
            self.0[known].tell(given)?;
            return Ok(&mut self.0[known]);
        }
        Ok(self.0.push_mut(Gateway::told(given)?))
    }
}

/// Runs all cases, and tells every one that fails.
///
/// # Errors
/// The claims that aren't true, with what was seen instead.
pub fn run_all(label: &str, cases: &[Case]) -> Result<()> {
    on_a_gateway(label, || {
        let mut programs = Programs::default();
        let mut failed: Vec<String> = Vec::new();
        for case in cases {
            if let Err(error) = programs.told(&case.given).and_then(|program| case.run(program)) {
                failed.push(format!("{}: {error:#}", case.name));
            }
        }
        if !failed.is_empty() {
            bail!("{} of {} claims are not true:\n{}", failed.len(), cases.len(), failed.join("\n"));
        }
        programs.0.iter().try_for_each(|program| program.nothing_is_counted_elsewhere())
    })
}
