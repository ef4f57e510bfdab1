//! Flows that have outlived their time are forgotten, both directions together, and no others: the product's sweep
//! over tables that the program has filled.
//!
//! Times are those of `dataplane::flows`: 10 s for a handshake, 150 s for one whose SYN is held, 15 s for a closed flow,
//! 10 min for a half-closed one, `idle_timeout` for an established one. Nobody waits for them: the sweep is told that it is later.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_tests::case::{
    Action, BACKEND_NEXT, CLIENT_NEXT, Flow, Gateway, IDLE_TIMEOUT, SCENES, Scene, Side, on_a_gateway, usual,
};
use balancer_tests::packet::Packet;
use balancer_user::dataplane::flows::FlowState;
use rustix::time::{ClockId, clock_gettime};

/// How long a handshake may be.
const HANDSHAKE_IDLE: Duration = Duration::from_secs(10);
/// How long a closed flow may be idle.
const CLOSED_IDLE: Duration = Duration::from_secs(15);
/// What a clock tick and a slow test may add to an age.
const MARGIN: Duration = Duration::from_secs(2);

/// Another flow than the usual one, whose client has another port, so that both keep theirs.
fn other(scene: &'static Scene) -> Flow {
    scene.flow().of(SocketAddr::new(scene.other_client.ip(), scene.other_client.port() + 1))
}

fn open(program: &mut Gateway, flow: Flow) -> Result<()> {
    forwarded(program, &flow.syn())
}

fn establish(program: &mut Gateway, flow: Flow) -> Result<()> {
    open(program, flow)?;
    forwarded(program, &flow.syn_ack())?;
    forwarded(program, &flow.request())
}

/// Both sides end it, and both learn that the other has.
fn close(program: &mut Gateway, flow: Flow) -> Result<()> {
    forwarded(program, &flow.request().fin())?;
    forwarded(program, &flow.response().fin().acks(CLIENT_NEXT + 1))?;
    forwarded(program, &flow.request().seq(CLIENT_NEXT + 1).acks(BACKEND_NEXT.wrapping_add(1)))
}

fn forwarded(program: &mut Gateway, packet: &Packet) -> Result<()> {
    let outcome = program.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
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
    program.flows.sweep_at(monotonic_in(later));
    flows(program)
}

/// Whether so many lines of handshakes are left.
fn are_left(program: &Gateway, lines: usize) -> Result<()> {
    let left = program.counters()?.half_open_entries;
    ensure!(left == lines, "{lines} lines expected, {left} left");
    Ok(())
}

/// What the clock of the packet path will say then.
fn monotonic_in(later: Duration) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    (now + later).as_nanos() as u64
}

/// `prepare` makes a flow that may be idle for `allowed`: just before it stays, just after it goes; in every scene.
fn lives_for(
    label: &str,
    allowed: Duration,
    prepare: impl Fn(&mut Gateway, Flow) -> Result<()> + Send + Sync,
) -> Result<()> {
    on_a_gateway(label, || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            prepare(&mut program, scene.flow())?;
            let there = flows(&program)?;
            let early = sweep_in(&mut program, allowed - MARGIN)?;
            ensure!(early == there, "{}: gone too early: {early:?}", scene.name);
            let late = sweep_in(&mut program, allowed + MARGIN)?;
            ensure!(late == (0, 0), "{}: not gone: {late:?}", scene.name);
            let again = sweep_in(&mut program, allowed + MARGIN)?;
            ensure!(again == (0, 0), "{}: back again: {again:?}", scene.name);
        }
        Ok(())
    })
}

#[test]
fn a_handshake_is_forgotten_after_ten_seconds() {
    lives_for("sweephalf", HANDSHAKE_IDLE, open).unwrap();
}

/// While the pool is on hold.
fn wait(program: &mut Gateway, scene: &'static Scene) -> Result<()> {
    program.hold(scene);
    let outcome = program.run(Side::Wan, &scene.flow().syn().to_frame())?;
    ensure!(outcome.action == Action::Drop, "{:?}", outcome.action);
    Ok(())
}

