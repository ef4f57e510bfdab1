//! Clients that nobody answers are found, and their SYNs come in once more; a cut tells those who can't go on, and keeps
//! the SYNs of those who can.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use balancer_tests::case::{
    Action, CLIENT_ISN, Flow, Gateway, SCENES, SNAT4, Scene, Side, on_a_gateway, usual,
};
use balancer_tests::gateway::PATIENCE;
use balancer_tests::lab::{Lab, Topology};
use balancer_tests::packet::{Extension, Packet, difference, read_back};
use balancer_tests::twin::Wire;
use balancer_user::dataplane::failures::What;
use balancer_user::dataplane::rescue::Rule;
use balancer_user::dataplane::slots::Retry;
use rustix::time::{ClockId, clock_gettime};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Later than that, whatever the kernel's tick is.
const LATE: Duration = Duration::from_secs(3);

fn rule(retry: Retry) -> Rule {
    Rule { retry, connect_timeout: CONNECT_TIMEOUT, is_told: true }
}

/// Of the packet path's clock, so much later.
fn at(later: Duration) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 + later.as_nanos() as u64
}

fn forwarded(program: &mut Gateway, packet: &Packet) -> Result<Vec<u8>> {
    let outcome = program.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
    ensure!(outcome.action == Action::Redirect, "{packet:?}: {:?}", outcome.action);
    Ok(outcome.frame)
}

/// As frames of the controller's making have it.
fn syn(flow: Flow) -> Packet {
    flow.syn().with(|packet| (packet.ip.id, packet.ip.flow_label) = (0, 0))
}

/// The number that tells clients' flows apart: the last two bytes of the address, and the port.
fn number(client: SocketAddr) -> u64 {
    let [.., a, b] = match client.ip() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    };
    u64::from(u32::from_be_bytes([a, b, 0, 0])) | u64::from(client.port())
}

#[test]
fn who_is_not_answered_in_time_comes_in_once_more_and_is_told_of_once() {
    let lab = Lab::new("rescuebytes", &Topology::two_armed()).unwrap();
    let wire = Wire::open(lab.backend(0), "eth0").unwrap();
    let rescued = || -> Result<()> {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let mut rescuer = program.rescuer(rule(Retry::Instant));
            ensure!(!rescuer.has_work(), "{}: there are no handshakes", scene.name);
            let wanted = forwarded(&mut program, &syn(scene.flow()))?;
            ensure!(rescuer.has_work(), "{}: there is one", scene.name);
            let early = rescuer.look();
            ensure!(early.unanswered.is_empty() && early.waiting.is_empty(), "{}: {early:?}", scene.name);
            let late = rescuer.look_at(at(LATE));
            let [attempt] = late.unanswered[..] else { anyhow::bail!("{}: {late:?}", scene.name) };
            let seen = (attempt.flow, attempt.what, Some(attempt.backend));
            let told = (number(scene.client), What::Unanswered, program.slot(scene.primary));
            ensure!(seen == told, "{}: {attempt:?}, {told:?}", scene.name);
            let report = program.take_in(&late.waiting)?;
            ensure!((report.sent, report.failed) == (1, 0), "{}: {report:?}", scene.name);
            // To the program this SYN is as young as it is, so it goes where it went.
            let frame = wire.next(Instant::now() + PATIENCE)?.context("no frame came")?;
            if let Some(difference) = difference(&wanted, &frame) {
                anyhow::bail!("{}:\n{difference}", scene.name);
            }
            let again = rescuer.look_at(at(LATE));
            ensure!(again.unanswered.is_empty() && again.waiting.is_empty(), "{}: {again:?}", scene.name);
        }
        Ok(())
    };
    lab.gateway().enter(rescued).unwrap().unwrap();
}

#[test]
fn who_could_not_go_on_comes_in_again_when_there_is_somebody_else_and_is_not_told_of_again() {
    let lab = Lab::new("rescueanew", &Topology::two_armed()).unwrap();
    let rescued = || -> Result<()> {
        let mut program = Gateway::told(&usual().alone())?;
        for scene in SCENES {
            program.begin_anew()?;
            let mut rescuer = program.rescuer(rule(Retry::Instant));
            forwarded(&mut program, &syn(scene.flow()))?;
            let found = rescuer.look_at(at(LATE));
            ensure!((found.unanswered.len(), found.waiting.is_empty()) == (1, false), "{}", scene.name);
            rescuer.begin_anew();
            let anew = rescuer.look_at(at(LATE));
            ensure!(
                (anew.unanswered.len(), anew.waiting.is_empty()) == (0, false),
                "{}: {anew:?}",
                scene.name
            );
            let again = rescuer.look_at(at(LATE));
            ensure!(again.unanswered.is_empty() && again.waiting.is_empty(), "{}: {again:?}", scene.name);
        }
        Ok(())
    };
    lab.gateway().enter(rescued).unwrap().unwrap();
}

