//! Flows that are cut end at once, on both sides, and nothing of them goes on.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use balancer_tests::case::{
    Action, BACKEND_NEXT, CLIENT_ISN, CLIENT_NEXT, Flow, Gateway, MAIL, SCENES, SNAT4, Scene, Side,
    on_a_gateway, usual,
};
use balancer_tests::driven::{self, Driven};
use balancer_tests::gateway::PATIENCE;
use balancer_tests::lab::{Family, Lab, Topology};
use balancer_tests::packet::{Packet, difference};
use balancer_tests::poll::poll_until;
use balancer_tests::twin::Wire;
use balancer_user::dataplane::slots::Forwarding;

/// For ten thousand; a tenth of it is usual.
const FLOWS_MAX: Duration = Duration::from_secs(2);

fn forwarded(program: &mut Gateway, packet: &Packet) -> Result<()> {
    let outcome = program.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
    ensure!(outcome.action == Action::Redirect, "{packet:?}: {:?}", outcome.action);
    Ok(())
}

fn establish(program: &mut Gateway, flow: Flow) -> Result<()> {
    forwarded(program, &flow.syn())?;
    forwarded(program, &flow.syn_ack())?;
    forwarded(program, &flow.request())
}

/// A RST of the gateway's own making, in the name of one side.
fn reset(packet: Packet, side: Side, to: balancer_tests::packet::Mac) -> Vec<u8> {
    let reset = packet.rst_ack().with(|packet| {
        packet.ethernet.source = side.mac();
        packet.ethernet.destination = to;
        packet.ip.id = 0;
        packet.ip.flow_label = 0;
        packet.window = 0;
    });
    reset.to_frame()
}

fn next(wire: &Wire) -> Result<Vec<u8>> {
    wire.next(Instant::now() + PATIENCE)?.context("no frame came")
}

fn is(seen: &[u8], wanted: &[u8]) -> Result<()> {
    difference(wanted, seen).map_or(Ok(()), |difference| Err(anyhow::anyhow!("{difference}")))
}

#[test]
fn both_sides_get_the_one_reset_that_they_believe() {
    let lab = Lab::new("cutbytes", &Topology::two_armed()).unwrap();
    let (client, backend) = (lab.client(), lab.backend(0));
    let (client, backend) = (Wire::open(client, "eth0").unwrap(), Wire::open(backend, "eth0").unwrap());
    let cut = || -> Result<()> {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let flow = scene.flow();
            establish(&mut program, flow)?;
            forwarded(&mut program, &flow.request().payload(b"question"))?;
            forwarded(&mut program, &flow.response().payload(b"answer").acks(CLIENT_NEXT + 8))?;
            forwarded(&mut program, &flow.request().seq(CLIENT_NEXT + 8).acks(BACKEND_NEXT.wrapping_add(6)))?;
            program.activate(scene.backup)?;
            let report = program.cut(scene.primary)?;
            ensure!((report.flows, report.resets_sent) == (1, 1) && report.problem.is_none(), "{report:?}");
            let ends = (CLIENT_NEXT + 8, BACKEND_NEXT.wrapping_add(6));
            told(&client, &backend, flow, scene, ends).with_context(|| scene.name)?;
        }
        Ok(())
    };
    lab.gateway().enter(cut).unwrap().unwrap();
}

/// Each side, whose next sequence numbers these are, gets its RST.
fn told(client: &Wire, backend: &Wire, flow: Flow, scene: &Scene, ends: (u32, u32)) -> Result<()> {
    let (of_client, of_backend) = ends;
    let to_client = Packet::new(flow.listen(), flow.client).seq(of_backend).acks(of_client);
    is(&next(client)?, &reset(to_client, Side::Wan, balancer_tests::case::ROUTER_MAC))
        .context("to the client")?;
    let to_backend = Packet::new(flow.peer, flow.backend()).seq(of_client).acks(of_backend);
    is(&next(backend)?, &reset(to_backend, Side::Lan, scene.primary.mac)).context("to the backend")
}

