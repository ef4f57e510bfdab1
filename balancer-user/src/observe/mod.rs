//! What machines and people are shown at `[http] listen`: `/metrics` for Prometheus, and the dashboard.
//!
//! `tallies` is what the daemon counts for `/metrics` alone, `metrics` makes the text of that and of the control API's
//! documents. `board` makes one picture at a time for all who look, `picture` says what is on it, `page` is the page that
//! draws it. `guard` says whom anything is answered to, `act` what the page may ask for. `server` hands all of it out.
//!
//! Deliberately not here: clients' addresses, and TLS; whoever wants to look from elsewhere comes by ssh.

mod act;
mod board;
mod guard;
mod metrics;
mod page;
mod picture;
pub mod server;
pub mod tallies;
#[cfg(test)]
mod tests;

pub use server::serve;
pub use tallies::Tallies;