#[test]
fn who_was_answered_or_has_no_backend_yet_is_left_alone() {
    on_a_gateway("rescuenot", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let mut rescuer = program.rescuer(rule(Retry::Instant));
            forwarded(&mut program, &scene.flow().syn())?;
            forwarded(&mut program, &scene.flow().syn_ack())?;
            program.hold(scene);
            let other = SocketAddr::new(scene.other_client.ip(), 20_000);
            program.run(Side::Wan, &scene.flow().of(other).syn().to_frame())?;
            let found = rescuer.look_at(at(LATE));
            ensure!(found.unanswered.is_empty() && found.waiting.is_empty(), "{}: {found:?}", scene.name);
        }
        Ok(())
    })
    .unwrap();
}

/// With a loose source route, which Linux drops silently (IPv6: with destination options, which may ask for the same).
fn with_more(packet: &mut Packet) {
    if packet.source.is_ipv4() {
        packet.ip.options = vec![131, 7, 4, 0, 0, 0, 0, 0];
    } else {
        packet.ip.extensions = vec![Extension::destination_options(1)];
    }
}

/// Their silence says nothing about a server: it was right not to answer.
#[test]
fn who_deserves_no_answer_is_neither_told_of_nor_sent_on() {
    const SIGNED: [u8; 20] = [1, 1, 19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    on_a_gateway("rescuewrong", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let mut rescuer = program.rescuer(rule(Retry::Instant));
            let tcp = if scene.client.is_ipv4() { 14 + 20 } else { 14 + 40 };
            let syn = |port, change: fn(&mut Packet)| {
                let client = SocketAddr::new(scene.other_client.ip(), port);
                scene.flow().of(client).syn().with(change).to_frame()
            };
            let mut frames = vec![
                syn(20_000, |packet| packet.options = SIGNED.to_vec()),
                syn(20_001, |packet| packet.payload = vec![7; 10]),
                // Routers behind the gateway send it no further, and servers don't like what it asks them for.
                syn(20_007, |packet| packet.ip.ttl = 15),
                syn(20_008, with_more),
            ];
            // Sequence number, acknowledgement, reserved bits, window, urgent pointer.
            for (port, wrong) in (20_002..).zip([4, 8, 12, 14, 18]) {
                let mut frame = syn(port, |_| ());
                frame[tcp + wrong] ^= 1;
                frames.push(frame);
            }
            for frame in frames {
                let outcome = program.run(Side::Wan, &frame)?;
                ensure!(outcome.action == Action::Redirect, "{}: {:?}", scene.name, outcome.action);
            }
            let found = rescuer.look_at(at(LATE));
            ensure!(found.unanswered.is_empty() && found.waiting.is_empty(), "{}: {found:?}", scene.name);
            // What the header has and nobody needs is no fault.
            let odd = |packet: &mut Packet| packet.acknowledgement = 0x0102_0304;
            forwarded(&mut program, &scene.flow().syn().with(odd))?;
            let found = rescuer.look_at(at(LATE));
            ensure!(found.unanswered.len() == 1, "{}: {found:?}", scene.name);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn where_clients_repeat_themselves_nothing_comes_in() {
    on_a_gateway("rescuetold", || {
        let mut program = Gateway::told(&usual())?;
        for retry in [Retry::Off, Retry::Repeated, Retry::Held] {
            program.begin_anew()?;
            let mut rescuer = program.rescuer(rule(retry));
            forwarded(&mut program, &SNAT4.flow().syn())?;
            let found = rescuer.look_at(at(LATE));
            ensure!((found.unanswered.len(), found.waiting.is_empty()) == (1, true), "{retry:?}: {found:?}");
            let again = rescuer.look_at(at(LATE));
            ensure!(again.unanswered.is_empty(), "{retry:?}: {again:?}");
        }
        Ok(())
    })
    .unwrap();
}

/// Only a part of them comes in after each look, and nobody is left out.
#[test]
fn a_thousand_come_in_one_after_the_other() {
    const CLIENTS: u16 = 1000;
    on_a_gateway("rescuemany", || {
        let mut program = Gateway::told(&usual().max_half_open(2048))?;
        let mut rescuer = program.rescuer(rule(Retry::Instant));
        for port in 2000..2000 + CLIENTS {
            forwarded(&mut program, &SNAT4.flow().of(SocketAddr::new(SNAT4.client.ip(), port)).syn())?;
        }
        let mut sent = Vec::new();
        for _ in 0..CLIENTS {
            let found = rescuer.look_at(at(LATE));
            if found.waiting.is_empty() {
                break;
            }
            ensure!(!found.unanswered.is_empty() && found.unanswered.len() < 100, "few are told");
            sent.push(program.take_in(&found.waiting)?.sent);
        }
        let all: u64 = sent.iter().sum();
        ensure!(all == u64::from(CLIENTS) && sent.len() > 1, "{sent:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_server_that_was_left_is_told_that_nobody_waits_and_one_that_was_not_is_not() {
    let lab = Lab::new("rescueleft", &Topology::two_armed()).unwrap();
    let wire = Wire::open(lab.backend(0), "eth0").unwrap();
    let told = || -> Result<()> {
        let mut program = Gateway::told(&usual().retry(Retry::Instant))?;
        for scene in SCENES {
            program.begin_anew()?;
            let flow = scene.flow();
            forwarded(&mut program, &syn(flow))?;
            let stays = program.rescuer(rule(Retry::Instant)).look_at(at(LATE)).waiting;
            program.tell_left(&stays, scene.primary)?;
            program.grow_older(LATE)?;
            let leaves = program.rescuer(rule(Retry::Instant)).look().waiting;
            program.take_in(&leaves)?;
            program.tell_left(&leaves, scene.primary)?;
            let next = || wire.next(Instant::now() + PATIENCE)?.context("no frame came");
            let moved = read_back(&next()?).tcp_destination().map(|to| to.ip());
            ensure!(moved == Some(scene.backup.address), "{}: the SYN went to {moved:?}", scene.name);
            let reset =
                Packet::new(flow.peer, flow.backend()).rst().seq(CLIENT_ISN.wrapping_add(1)).with(|packet| {
                    packet.ethernet.source = Side::Lan.mac();
                    packet.ethernet.destination = scene.primary.mac;
                    (packet.ip.id, packet.ip.flow_label, packet.window) = (0, 0, 0);
                });
            if let Some(difference) = difference(&reset.to_frame(), &next()?) {
                anyhow::bail!("{}:\n{difference}", scene.name);
            }
        }
        Ok(())
    };
    lab.gateway().enter(told).unwrap().unwrap();
}

/// A pool has moved: whoever waits for an answer of another backend need not wait for it.
#[test]
fn who_waits_for_a_backend_that_was_left_comes_in_at_once() {
    on_a_gateway("rescuemoved", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let other = scene.flow().of(SocketAddr::new(scene.other_client.ip(), 20_000));
            forwarded(&mut program, &scene.flow().syn())?;
            forwarded(&mut program, &other.syn())?;
            forwarded(&mut program, &other.syn_ack())?;
            let at_primary = program.move_on(scene, scene.primary)?;
            ensure!(at_primary.sent == 0, "{}: {at_primary:?}", scene.name);
            let at_backup = program.move_on(scene, scene.backup)?;
            ensure!((at_backup.sent, at_backup.failed) == (1, 0), "{}: {at_backup:?}", scene.name);
        }
        Ok(())
    })
    .unwrap();
}

/// Where the one flow goes, by slot.
fn backend_of_the_flow(program: &Gateway) -> Result<u16> {
    let mut backends = Vec::new();
    program.flows.for_each(|flow| backends.push(flow.backend));
    let [backend] = backends[..] else { anyhow::bail!("{backends:?}") };
    Ok(backend)
}

fn cut_keeps(program: &mut Gateway, scene: &'static Scene) -> Result<()> {
    program.begin_anew()?;
    forwarded(program, &scene.flow().syn())?;
    program.hold(scene);
    let (report, syns) = program.cut_and_keep(scene.primary)?;
    ensure!((report.flows, report.resets_sent) == (1, 0), "the client isn't told: {report:?}");
    ensure!(program.counters()?.half_open_entries == 0, "the flow is gone");
    ensure!(program.take_in(&syns)?.sent == 1, "its SYN comes in");
    ensure!(backend_of_the_flow(program)? == 0, "and is held");
    program.activate(scene.backup)?;
    ensure!(program.replay(scene)?.sent == 1, "until the pool has a backend");
    let backend = backend_of_the_flow(program)?;
    ensure!(Some(backend) == program.slot(scene.backup), "it is in slot {backend}");
    // To the packet path it is new there; but that this one is silent, too, is no news of it.
    let found = program.rescuer(rule(Retry::Instant)).look_at(at(LATE));
    let [attempt] = found.unanswered[..] else { anyhow::bail!("{}: {found:?}", scene.name) };
    ensure!((attempt.what, attempt.backend) == (What::UnansweredAgain, backend), "{attempt:?}");
    // One that was answered is told, as there is no way back.
    program.begin_anew()?;
    forwarded(program, &scene.flow().syn())?;
    forwarded(program, &scene.flow().syn_ack())?;
    program.hold(scene);
    let (report, syns) = program.cut_and_keep(scene.primary)?;
    ensure!((report.flows, report.resets_sent, syns.is_empty()) == (1, 1, true), "answered: {report:?}");
    Ok(())
}

#[test]
fn a_cut_keeps_the_syns_that_nobody_has_answered() {
    on_a_gateway("rescuecut", || {
        let mut program = Gateway::told(&usual())?;
        SCENES.into_iter().try_for_each(|scene| cut_keeps(&mut program, scene).with_context(|| scene.name))
    })
    .unwrap();
}
