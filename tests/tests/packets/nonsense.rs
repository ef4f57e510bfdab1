//! Broken frames: whatever comes in, the program answers, and the laws of the packet path hold.

use std::cell::RefCell;
use std::net::IpAddr;

use balancer_tests::case::{Action, Flow, Gateway, Outcome, SCENES, Scene, Side, icmp, on_a_gateway, usual};
use balancer_tests::packet::{Extension, ReadBack, read_back};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

/// Shorter ones the kernel doesn't give to a program.
const SHORTEST_FRAME: usize = 14;

/// Good frames of a flow, and which side they come in on.
fn frames(scene: &'static Scene) -> Vec<(Side, Vec<u8>)> {
    let flow = scene.flow();
    let extended = flow.request().payload(b"question").with(|packet| {
        packet.ip.extensions = vec![Extension::hop_by_hop(1), Extension::routing(0)];
        packet.ip.options = vec![1; 8];
    });
    let unreachable = if scene.is_ipv4() { 3 } else { 1 };
    let error = |from: IpAddr, to: IpAddr| icmp(from, to, unreachable, 1);
    vec![
        (Side::Wan, flow.syn().to_frame()),
        (Side::Wan, flow.to_api().syn().payload(&[7; 40]).to_frame()),
        (Side::Wan, flow.request().payload(b"question").to_frame()),
        (Side::Wan, flow.of(scene.other_client).request().to_frame()),
        (Side::Wan, extended.to_frame()),
        (Side::Wan, error(scene.stranger(), scene.vip()).about(&flow.response_behind()).to_frame()),
        (Side::Lan, flow.syn_ack().to_frame()),
        (Side::Lan, flow.response().payload(b"answer").to_frame()),
        (Side::Lan, error(scene.primary.address, flow.peer.ip()).about(&flow.request_behind()).to_frame()),
    ]
}

/// How a frame is broken.
#[derive(Clone, Debug)]
struct Breakage {
    replaced: Vec<(Index, u8)>,
    flipped: Vec<Index>,
    cut: Option<Index>,
}

fn breakage() -> impl Strategy<Value = Breakage> {
    let interesting = prop_oneof![Just(0_u8), Just(0xff), Just(0x45), Just(0x60), Just(6), any::<u8>()];
    let cut = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (vec((any::<Index>(), interesting), 0..5), vec(any::<Index>(), 0..4), cut)
        .prop_map(|(replaced, flipped, cut)| Breakage { replaced, flipped, cut })
}

impl Breakage {
    fn of(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for (at, byte) in &self.replaced {
            let at = at.index(frame.len());
            frame[at] = *byte;
        }
        for bit in &self.flipped {
            let bit = bit.index(8 * frame.len());
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        if let Some(cut) = self.cut {
            frame.truncate(SHORTEST_FRAME + cut.index(frame.len() - SHORTEST_FRAME));
        }
        frame
    }
}

fn broken_frame() -> impl Strategy<Value = (Side, Vec<u8>)> {
    let good: Vec<(Side, Vec<u8>)> = SCENES.into_iter().flat_map(frames).collect();
    (select(good), breakage()).prop_map(|((side, frame), breakage)| (side, breakage.of(&frame)))
}

/// Whether a host would read this as TCP to a service: then the kernel must never see it.
fn is_for_a_service(frame: &[u8]) -> bool {
    let is_unicast = frame[0] & 1 == 0;
    let services = SCENES.into_iter().flat_map(|scene| [scene.flow(), scene.flow().to_api()]);
    let mut listening = services.map(Flow::listen);
    let to = read_back(frame).tcp_destination();
    is_unicast && to.is_some_and(|to| listening.any(|listen| listen == to))
}

/// A law for each thing that can become of a frame; `counted`: drops, answers, counted passes.
fn laws(frame: &[u8], outcome: &Outcome, counted: [u64; 3]) -> Result<(), TestCaseError> {
    match (outcome.action, counted) {
        (Action::Pass, [0, 0, 0 | 1]) => {
            prop_assert!(!is_for_a_service(frame), "leaked to the kernel");
            prop_assert_eq!(frame, &outcome.frame[..]);
        }
        (Action::Drop, [1, 0, 0]) => prop_assert_eq!(frame, &outcome.frame[..]),
        (Action::Redirect, [0, 1, 0]) => {
            let answer = read_back(&outcome.frame);
            prop_assert!(answer.is_right(), "an answer with a wrong checksum: {:?}", answer);
            prop_assert_eq!(&frame[6..12], &outcome.frame[0..6], "to whom it came from");
        }
        (Action::Redirect, [0, 0, 0]) => {
            let [before, after]: [ReadBack; 2] = [frame, &outcome.frame[..]].map(read_back);
            prop_assert_eq!(frame.len(), outcome.frame.len());
            prop_assert_eq!(before.ttl.map(|ttl| ttl.wrapping_sub(1)), after.ttl);
            prop_assert_eq!(before.checksums(), after.checksums(), "right stays right, wrong stays wrong");
        }
        (action, counted) => prop_assert!(false, "{:?}, counted {:?}", action, counted),
    }
    Ok(())
}

#[test]
fn whatever_comes_in_is_passed_as_it_is_or_counted_or_translated() {
    on_a_gateway("nonsense", || {
        let program = RefCell::new(Gateway::told(&usual())?);
        let run = |side: Side, frame: &[u8]| {
            let mut program = program.borrow_mut();
            let before = program.counters()?.by_reason();
            let outcome = program.run(side, frame)?;
            let after = program.counters()?.by_reason();
            Ok::<_, anyhow::Error>((outcome, [0, 1, 2].map(|at| after[at] - before[at])))
        };
        let outcome = TestRunner::new(super::runs()).run(&broken_frame(), |(side, frame)| {
            let ran = run(side, &frame);
            let (outcome, counted) = ran.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            laws(&frame, &outcome, counted)
        });
        Ok(outcome?)
    })
    .unwrap();
}
