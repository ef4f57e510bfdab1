//! A frame's fate in both labs, for people.

use std::fmt::Write as _;

use super::{scene::End, side::Emerged};
use crate::packet::difference;

/// What went in and what came out on both sides, with the fields that differ.
pub(super) fn describe(from: End, frame: &[u8], ours: &Emerged, kernels: &Emerged) -> String {
    let mut text = format!("put in at the {from:?}'s end: {}\n", hex(frame));
    for end in [End::Client, End::Backend] {
        let (ours, kernels) = (ours.at(end), kernels.at(end));
        if ours == kernels {
            let _ = writeln!(text, "at the {end:?}'s end: {} frames, the same from both", ours.len());
            continue;
        }
        for number in 0..ours.len().max(kernels.len()) {
            let _ = write!(text, "at the {end:?}'s end, frame {number}: ");
            let _ = match (kernels.get(number), ours.get(number)) {
                (Some(expected), Some(seen)) => match difference(expected, seen) {
                    None => writeln!(text, "the same from both"),
                    Some(fields) => {
                        writeln!(text, "\n{fields}\nkernel:   {}\nbalancer: {}", hex(expected), hex(seen))
                    }
                },
                (Some(expected), None) => {
                    writeln!(text, "only from the kernel, {}", against(frame, expected))
                }
                (None, Some(seen)) => writeln!(text, "only from balancer, {}", against(frame, seen)),
                (None, None) => Ok(()),
            };
        }
    }
    text
}

/// How a frame differs from the one that went in.
fn against(put: &[u8], came: &[u8]) -> String {
    let fields = difference(put, came).unwrap_or_else(|| "all of it".to_owned());
    format!("{}\nfrom what was put in (expected) to what came (seen):\n{fields}", hex(came))
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
