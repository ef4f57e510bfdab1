//! What the packet path and the controller must agree on, and pure packet logic.
//!
//! Deliberately absent: input and output, a clock, an allocator, and any knowledge of who calls. Both sides of the
//! kernel boundary compile the same lines, so a rule written here can't be understood in two ways.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod checksum;
pub mod flow;
pub mod limits;
pub mod nat;
#[cfg(feature = "user")]
mod pod;
pub mod ports;
pub mod table;
pub mod verdict;