#[test]
fn a_handshake_is_cut_on_both_sides_too() {
    let lab = Lab::new("cuthalf", &Topology::two_armed()).unwrap();
    let (client, backend) = (lab.client(), lab.backend(0));
    let (client, backend) = (Wire::open(client, "eth0").unwrap(), Wire::open(backend, "eth0").unwrap());
    let cut = || -> Result<()> {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let flow = scene.flow();
            forwarded(&mut program, &flow.syn())?;
            forwarded(&mut program, &flow.syn_ack())?;
            program.hold(scene);
            let report = program.cut(scene.primary)?;
            ensure!((report.flows, report.resets_sent) == (1, 1), "{report:?}");
            told(&client, &backend, flow, scene, (CLIENT_NEXT, BACKEND_NEXT)).with_context(|| scene.name)?;
            // An unanswered one, whose client waits for the one acknowledgement.
            program.activate(scene.primary)?;
            forwarded(&mut program, &flow.syn())?;
            program.hold(scene);
            program.cut(scene.primary)?;
            let to_client = Packet::new(flow.listen(), flow.client).acks(CLIENT_ISN.wrapping_add(1));
            let wanted = reset(to_client, Side::Wan, balancer_tests::case::ROUTER_MAC);
            is(&next(&client)?, &wanted).with_context(|| scene.name)?;
            next(&backend)?;
        }
        Ok(())
    };
    lab.gateway().enter(cut).unwrap().unwrap();
}

#[test]
fn only_the_backends_own_flows_are_cut_and_what_they_still_say_is_answered() {
    on_a_gateway("cutown", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            let flow = scene.flow();
            let other = flow.of(SocketAddr::new(scene.other_client.ip(), 20000)).on(scene.backup);
            establish(&mut program, flow)?;
            establish(&mut program, MAIL.flow())?;
            program.activate(scene.backup)?;
            establish(&mut program, other)?;
            let report = program.cut(scene.primary)?;
            ensure!(report.flows == 1, "{report:?}");
            ensure!(program.counters()?.established_entries == 4, "two flows stay");
            forwarded(&mut program, &other.request().payload(b"goes on"))?;
            forwarded(&mut program, &MAIL.flow().response().payload(b"goes on"))?;
            // A RST; it would be none if handshakes counted as having made room.
            forwarded(&mut program, &flow.request().payload(b"still there?"))?;
            ensure!(program.counters()?.established_entries == 4, "an answer makes no flow");
            ensure!(program.cut(scene.primary)?.flows == 0, "they are cut once");
            program.flows.sweep();
            ensure!(program.counters()?.established_entries == 4, "the count is right");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn half_a_flow_is_cut_as_well() {
    on_a_gateway("cuttorn", || {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            program.begin_anew()?;
            establish(&mut program, scene.flow())?;
            program.tear_flows_apart()?;
            program.activate(scene.backup)?;
            program.cut(scene.primary)?;
            ensure!(program.counters()?.established_entries == 0, "{}: a half is left", scene.name);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn ten_thousand_flows_are_cut_within_two_seconds() {
    const FLOWS: u16 = 10_000;
    on_a_gateway("cutmany", || {
        let mut program = Gateway::told(&usual().max_flows(16_384).max_half_open(1024))?;
        for port in 2000..2000 + FLOWS {
            establish(&mut program, SNAT4.flow().of(SocketAddr::new(SNAT4.client.ip(), port)))?;
        }
        program.activate(SNAT4.backup)?;
        let begun = Instant::now();
        let report = program.cut(SNAT4.primary)?;
        let took = begun.elapsed();
        println!("{FLOWS} flows in {took:?}");
        ensure!((report.flows, report.resets_sent) == (FLOWS.into(), FLOWS.into()), "{report:?}");
        ensure!(took < FLOWS_MAX, "{took:?}");
        Ok(())
    })
    .unwrap();
}

/// Frames wait for a slow link.
#[test]
fn clients_behind_a_slow_link_are_told_as_fast_as_it_takes_it() {
    const FLOWS: u16 = 5000;
    let shaped = |lab: &Lab| {
        let shape = "tc qdisc add dev wan0 root tbf rate 1mbit burst 2kb latency 20ms";
        lab.gateway().run(shape.split(' ')).map(drop)
    };
    let lab = Lab::new("cutslow", &Topology::two_armed()).unwrap();
    shaped(&lab).unwrap();
    let cut = || -> Result<()> {
        let mut program = Gateway::told(&usual().max_flows(16_384).max_half_open(1024))?;
        for port in 2000..2000 + FLOWS {
            establish(&mut program, SNAT4.flow().of(SocketAddr::new(SNAT4.client.ip(), port)))?;
        }
        program.activate(SNAT4.backup)?;
        let report = program.cut(SNAT4.primary)?;
        ensure!((report.flows, report.resets_sent) == (FLOWS.into(), FLOWS.into()), "{report:?}");
        ensure!(report.problem.is_none(), "{report:?}");
        Ok(())
    };
    lab.gateway().enter(cut).unwrap().unwrap();
}

/// Clients come and go on all CPUs while their backend is changed and cut, again and again: once it is cut nothing of it goes
/// on, whatever was half done.
#[test]
fn nothing_goes_on_of_what_was_cut_while_clients_come_and_go() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 30;
    /// Packets of a round: some dozens of connections.
    const ENOUGH: u64 = 500;
    let lab = Lab::new("cutstorm", &Topology::two_armed()).unwrap();
    driven::serve(&lab, 0).unwrap();
    driven::serve(&lab, 1).unwrap();
    let rounds = |plane: &Driven| -> Result<u64> {
        let mut cut = 0;
        for round in 0..ROUNDS {
            let (old, new) = (round % 2, (round + 1) % 2);
            plane.activate(new);
            cut += plane.cut(old)?.flows;
            let [of_old, of_new] = [plane.forwarded(old)?, plane.forwarded(new)?];
            poll_until(PATIENCE, "packets of the new backend", || {
                let more = plane.forwarded(new).map_err(|error| error.to_string())? - of_new;
                if more > ENOUGH { Ok(()) } else { Err(format!("{more} packets")) }
            })?;
            let more = plane.forwarded(old)? - of_old;
            ensure!(more == 0, "round {round}: {more} packets of the old backend went on");
        }
        Ok(cut)
    };
    let storm = || -> Result<u64> {
        let plane = Driven::start(&lab, Forwarding::Snat, XdpMode::Driver)?;
        plane.activate(0);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        // One that is cut fails, as it should.
                        let _ = driven::connect(&lab);
                    }
                });
            }
            let cut = rounds(&plane);
            is_over.store(true, Ordering::Relaxed);
            cut
        })
    };
    let cut = lab.gateway().enter(storm).unwrap().unwrap();
    println!("{cut} flows were cut in {ROUNDS} rounds");
    assert!(cut > 0, "nothing was under way, and so nothing was proven");
}

