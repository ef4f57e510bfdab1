//! Real TLS traffic, for tests and for people who watch: a server that answers with its name, and clients that ask
//! who answers, or move a lot of bytes; and plain TCP connections that stand. The program is `lab-host`; how it is told what to do is in `src/bin/lab-host.rs`.
//!
//! Results are JSON on stdout. Deliberately not here: HTTP beyond one GET, and reuse of connections by the clients:
//! each attempt is a new flow with a full handshake, which is what a failover is measured with.

pub mod attempt;
pub mod echo;
pub mod ending;
pub mod load;
pub mod server;
pub mod transfer;
pub mod watch;
