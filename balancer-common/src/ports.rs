//! Which SNAT addresses and ports a new flow tries, in which order.
//!
//! The client's own port comes first. Then all pairs of address and port in a cycle that goes on from flow to flow, so the
//! pair that was given away longest ago is next: a backend that closes first still knows the last one (TIME_WAIT).
//! Pairs that are taken are jumped over, further each time, because long-lived flows that began together lie together.

use crate::abi::{Pool, Port, PortRange};
use crate::limits::MAX_PORT_RANGES;

/// A place in a pool's cycle of SNAT addresses and ports: all ports of the first range, then of the next, then the same
/// with the next address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    address: u8,
    range: u8,
    /// From the range's first port.
    offset: u16,
}

impl Place {
    /// As one word, which is never zero.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        1 << 32 | (self.address as u64) << 24 | (self.range as u64) << 16 | self.offset as u64
    }

    /// From such a word; `None` for zero, where no cycle has begun.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        Some(Self { address: (word >> 24) as u8, range: (word >> 16) as u8, offset: word as u16 })
    }

    /// Somewhere.
    #[inline(always)]
    pub fn random(pool: &Pool, random: u32) -> Self {
        let range = (random >> 16) as u8 % (pool.snat_range_count as u8).max(1);
        let offset = random as u16 % range_of(pool, range).count.max(1);
        Self { address: 0, range, offset }
    }

    /// What is here: which of `addresses`, and the port. A place of an earlier configuration may be none of this one's,
    /// and is the beginning then.
    #[inline(always)]
    pub fn pair(self, pool: &Pool, addresses: u8) -> (u8, Port) {
        let range = if u32::from(self.range) < pool.snat_range_count { self.range } else { 0 };
        let range = range_of(pool, range);
        let offset = if self.offset < range.count { self.offset } else { 0 };
        let address = if self.address < addresses { self.address } else { 0 };
        (address, Port::new(range.first.wrapping_add(offset)))
    }

    /// So many ports further, but no further than the next range.
    #[inline(always)]
    #[must_use]
    pub fn further(self, pool: &Pool, addresses: u8, steps: u16) -> Self {
        let offset = u32::from(self.offset) + u32::from(steps);
        if offset < u32::from(range_of(pool, self.range).count) {
            return Self { offset: offset as u16, ..self };
        }
        if u32::from(self.range) + 1 < pool.snat_range_count {
            return Self { offset: 0, range: self.range + 1, ..self };
        }
        let address = if self.address + 1 < addresses { self.address + 1 } else { 0 };
        Self { offset: 0, range: 0, address }
    }
}

#[inline(always)]
fn range_of(pool: &Pool, range: u8) -> PortRange {
    // There are no more than that; said so that the verifier sees it too.
    const { assert!(MAX_PORT_RANGES.is_power_of_two()) };
    pool.snat_ports[range as usize & (MAX_PORT_RANGES - 1)]
}

/// Whether the pool may use this port.
#[inline(always)]
pub fn allows(pool: &Pool, port: Port) -> bool {
    let number = port.number();
    let is_used = |place: usize| (place as u32) < pool.snat_range_count;
    let ranges = pool.snat_ports.iter().enumerate().take_while(|(place, _)| is_used(*place));
    ranges.into_iter().any(|(_, range)| number.wrapping_sub(range.first) < range.count)
}

/// How many ports to go on after `attempt` (from 0) found its pair taken: at least one, on average twice as many each
/// time.
#[inline(always)]
pub const fn steps_after(attempt: u32, random: u32) -> u16 {
    1 + (random % (1 << (attempt % 15))) as u16
}

/// The ranges as the kernel's table has them, with their number and the ports in them; `None` if there are too many.
pub fn pack(ranges: &[core::ops::RangeInclusive<u16>]) -> Option<([PortRange; MAX_PORT_RANGES], u32, u32)> {
    if ranges.len() > MAX_PORT_RANGES {
        return None;
    }
    let mut packed = [PortRange::default(); MAX_PORT_RANGES];
    let mut total = 0;
    for (slot, range) in packed.iter_mut().zip(ranges) {
        // Port 0 is no port, so a range has at most 65,535 of them.
        let count = range.end().saturating_sub(*range.start()).saturating_add(1);
        *slot = PortRange { first: *range.start(), count };
        total += u32::from(count);
    }
    Some((packed, ranges.len() as u32, total))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::abi::{Address, FORWARDING_SNAT};
    use crate::limits::{MAX_SNAT_ADDRESSES, NAME_BYTES};

    fn pool(ranges: &[core::ops::RangeInclusive<u16>]) -> Pool {
        let (snat_ports, snat_range_count, snat_port_count) = pack(ranges).unwrap();
        Pool {
            forwarding: FORWARDING_SNAT,
            snat_address_count: 0,
            snat_range_count,
            snat_port_count,
            retry: 0,
            connect_timeout_ms: 0,
            snat_addresses: [Address::default(); MAX_SNAT_ADDRESSES],
            snat_ports,
            name: [0; NAME_BYTES],
        }
    }

    #[test]
    fn a_cycle_has_every_pair_once() {
        let pool = pool(&[1024..=1030, 61000..=61000, 65530..=65535]);
        let expected: BTreeSet<u16> = (1024..=1030).chain([61000]).chain(65530..=65535).collect();
        for addresses in [1, 3] {
            let mut place = Place::default();
            let mut pairs = BTreeSet::new();
            for _ in 0..u32::from(addresses) * 14 {
                let (address, port) = place.pair(&pool, addresses);
                assert!(address < addresses && allows(&pool, port), "{address} {port:?}");
                pairs.insert((address, port.number()));
                place = place.further(&pool, addresses, 1);
            }
            assert_eq!(pairs.len(), usize::from(addresses) * 14);
            assert_eq!(pairs.iter().map(|(_, port)| *port).collect::<BTreeSet<_>>(), expected);
            assert_eq!(place, Place::default(), "it begins again");
        }
    }

    #[test]
    fn a_place_survives_its_word_and_other_configurations() {
        let place = Place { address: 3, range: 9, offset: u16::MAX };
        assert_eq!(Place::from_word(place.to_word()), Some(place));
        assert_eq!(Place::from_word(Place::default().to_word()), Some(Place::default()));
        assert_eq!(Place::from_word(0), None);
        let pool = pool(&[1024..=1030]);
        assert_eq!(place.pair(&pool, 1), (0, Port::new(1024)));
        for random in [0, 1, 0x1_0007, u32::MAX] {
            assert!(allows(&pool, Place::random(&pool, random).pair(&pool, 1).1));
        }
    }

    #[test]
    fn what_is_next_to_a_range_is_not_in_it() {
        let pool = pool(&[1024..=1030, 65530..=65535]);
        for outside in [0, 1, 1023, 1031, 65529] {
            assert!(!allows(&pool, Port::new(outside)), "{outside}");
        }
    }

    #[test]
    fn no_ranges_means_no_port() {
        assert!(!allows(&pool(&[]), Port::new(0)));
    }

    #[test]
    fn the_widest_range_is_counted_whole() {
        assert_eq!(pool(&[1..=65535]).snat_port_count, 65535);
    }

    #[test]
    fn jumps_go_forward_and_grow() {
        assert_eq!(steps_after(0, u32::MAX), 1);
        assert_eq!(steps_after(4, u32::MAX), 16);
        assert!((1..=1024).contains(&steps_after(10, 0x1234_5678)));
        assert!((1..=0x4000).contains(&steps_after(14, u32::MAX)));
    }
}
