//! The control API: how a person or a program asks the daemon what it does and tells it what to do.
//!
//! HTTP/1.1 with JSON over a unix socket, one request a connection: any HTTP client can speak it
//! (`curl --unix-socket /run/balancer/control.sock http://balancer/v1/status`), and the command line does.
//! Whoever can open the socket may read; only root and the daemon's own user may change anything.
//!
//! What is deliberately not here: any knowledge of pools. The server turns a request into a [`server::Request`]
//! and waits for the daemon's loop to answer it; the client turns a document back into its type.

pub mod arriving;
mod body;
pub mod client;
pub mod listing;
pub mod protocol;
mod route;
pub mod server;
pub mod socket;
mod spare;

#[cfg(test)]
mod tests;