/// Waits until the connection ends, and tells how.
fn how_it_ends(mut stream: &TcpStream) -> Option<ErrorKind> {
    stream.read(&mut [0; 1]).err().map(|error| error.kind())
}

/// Idle connections of real clients end at once, with an error that says what has happened.
fn clients_are_told(label: &str, family: Family, forwarding: Forwarding, mode: XdpMode) -> Result<()> {
    const CLIENTS: u64 = 10;
    let lab = Lab::new(label, &Topology::two_armed().family(family))?;
    driven::serve(&lab, 0)?;
    driven::serve(&lab, 1)?;
    lab.gateway().enter(|| {
        let plane = Driven::start(&lab, forwarding, mode)?;
        plane.activate(0);
        let streams = (0..CLIENTS).map(|_| driven::connect(&lab)).collect::<Result<Vec<_>>>()?;
        plane.activate(1);
        let (other, number) = driven::connect(&lab)?;
        ensure!(number == 1, "a new one goes to the other server");
        let report = plane.cut(0)?;
        ensure!((report.flows, report.resets_sent) == (CLIENTS, CLIENTS), "{report:?}");
        for (stream, _) in &streams {
            let how = how_it_ends(stream);
            ensure!(how == Some(ErrorKind::ConnectionReset), "ended by {how:?}");
        }
        ensure!(plane.flows() == [Some(1)], "{:?}", plane.flows());
        other.set_read_timeout(Some(Duration::from_millis(1)))?;
        ensure!(how_it_ends(&other) == Some(ErrorKind::WouldBlock), "the other server's goes on");
        Ok(())
    })?
}

#[test]
fn idle_clients_see_their_connections_reset() {
    clients_are_told("cuts4", Family::V4, Forwarding::Snat, XdpMode::Driver).unwrap();
    clients_are_told("cutd6", Family::V6, Forwarding::Dnat, XdpMode::Driver).unwrap();
}

#[test]
fn idle_clients_see_their_connections_reset_in_generic_mode() {
    clients_are_told("cutgd4", Family::V4, Forwarding::Dnat, XdpMode::Skb).unwrap();
}
