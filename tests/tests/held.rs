//! What waits while its pool is on hold is on its way at once when the pool has a backend again: to the byte as its client
//! sent it, and before its client repeats it.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use balancer_tests::case::{Action, Gateway, SCENES, SNAT4, SNAT6, Scene, Side, usual};
use balancer_tests::driven::{self, Driven};
use balancer_tests::gateway::PATIENCE;
use balancer_tests::lab::{Family, Lab, Topology};
use balancer_tests::packet::{Packet, difference, flags};
use balancer_tests::poll::poll_until;
use balancer_tests::twin::Wire;
use balancer_user::dataplane::slots::Forwarding;

/// The contract's: from the switch to the SYN's departure.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A SYN as no other is, with so many words of options.
fn syn(scene: &'static Scene, words: u8) -> Packet {
    scene.flow().syn().flags(flags::SYN | flags::ECE | flags::CWR).ttl(33).with(|packet| {
        packet.ip.tos = 0xb8;
        // What isn't kept: nobody misses it.
        packet.ip.id = 0;
        packet.ip.flow_label = 0;
        packet.window = 0x1234;
        packet.options = (1..=words * 4).collect();
    })
}

/// What becomes of a frame from the clients' side.
fn run(program: &mut Gateway, frame: &[u8], action: Action) -> Result<Vec<u8>> {
    let outcome = program.run(Side::Wan, frame)?;
    ensure!(outcome.action == action, "{action:?} expected, {:?} seen", outcome.action);
    Ok(outcome.frame)
}

#[test]
fn a_syn_that_was_held_leaves_as_if_it_had_just_come() {
    let lab = Lab::new("heldbytes", &Topology::two_armed()).unwrap();
    let wire = Wire::open(lab.backend(0), "eth0").unwrap();
    let replayed = || -> Result<()> {
        let mut program = Gateway::told(&usual())?;
        for scene in SCENES {
            for words in 0..=10 {
                let frame = syn(scene, words).to_frame();
                program.begin_anew()?;
                let wanted = run(&mut program, &frame, Action::Redirect)?;
                program.begin_anew()?;
                program.hold(scene);
                run(&mut program, &frame, Action::Drop)?;
                program.activate(scene.primary)?;
                let report = program.replay(scene)?;
                ensure!((report.sent, report.failed) == (1, 0), "{}: {report:?}", scene.name);
                let seen = wire.next(Instant::now() + PATIENCE)?.context("no frame came")?;
                if let Some(difference) = difference(&wanted, &seen) {
                    anyhow::bail!("{}, {words} words of options:\n{difference}", scene.name);
                }
                // A flow like any other: what is left of the wait is nothing.
                ensure!(program.counters()?.half_open_entries == 2, "{}: still held", scene.name);
                let again = program.replay(scene)?;
                ensure!((again.sent, again.failed) == (0, 0), "{}: {again:?}", scene.name);
            }
        }
        Ok(())
    };
    lab.gateway().enter(replayed).unwrap().unwrap();
}

#[test]
fn who_is_still_on_hold_or_in_another_pool_waits_on() {
    let lab = Lab::new("heldon", &Topology::two_armed()).unwrap();
    let replayed = || -> Result<()> {
        let mut program = Gateway::told(&usual())?;
        for scene in [&SNAT4, &SNAT6] {
            program.hold(scene);
            run(&mut program, &scene.flow().syn().to_frame(), Action::Drop)?;
        }
        program.replay(&SNAT4)?;
        program.activate(SNAT4.primary)?;
        let report = program.replay(&SNAT4)?;
        ensure!((report.sent, report.failed) == (1, 0), "{report:?}");
        let mut listed = Vec::new();
        program.flows.for_each(|flow| listed.push((flow.listen, flow.backend)));
        let primary = program.slot(SNAT4.primary).context("the primary's slot")?;
        listed.sort();
        ensure!(listed == [(SNAT4.web.listen, primary), (SNAT6.web.listen, 0)], "{listed:?}");
        Ok(())
    };
    lab.gateway().enter(replayed).unwrap().unwrap();
}

/// The least of some tries: what takes longer waited for the machine.
#[test]
fn five_hundred_are_on_their_way_at_once() {
    const HELD: u16 = 500;
    const TRIES: usize = 5;
    let lab = Lab::new("heldmany", &Topology::two_armed()).unwrap();
    let replayed = || -> Result<Duration> {
        let mut program = Gateway::told(&usual().max_half_open(1024))?;
        let mut least = Duration::MAX;
        for _ in 0..TRIES {
            program.begin_anew()?;
            program.hold(&SNAT4);
            for port in 2000..2000 + HELD {
                let client = SocketAddr::new(SNAT4.client.ip(), port);
                run(&mut program, &SNAT4.flow().of(client).syn().to_frame(), Action::Drop)?;
            }
            program.activate(SNAT4.primary)?;
            let begun = Instant::now();
            let report = program.replay(&SNAT4)?;
            least = least.min(begun.elapsed());
            ensure!((report.sent, report.failed) == (HELD.into(), 0), "{report:?}");
        }
        Ok(least)
    };
    let took = lab.gateway().enter(replayed).unwrap().unwrap();
    println!("{HELD} SYNs in {took:?}, {:?} each", took / u32::from(HELD));
    assert!(took < AT_ONCE, "{took:?}");
}

/// A client connects while the service is on hold, and is answered when it is not any more.
fn is_answered_at_once(label: &str, family: Family, forwarding: Forwarding, mode: XdpMode) -> Result<()> {
    let lab = Lab::new(label, &Topology::two_armed().family(family))?;
    driven::serve(&lab, 1)?;
    lab.gateway().enter(|| {
        let plane = Driven::start(&lab, forwarding, mode)?;
        // Neighbours know each other from here on, and the next SYN is not delayed by asking for them.
        plane.activate(1);
        driven::connect(&lab)?;
        let mut least = Duration::MAX;
        // A SYN is repeated after a second; how long this test takes to see it is the machine's business.
        for _ in 0..3 {
            plane.hold();
            let took = thread::scope(|scope| -> Result<Duration> {
                let client =
                    scope.spawn(|| driven::connect(&lab).map(|(_, number)| (number, Instant::now())));
                poll_until(PATIENCE, "a SYN that waits", || {
                    let flows = plane.flows();
                    if flows.contains(&None) { Ok(()) } else { Err(format!("{flows:?}")) }
                })?;
                let begun = Instant::now();
                plane.activate(1);
                let report = plane.replay()?;
                ensure!((report.sent, report.failed) == (1, 0), "{report:?}");
                let (number, answered) = client.join().expect("the client")?;
                ensure!(number == 1, "answered by {number}");
                Ok(answered.duration_since(begun))
            })?;
            least = least.min(took);
        }
        println!("{label}: answered {least:?} after the switch");
        ensure!(least < AT_ONCE, "{least:?}");
        Ok(())
    })?
}

#[test]
fn a_client_that_waits_is_answered_at_once() {
    is_answered_at_once("helds4", Family::V4, Forwarding::Snat, XdpMode::Driver).unwrap();
    is_answered_at_once("heldd6", Family::V6, Forwarding::Dnat, XdpMode::Driver).unwrap();
}

#[test]
fn a_client_that_waits_is_answered_at_once_in_generic_mode() {
    is_answered_at_once("heldgd4", Family::V4, Forwarding::Dnat, XdpMode::Skb).unwrap();
    is_answered_at_once("heldgs6", Family::V6, Forwarding::Snat, XdpMode::Skb).unwrap();
}
