//! The controller of balancer and its command line.
//!
//! `daemon` is the only module that knows policy, data plane and probes at once; see the dependency rules in each
//! module's first lines.

pub mod cli;
pub mod config;
pub mod control;
pub mod crowd;
pub mod daemon;
pub mod dataplane;
pub mod descriptors;
pub mod directory;
pub mod doctor;
pub mod duration;
pub mod exit;
pub mod hooks;
pub mod notify;
pub mod observe;
pub mod panics;
pub mod policy;
pub mod privileges;
pub mod probe;
pub mod program;
pub mod redirect;
pub mod resolver;
pub mod store;
