//! What machines are shown: `/metrics` for Prometheus, at `[http] listen`.
//!
//! `tallies` is what the daemon counts for it alone, `metrics` makes the text of that and of the control API's documents,
//! `server` hands it out. Deliberately not here: anything that changes something, and clients' addresses.

mod metrics;
pub mod server;
pub mod tallies;

pub use server::serve;
pub use tallies::Tallies;
