//! What the packet path tells at once: connection attempts that a backend did not take.
//!
//! A few of each backend in an eighth of a second, whatever comes (`FAILURES_PER_MOMENT`); the numbers are in `signals`.

use aya::Ebpf;
use balancer_common::abi::Failure;
use balancer_common::limits::FAILURES_BYTES;

use super::DataplaneError;
use super::ring::Ring;

/// What a backend did with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It sent a RST.
    Refused,
    /// An ICMP error came instead of an answer.
    Unreachable,
    /// Nothing came: that a look finds (`rescue`), the packet path doesn't tell.
    Unanswered,
    /// The same of an attempt that another backend has not taken before.
    UnansweredAgain,
}

/// An attempt that a backend did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Tells clients' flows apart.
    pub flow: u64,
    /// What the backend did.
    pub what: What,
    /// Slot of the service.
    pub service: u16,
    /// Slot of the backend.
    pub backend: u16,
}

/// Where they are read.
///
/// # Errors
/// The object isn't one of ours.
pub fn take(ebpf: &mut Ebpf) -> Result<Ring<Attempt>, DataplaneError> {
    Ring::take(ebpf, "FAILURES", FAILURES_BYTES, parse)
}

/// Of a [`Failure`]'s bytes; anything else means nothing.
fn parse(record: &[u8]) -> Option<Attempt> {
    let record: &[u8; size_of::<Failure>()] = record.try_into().ok()?;
    let [flow @ .., a, b, c, d, e, f, g, h] = *record;
    let what = match u32::from_ne_bytes([a, b, c, d]) {
        Failure::REFUSED => What::Refused,
        Failure::UNREACHABLE => What::Unreachable,
        _ => return None,
    };
    Some(Attempt {
        flow: u64::from_ne_bytes(flow),
        what,
        service: u16::from_ne_bytes([e, f]),
        backend: u16::from_ne_bytes([g, h]),
    })
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    fn bytes(what: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[offset_of!(Failure, flow)..][..8].copy_from_slice(&0x0102_0304_0506_0708_u64.to_ne_bytes());
        bytes[offset_of!(Failure, what)..][..4].copy_from_slice(&what.to_ne_bytes());
        bytes[offset_of!(Failure, service)..][..2].copy_from_slice(&7_u16.to_ne_bytes());
        bytes[offset_of!(Failure, backend)..][..2].copy_from_slice(&9_u16.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_failure_is_read_as_it_was_written() {
        for (number, what) in [(Failure::REFUSED, What::Refused), (Failure::UNREACHABLE, What::Unreachable)] {
            let wanted = Attempt { flow: 0x0102_0304_0506_0708, what, service: 7, backend: 9 };
            assert_eq!(parse(&bytes(number)), Some(wanted));
        }
    }

    #[test]
    fn what_is_no_failure_means_nothing() {
        for unknown in [0, 3, u32::MAX] {
            assert_eq!(parse(&bytes(unknown)), None);
        }
        let long = [bytes(1).as_slice(), &[0; 8]].concat();
        for length in (0..=long.len()).filter(|length| *length != 16) {
            assert_eq!(parse(&long[..length]), None, "{length} bytes");
        }
    }
}
