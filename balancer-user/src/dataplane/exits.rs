//! What it takes to send frames of our own: the interfaces.
//!
//! A copy of what the tables say at one moment, for who works beside the loop that keeps them.

use balancer_common::abi::Interface;

/// What a frame leaves by.
#[derive(Clone, Debug)]
pub struct Exits {
    /// By slot; those without an index are nobody's.
    pub(super) interfaces: Vec<Interface>,
}

impl Exits {
    /// The interface in this slot, if there is one.
    pub(super) fn interface(&self, slot: u16) -> Option<&Interface> {
        self.interfaces.get(usize::from(slot)).filter(|interface| interface.ifindex != 0)
    }
}
