//! Flows that have outlived their time are forgotten, both directions together, and no others: the product's sweep
//! over tables that the program has filled.
//!
//! Times are those of `dataplane::flows`: 10 s for a handshake, 15 s for a closed flow, 10 min for a half-closed one,
//! `idle_timeout` for an established one. Nobody waits for them: the sweep is told that it is later.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_tests::case::{
    Action, BACKEND_ISN, BACKUP, CLIENT, CLIENT_ISN, Gateway, IDLE_TIMEOUT, Member, OTHER_CLIENT, PRIMARY,
    Side, WEB, gateway, on_a_gateway, tcp, usual,
};
use balancer_tests::packet::Packet;
use rustix::time::{ClockId, clock_gettime};

const CLIENT_NEXT: u32 = CLIENT_ISN.wrapping_add(1);
const BACKEND_NEXT: u32 = BACKEND_ISN.wrapping_add(1);
/// How long a closed flow may be idle.
const CLOSED_IDLE: Duration = Duration::from_secs(15);
/// What a clock tick and a slow test may add to an age.
const MARGIN: Duration = Duration::from_secs(2);

/// A flow from a client's port to the web service on a backend.
#[derive(Clone, Copy)]
struct Flow {
    client: SocketAddrV4,
    backend: Member,
}

const FLOW: Flow = Flow { client: CLIENT, backend: PRIMARY };
/// Another one, whose client has another port, so that both keep theirs.
const OTHER: Flow =
    Flow { client: SocketAddrV4::new(*OTHER_CLIENT.ip(), OTHER_CLIENT.port() + 1), backend: PRIMARY };

impl Flow {
    fn request(self) -> Packet {
        tcp(self.client, WEB).ack().seq(CLIENT_NEXT).acks(BACKEND_NEXT)
    }

    fn response(self) -> Packet {
        tcp(self.backend.at(10001), gateway(self.client.port())).ack().seq(BACKEND_NEXT).acks(CLIENT_NEXT)
    }

    fn open(self, program: &mut Gateway) -> Result<()> {
        forwarded(program, &tcp(self.client, WEB).syn().seq(CLIENT_ISN))
    }

    fn establish(self, program: &mut Gateway) -> Result<()> {
        self.open(program)?;
        forwarded(program, &self.response().syn_ack().seq(BACKEND_ISN))?;
        forwarded(program, &self.request())
    }
}

fn forwarded(program: &mut Gateway, packet: &Packet) -> Result<()> {
    let outcome = program.run(Side::of(packet), &packet.to_frame())?;
    ensure!(outcome.action == Action::Redirect, "{packet:?}: {:?}", outcome.action);
    Ok(())
}

/// Flows in the tables: half-open and established.
fn flows(program: &Gateway) -> Result<(usize, usize)> {
    let counters = program.counters()?;
    let entries = [counters.half_open_entries, counters.established_entries];
    ensure!(entries.iter().all(|entries| entries.is_multiple_of(2)), "half a flow: {entries:?}");
    Ok((entries[0] / 2, entries[1] / 2))
}

/// Sweeps as if it were this much later, and tells what is left.
fn sweep_in(program: &mut Gateway, later: Duration) -> Result<(usize, usize)> {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    program.flows.sweep_at((now + later).as_nanos() as u64)?;
    flows(program)
}

/// `prepare` makes a flow that may be idle for `allowed`: just before it stays, just after it goes.
fn lives_for(
    label: &str,
    allowed: Duration,
    prepare: impl FnOnce(&mut Gateway) -> Result<()> + Send,
) -> Result<()> {
    on_a_gateway(label, move || {
        let mut program = Gateway::load(&usual())?;
        prepare(&mut program)?;
        let there = flows(&program)?;
        let early = sweep_in(&mut program, allowed - MARGIN)?;
        ensure!(early == there, "gone too early: {early:?}");
        let late = sweep_in(&mut program, allowed + MARGIN)?;
        ensure!(late == (0, 0), "not gone: {late:?}");
        let again = sweep_in(&mut program, allowed + MARGIN)?;
        ensure!(again == (0, 0), "back again: {again:?}");
        Ok(())
    })
}

#[test]
fn a_handshake_is_forgotten_after_ten_seconds() {
    lives_for("sweephalf", Duration::from_secs(10), |program| FLOW.open(program)).unwrap();
}

#[test]
fn an_established_flow_is_forgotten_after_idle_timeout() {
    lives_for("sweepidle", IDLE_TIMEOUT, |program| FLOW.establish(program)).unwrap();
}

#[test]
fn a_half_closed_flow_is_forgotten_after_ten_minutes() {
    lives_for("sweephc", Duration::from_secs(600), |program| {
        FLOW.establish(program)?;
        forwarded(program, &FLOW.request().fin())?;
        forwarded(program, &FLOW.response().acks(CLIENT_NEXT + 1))
    })
    .unwrap();
}

#[test]
fn a_closed_flow_is_forgotten_after_fifteen_seconds() {
    lives_for("sweepfin", CLOSED_IDLE, |program| {
        FLOW.establish(program)?;
        forwarded(program, &FLOW.request().fin())?;
        forwarded(program, &FLOW.response().fin().acks(CLIENT_NEXT + 1))?;
        forwarded(program, &FLOW.request().seq(CLIENT_NEXT + 1).acks(BACKEND_NEXT.wrapping_add(1)))
    })
    .unwrap();
}