#[test]
fn a_held_syn_outlives_hooks_of_minutes_and_is_forgotten_when_its_client_must_be_gone() {
    on_a_gateway("sweepheld", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            wait(&mut program, scene)?;
            let early = sweep_in(&mut program, Duration::from_secs(150) - MARGIN)?;
            ensure!(early == (1, 0), "{}: gone too early: {early:?}", scene.name);
            program.grow_older(Duration::from_secs(100))?;
            wait(&mut program, scene)?;
            let repeated = sweep_in(&mut program, Duration::from_secs(150) - MARGIN)?;
            ensure!(repeated == (1, 0), "{}: repeated and gone: {repeated:?}", scene.name);
            let late = sweep_in(&mut program, Duration::from_secs(150) + MARGIN)?;
            ensure!(late == (0, 0), "{}: not gone: {late:?}", scene.name);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_waits_is_listed_half_open_without_a_backend_and_keeps_nobodys_slot_but_its_services() {
    on_a_gateway("listheld", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            wait(&mut program, scene)?;
            let mut listed = Vec::new();
            program.flows.for_each(|flow| listed.push(flow));
            let [flow] = &listed[..] else { anyhow::bail!("{listed:?}") };
            ensure!(
                (flow.client, flow.listen, flow.backend) == (scene.client, scene.web.listen, 0),
                "{flow:?}"
            );
            ensure!((flow.state, flow.packets) == (FlowState::HalfOpen, 0), "{flow:?}");
            let census = program.flows.sweep();
            ensure!(census.busy.backends.is_empty() && census.busy.services.len() == 1, "{census:?}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_flow_is_listed_with_all_that_it_has_carried_since_its_first_syn() {
    on_a_gateway("listcarried", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let flow = scene.flow();
            let mut bytes = 0;
            let mut comes = |program: &mut Gateway, packet: Packet| {
                bytes += packet.to_frame().len() as u64;
                forwarded(program, &packet)?;
                let mut listed = Vec::new();
                program.flows.for_each(|flow| listed.push(flow));
                let [flow] = &listed[..] else { anyhow::bail!("{listed:?}") };
                ensure!(flow.bytes == bytes, "{bytes} bytes were sent: {flow:?}");
                let [is_old, is_idle] = [flow.age, flow.idle].map(|time| time >= MARGIN);
                Ok((flow.state, flow.packets, is_old, is_idle))
            };
            ensure!(comes(&mut program, flow.syn())? == (FlowState::HalfOpen, 1, false, false));
            program.grow_older(2 * MARGIN)?;
            ensure!(comes(&mut program, flow.syn_ack())? == (FlowState::HalfOpen, 2, true, true));
            ensure!(comes(&mut program, flow.syn())? == (FlowState::HalfOpen, 3, true, false));
            ensure!(comes(&mut program, flow.syn_ack())? == (FlowState::HalfOpen, 4, true, false));
            ensure!(comes(&mut program, flow.request())? == (FlowState::Established, 5, true, false));
            ensure!(comes(&mut program, flow.response())? == (FlowState::Established, 6, true, false));
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_established_flow_is_forgotten_after_idle_timeout() {
    lives_for("sweepidle", IDLE_TIMEOUT, establish).unwrap();
}

#[test]
fn a_half_closed_flow_is_forgotten_after_ten_minutes() {
    lives_for("sweephc", Duration::from_secs(600), |program, flow| {
        establish(program, flow)?;
        forwarded(program, &flow.request().fin())?;
        forwarded(program, &flow.response().acks(CLIENT_NEXT + 1))
    })
    .unwrap();
}

#[test]
fn a_closed_flow_is_forgotten_after_fifteen_seconds() {
    lives_for("sweepfin", CLOSED_IDLE, |program, flow| {
        establish(program, flow)?;
        close(program, flow)
    })
    .unwrap();
}

/// A packet, and why it isn't believed.
type Forgery = (&'static str, fn(Flow) -> Packet);

/// Failure class 30: what is forged goes on to its receiver, who knows better; here it shortens no life.
#[test]
fn what_its_receiver_does_not_believe_shortens_no_life() {
    let forged: [Forgery; 4] = [
        ("a FIN that nobody acknowledges", |flow| flow.request().fin().seq(CLIENT_NEXT + 0x10_0000)),
        ("a RST of the client behind the window", |flow| flow.request().rst().seq(CLIENT_NEXT + 0x1_0000)),
        ("a RST of the client before the window", |flow| flow.request().rst().seq(CLIENT_NEXT - 1)),
        ("a RST of the backend behind the window", |flow| {
            flow.response().rst().seq(BACKEND_NEXT.wrapping_add(0x1_0000))
        }),
    ];
    for (what, packet) in forged {
        lives_for("sweepforged", IDLE_TIMEOUT, |program, flow| {
            establish(program, flow)?;
            forwarded(program, &flow.response().payload(b"hello"))?;
            forwarded(program, &packet(flow))
        })
        .context(what)
        .unwrap();
    }
}

#[test]
fn a_reset_that_its_receiver_challenges_shortens_no_life() {
    lives_for("sweepchallenge", IDLE_TIMEOUT, |program, flow| {
        establish(program, flow)?;
        forwarded(program, &flow.response().payload(b"hello"))?;
        forwarded(program, &flow.request().rst().seq(CLIENT_NEXT + 7))?;
        forwarded(program, &flow.response().seq(BACKEND_NEXT.wrapping_add(5)))
    })
    .unwrap();
}

#[test]
fn a_reset_flow_is_forgotten_after_fifteen_seconds() {
    lives_for("sweeprst", CLOSED_IDLE, |program, flow| {
        establish(program, flow)?;
        forwarded(program, &flow.response().rst())
    })
    .unwrap();
}

#[test]
fn a_packet_of_either_direction_keeps_both() {
    on_a_gateway("sweepkeep", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            for packet in [scene.flow().request(), scene.flow().response()] {
                program.begin_anew()?;
                establish(&mut program, scene.flow())?;
                close(&mut program, scene.flow())?;
                program.grow_older(CLOSED_IDLE + MARGIN)?;
                forwarded(&mut program, &packet)?;
                let kept = sweep_in(&mut program, Duration::ZERO)?;
                ensure!(kept == (0, 1), "{packet:?}: {kept:?}");
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn live_flows_stay_while_old_ones_go_and_go_on_afterwards() {
    on_a_gateway("sweeplive", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            let (flow, other) = (scene.flow(), other(scene));
            program.begin_anew()?;
            establish(&mut program, flow)?;
            forwarded(&mut program, &flow.request().rst())?;
            establish(&mut program, other)?;
            let swept = sweep_in(&mut program, CLOSED_IDLE + MARGIN)?;
            ensure!(swept == (0, 1), "one goes, one stays: {swept:?}");
            forwarded(&mut program, &other.request().payload(b"question"))?;
            forwarded(&mut program, &other.response().payload(b"answer"))?;
            let stray = program.run(Side::Wan, &flow.request().rst().to_frame())?;
            ensure!(stray.action == Action::Drop, "a forgotten flow is no flow: {:?}", stray.action);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_census_counts_each_open_flow_once_and_names_all_that_are_referred_to() {
    on_a_gateway("census", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let [primary, backup, _] = scene.members().map(|member| program.slot(member));
            let (primary, backup) = primary.zip(backup).context("both are in the plan")?;
            let (flow, other) = (scene.flow(), other(scene));
            establish(&mut program, flow)?;
            establish(&mut program, other)?;
            forwarded(&mut program, &other.request().fin())?;
            forwarded(&mut program, &other.response().acks(CLIENT_NEXT + 1))?;
            program.activate(scene.backup)?;
            open(&mut program, flow.of(SocketAddr::new(scene.client.ip(), 20000)).on(scene.backup))?;
            let census = program.flows.sweep();
            ensure!(census.established == BTreeMap::from([(primary, 1)]), "{census:?}");
            ensure!(census.busy.backends == [primary, backup].into(), "{census:?}");
            ensure!(census.busy.services.len() == 1, "{census:?}");
        }
        Ok(())
    })
    .unwrap();
}

/// A backend goes on answering a SYN that was forged; of handshakes the oldest makes room, by whichever of its lines it is met.
#[test]
fn both_sides_of_a_handshake_are_as_old_as_its_clients_last_syn() {
    const LATER: Duration = Duration::from_secs(6);
    on_a_gateway("sweepforged", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            let flow = scene.flow();
            for (packet, lines) in [(flow.syn(), 1), (flow.syn_ack(), 0)] {
                program.begin_anew()?;
                open(&mut program, flow)?;
                program.grow_older(LATER)?;
                forwarded(&mut program, &packet)?;
                program.tear_flows_apart()?;
                program.flows.sweep_at(monotonic_in(LATER));
                are_left(&program, lines).with_context(|| format!("{}: {packet:?}", scene.name))?;
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn half_a_flow_that_was_left_over_is_in_no_new_ones_way() {
    on_a_gateway("halfold", || {
        let mut program = Gateway::told(&usual().max_half_open(1))?;
        for scene in SCENES {
            program.begin_anew()?;
            open(&mut program, scene.flow())?;
            program.tear_flows_apart()?;
            for (silent, lines) in [(Duration::ZERO, 1), (HANDSHAKE_IDLE + MARGIN, 0)] {
                program.grow_older(silent)?;
                let outcome = program.run(Side::Wan, &other(scene).syn().to_frame())?;
                ensure!(outcome.action == Action::Drop, "{outcome:?}");
                are_left(&program, lines).with_context(|| format!("{} after {silent:?}", scene.name))?;
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn half_a_flow_is_left_over_and_goes_too() {
    on_a_gateway("sweeptorn", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            establish(&mut program, scene.flow())?;
            open(&mut program, other(scene))?;
            program.tear_flows_apart()?;
            let swept = sweep_in(&mut program, IDLE_TIMEOUT + MARGIN)?;
            ensure!(swept == (0, 0), "half a flow is not counted as one: {swept:?}");
        }
        Ok(())
    })
    .unwrap();
}
