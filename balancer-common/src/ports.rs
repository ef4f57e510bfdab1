//! Which SNAT port a new flow tries: the client's own one first, then others from the pool's ranges.

use crate::abi::{Pool, Port, PortRange};
use crate::limits::MAX_PORT_RANGES;

/// Whether the pool may use this port.
#[inline(always)]
pub fn allows(pool: &Pool, port: Port) -> bool {
    let number = port.number();
    ranges(pool).any(|range| number.wrapping_sub(range.first) < range.count)
}

/// The port at `index` (taken modulo their number) over all ranges; `None` if there is none at all.
#[inline(always)]
pub fn at(pool: &Pool, index: u32) -> Option<Port> {
    if pool.snat_port_count == 0 {
        return None;
    }
    let mut rest = index % pool.snat_port_count;
    for range in ranges(pool) {
        let count = u32::from(range.count);
        if rest < count {
            return Some(Port::new(range.first.wrapping_add(rest as u16)));
        }
        rest -= count;
    }
    None
}

/// All of them. Each is hidden from the compiler until it is its turn: it would read all 32 ahead, once for each loop,
/// and they don't fit the stack of 512 bytes that a BPF program has.
#[inline(always)]
fn ranges(pool: &Pool) -> impl Iterator<Item = &PortRange> {
    pool.snat_ports.iter().map(core::hint::black_box)
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
    use crate::limits::NAME_BYTES;

    fn pool(ranges: &[core::ops::RangeInclusive<u16>]) -> Pool {
        let (snat_ports, snat_range_count, snat_port_count) = pack(ranges).unwrap();
        Pool { snat_range_count, snat_port_count, snat_ports, name: [0; NAME_BYTES] }
    }

    #[test]
    fn every_index_is_a_port_of_the_ranges_and_every_port_has_an_index() {
        let pool = pool(&[1024..=1030, 61000..=61000, 65530..=65535]);
        let ports: BTreeSet<u16> = (0..14).map(|index| at(&pool, index).unwrap().number()).collect();
        assert_eq!(ports, (1024..=1030).chain([61000]).chain(65530..=65535).collect());
        assert!(ports.iter().all(|port| allows(&pool, Port::new(*port))));
        assert_eq!(at(&pool, 14), at(&pool, 0), "wraps");
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
        assert_eq!(at(&pool(&[]), 7), None);
        assert!(!allows(&pool(&[]), Port::new(0)));
    }

    #[test]
    fn the_widest_range_is_counted_whole() {
        assert_eq!(pool(&[1..=65535]).snat_port_count, 65535);
    }
}
