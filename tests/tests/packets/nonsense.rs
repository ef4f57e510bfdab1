//! Broken frames: whatever comes in, the program answers, and the iron rule holds.

use std::cell::RefCell;

use balancer_tests::case::{
    API, Action, CLIENT, Gateway, Outcome, PRIMARY, Side, VIP, WEB, gateway, on_a_gateway, usual,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::{from_backend, from_client, syn, syn_ack};

/// Shorter ones the kernel doesn't give to a program.
const SHORTEST_FRAME: usize = 14;

/// A frame of a flow, with some bytes replaced (more often those of the headers) and perhaps cut.
fn broken_frame() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let frames = [
        (true, syn(CLIENT, WEB).to_frame()),
        (true, syn(CLIENT, API).payload(&[7; 40]).to_frame()),
        (true, from_client(CLIENT, WEB).payload(b"question").to_frame()),
        (false, syn_ack(PRIMARY.at(10001), gateway(CLIENT.port())).to_frame()),
        (false, from_backend(PRIMARY.at(10001), gateway(CLIENT.port())).payload(b"answer").to_frame()),
    ];
    let interesting = prop_oneof![Just(0_u8), Just(0xff), Just(0x45), Just(6), any::<u8>()];
    let replaced = vec((any::<Index>(), interesting), 0..6);
    let cut = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (proptest::sample::select(frames.to_vec()), replaced, cut).prop_map(
        |((from_wan, frame), replaced, cut)| {
            let mut frame = frame;
            for (at, byte) in replaced {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(SHORTEST_FRAME + cut.index(frame.len() - SHORTEST_FRAME));
            }
            (from_wan, frame)
        },
    )
}

/// Whether a host would read this as TCP to a service: then the kernel must never see it.
fn is_for_a_service(frame: &[u8]) -> bool {
    let header = |at: usize| frame.get(at).copied().unwrap_or(0);
    let is_unicast_tcp = header(0) & 1 == 0 && frame.get(12..14) == Some(&[8, 0]) && header(14 + 9) == 6;
    let ip_header = usize::from(header(14) & 0xf) * 4;
    let port = frame.get(14 + ip_header + 2..14 + ip_header + 4);
    let is_service = [WEB, API].iter().any(|service| port == Some(&service.port().to_be_bytes()));
    is_unicast_tcp
        && header(14) >> 4 == 4
        && ip_header >= 20
        && frame.get(30..34) == Some(&VIP.octets())
        && is_service
}

/// What must hold whatever the frame is.
fn laws(frame: &[u8], outcome: &Outcome, drops_counted: u64) -> Result<(), TestCaseError> {
    match outcome.action {
        Action::Pass => {
            prop_assert!(!is_for_a_service(frame), "leaked to the kernel");
            prop_assert_eq!((frame, drops_counted), (&outcome.frame[..], 0));
        }
        Action::Drop => prop_assert_eq!((frame, drops_counted), (&outcome.frame[..], 1)),
        Action::Redirect => {
            prop_assert_eq!((frame.len(), drops_counted), (outcome.frame.len(), 0));
            prop_assert_eq!(frame[22].wrapping_sub(1), outcome.frame[22], "TTL");
        }
    }
    Ok(())
}

#[test]
fn whatever_comes_in_is_passed_as_it_is_or_dropped_with_one_reason_or_translated() {
    on_a_gateway("nonsense", || {
        let program = RefCell::new(Gateway::load(&usual())?);
        let run = |from_wan: bool, frame: &[u8]| {
            let mut program = program.borrow_mut();
            let drops =
                |program: &Gateway| Ok::<u64, anyhow::Error>(program.counters()?.drops.values().sum());
            let before = drops(&program)?;
            let outcome = program.run(if from_wan { Side::Wan } else { Side::Lan }, frame)?;
            Ok::<_, anyhow::Error>((outcome, drops(&program)? - before))
        };
        let outcome = TestRunner::new(super::runs()).run(&broken_frame(), |(from_wan, frame)| {
            let ran = run(from_wan, &frame);
            let (outcome, counted) = ran.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            laws(&frame, &outcome, counted)
        });
        Ok(outcome?)
    })
    .unwrap();
}
