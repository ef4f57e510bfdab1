//! Which ports of this machine probes leave from: any that the kernel gives, but for those that flows leave from.
//!
//! The packet path takes what comes back to such a port for a flow's, and the probe would never hear it. A configuration leaves
//! the kernel's own ports out, but those can be set at any time. So the port that the kernel has given is looked at, and once
//! it was a wrong one, ports are chosen here.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of them.
#[derive(Debug, Default)]
pub struct LocalPorts {
    /// Those that flows leave from.
    flows: Vec<RangeInclusive<u16>>,
    /// Those to choose from.
    own: Vec<RangeInclusive<u16>>,
    /// The kernel has given one of the first.
    was_met: AtomicBool,
}

impl LocalPorts {
    /// Flows leave from `flows`; nothing but this machine's own connections does from `own`.
    #[must_use]
    pub fn new(flows: Vec<RangeInclusive<u16>>, own: Vec<RangeInclusive<u16>>) -> Self {
        Self { flows, own, was_met: AtomicBool::new(false) }
    }

    /// Those that flows leave from, and those to choose from.
    #[must_use]
    pub fn both(&self) -> (&[RangeInclusive<u16>], &[RangeInclusive<u16>]) {
        (&self.flows, &self.own)
    }

    /// Whether the kernel is not to be asked any more.
    pub(super) fn are_chosen(&self) -> bool {
        self.was_met.load(Ordering::Relaxed)
    }

    /// Whether flows leave from the one that the kernel has given.
    pub(super) fn is_wrong(&self, given: u16) -> bool {
        let is_wrong = self.flows.iter().any(|ports| ports.contains(&given));
        if is_wrong {
            self.was_met.store(true, Ordering::Relaxed);
        }
        is_wrong
    }

    /// One of those to choose from, by a number chosen by chance.
    pub(super) fn chosen(&self, by_chance: u32) -> Option<u16> {
        let count: u32 = self.own.iter().map(|ports| ports.len() as u32).sum();
        let mut at = by_chance.checked_rem(count)?;
        for ports in &self.own {
            let length = ports.len() as u32;
            if at < length {
                return Some(ports.start() + at as u16);
            }
            at -= length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_own_ones_is_chosen_and_no_other() {
        let ports = LocalPorts::new(vec![1..=9], vec![10..=11, 20..=20]);
        let chosen: Vec<_> = (0..6).filter_map(|chance| ports.chosen(chance)).collect();
        assert_eq!(chosen, [10, 11, 20, 10, 11, 20]);
        assert_eq!(LocalPorts::new(vec![1..=u16::MAX], vec![]).chosen(7), None);
        let all = LocalPorts::new(vec![], vec![0..=u16::MAX]);
        assert_eq!(all.chosen(u32::MAX), Some(u16::MAX));
    }

    #[test]
    fn they_are_chosen_once_the_kernel_has_given_a_wrong_one() {
        let ports = LocalPorts::new(vec![1..=9], vec![10..=11]);
        assert!(!ports.is_wrong(10) && !ports.are_chosen());
        assert!(ports.is_wrong(9) && ports.are_chosen());
    }
}
