//! What the root-only tests of balancer stand on: labs in network namespaces, real TLS traffic, and a watcher of
//! checksums on the wire; and on packet cases, run by the kernel. The topic tests are in `tests/*.rs`; those in labs see
//! `balancer` as a black box, those on packets drive its program by its own data plane code.
//!
//! Errors here are `anyhow`: every caller does the same with them, print the chain and fail. A missing capability or
//! tool is such an error, never a skip.

pub mod account;
pub mod browser;
pub mod capture;
pub mod case;
pub mod certificates;
pub mod demo;
pub mod docs;
pub mod driven;
pub mod folder;
pub mod gateway;
pub mod inventory;
pub mod lab;
pub mod machine;
mod markdown;
pub mod name_server;
pub mod packet;
pub mod packet_bench;
pub mod path;
pub mod peers;
pub mod plain;
pub mod poll;
pub mod probe_bench;
pub mod retry_bench;
pub mod schema;
pub mod site;
pub mod soak;
pub mod traffic;
pub mod twin;
pub mod wire;
