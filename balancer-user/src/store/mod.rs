//! What survives the daemon in its state directory: who is active and what the operator asked for (`state.json`), and
//! what happened (`events.jsonl`).
//!
//! A running daemon writes in one thread (`writer`) and reads in another (`readers`), so that its loop never waits for a disk,
//! and a hook that waits to be written down never for somebody who reads. Everything
//! works relative to the directory's descriptor: whatever becomes of its path, no other file is touched. Deliberately not
//! here: what a state means; that is the daemon's and the policy's.

mod confirmation;
mod file;
mod journal;
mod lines;
mod mailbox;
mod parts;
mod past;
mod readers;
pub mod state;
mod why;
mod writer;

#[cfg(test)]
mod tests;

pub use self::file::{Unreadable, read_state};
pub use self::past::Past;
pub use self::state::State;
pub use self::writer::{Remembered, Store, Unsaved, Written};

/// Only the daemon's user looks into its files; others ask over the control socket.
const FILE_MODE: rustix::fs::Mode = rustix::fs::Mode::from_bits_retain(0o600);