/// Failure class 30: what is forged goes on to its receiver, who knows better; here it shortens no life.
#[test]
fn what_its_receiver_does_not_believe_shortens_no_life() {
    let forged = [
        ("a FIN that nobody acknowledges", FLOW.request().fin().seq(CLIENT_NEXT + 0x10_0000)),
        ("a RST of the client behind the window", FLOW.request().rst().seq(CLIENT_NEXT + 0x1_0000)),
        ("a RST of the client before the window", FLOW.request().rst().seq(CLIENT_NEXT - 1)),
        (
            "a RST of the backend behind the window",
            FLOW.response().rst().seq(BACKEND_NEXT.wrapping_add(0x1_0000)),
        ),
    ];
    for (what, packet) in forged {
        lives_for("sweepforged", IDLE_TIMEOUT, |program| {
            FLOW.establish(program)?;
            forwarded(program, &FLOW.response().payload(b"hello"))?;
            forwarded(program, &packet)
        })
        .context(what)
        .unwrap();
    }
}

#[test]
fn a_reset_that_its_receiver_challenges_shortens_no_life() {
    lives_for("sweepchallenge", IDLE_TIMEOUT, |program| {
        FLOW.establish(program)?;
        forwarded(program, &FLOW.response().payload(b"hello"))?;
        forwarded(program, &FLOW.request().rst().seq(CLIENT_NEXT + 7))?;
        forwarded(program, &FLOW.response().seq(BACKEND_NEXT.wrapping_add(5)))
    })
    .unwrap();
}

#[test]
fn a_reset_flow_is_forgotten_after_fifteen_seconds() {
    lives_for("sweeprst", CLOSED_IDLE, |program| {
        FLOW.establish(program)?;
        forwarded(program, &FLOW.response().rst())
    })
    .unwrap();
}

#[test]
fn a_packet_of_either_direction_keeps_both() {
    on_a_gateway("sweepkeep", || {
        for packet in [FLOW.request(), FLOW.response()] {
            let mut program = Gateway::load(&usual())?;
            FLOW.establish(&mut program)?;
            forwarded(&mut program, &FLOW.request().fin())?;
            forwarded(&mut program, &FLOW.response().fin().acks(CLIENT_NEXT + 1))?;
            forwarded(&mut program, &FLOW.request().seq(CLIENT_NEXT + 1).acks(BACKEND_NEXT.wrapping_add(1)))?;
            program.grow_older(CLOSED_IDLE + MARGIN)?;
            forwarded(&mut program, &packet)?;
            let kept = sweep_in(&mut program, Duration::ZERO)?;
            ensure!(kept == (0, 1), "{packet:?}: {kept:?}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn live_flows_stay_while_old_ones_go_and_go_on_afterwards() {
    on_a_gateway("sweeplive", || {
        let mut program = Gateway::load(&usual())?;
        FLOW.establish(&mut program)?;
        forwarded(&mut program, &FLOW.request().rst())?;
        OTHER.establish(&mut program)?;
        let swept = sweep_in(&mut program, CLOSED_IDLE + MARGIN)?;
        ensure!(swept == (0, 1), "one goes, one stays: {swept:?}");
        forwarded(&mut program, &OTHER.request().payload(b"question"))?;
        forwarded(&mut program, &OTHER.response().payload(b"answer"))?;
        let stray = program.run(Side::Wan, &FLOW.request().to_frame())?;
        ensure!(stray.action == Action::Drop, "a forgotten flow is no flow: {:?}", stray.action);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_census_counts_each_open_flow_once_and_names_all_that_are_referred_to() {
    on_a_gateway("census", || {
        let mut program = Gateway::load(&usual())?;
        let [primary, backup] = [PRIMARY, BACKUP].map(|member| program.slot(member));
        let (primary, backup) = primary.zip(backup).context("both are in the plan")?;
        FLOW.establish(&mut program)?;
        OTHER.establish(&mut program)?;
        forwarded(&mut program, &OTHER.request().fin())?;
        forwarded(&mut program, &OTHER.response().acks(CLIENT_NEXT + 1))?;
        program.activate(Some(BACKUP))?;
        Flow { client: SocketAddrV4::new(*CLIENT.ip(), 20000), backend: BACKUP }.open(&mut program)?;
        let census = program.flows.sweep()?;
        ensure!(census.established == BTreeMap::from([(primary, 1)]), "{census:?}");
        ensure!(census.busy.backends == [primary, backup].into(), "{census:?}");
        ensure!(census.busy.services.len() == 1, "{census:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn half_a_flow_is_left_over_and_goes_too() {
    on_a_gateway("sweeptorn", || {
        let mut program = Gateway::load(&usual())?;
        FLOW.establish(&mut program)?;
        OTHER.open(&mut program)?;
        program.tear_flows_apart()?;
        let swept = sweep_in(&mut program, IDLE_TIMEOUT + MARGIN)?;
        ensure!(swept == (0, 0), "half a flow is not counted as one: {swept:?}");
        Ok(())
    })
    .unwrap();
}
