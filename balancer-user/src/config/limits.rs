//! The bounds of a configuration, each with the reason for its number.
//!
//! Deliberately absent: bounds of the data plane; those live with its layout.

use std::time::Duration;

/// Some two hundred pools with every service and backend written out; `/dev/zero` ends here.
pub(super) const CONFIG_BYTES: usize = 1 << 20;

/// More than a screen of errors helps nobody; the rest is counted.
pub(super) const ERRORS_SHOWN: usize = 50;

/// Above this only the first syntax error is reported: going on after it costs the parser up to 300 bytes of memory
/// per byte of a hostile text.
pub(super) const RECOVERED_BYTES: usize = 64 << 10;

/// Far above what one gateway carries, and each backend of all of them still finds a slot in the data plane.
pub(super) const POOLS: usize = 255;

/// Ports of one application; all of them move in one step.
pub(super) const SERVICES: usize = 16;

const _: () = assert!(POOLS * BACKENDS < balancer_common::limits::MAX_BACKENDS, "slot 0 is nobody's");

/// An ordered list of standbys; `select` walks it for each retried flow.
pub(super) const BACKENDS: usize = 16;

/// Each costs one attached program and one netlink watch.
pub(super) const INTERFACES: usize = 16;

/// Hooks of one pool: steps of one failover, which a person has to follow.
pub(super) const HOOKS: usize = 16;

/// Source addresses of one pool: a million flows towards each backend port.
pub(super) const SNAT_ADDRESSES: usize = balancer_common::limits::MAX_SNAT_ADDRESSES;

/// Ranges of source ports after the subtraction: as many as the data plane holds.
pub(super) const SNAT_RANGES: usize = balancer_common::limits::MAX_PORT_RANGES;

/// Hosts to which one service may redirect.
pub(super) const REDIRECT_HOSTS: usize = 64;

/// Arguments of a hook, a probe or the notify command.
pub(super) const ARGUMENTS: usize = 64;

/// A name stands in maps, logs and metrics: as long as a DNS label.
pub(super) const NAME_BYTES: usize = 63;

/// The kernel's IFNAMSIZ less its terminating zero.
pub(super) const INTERFACE_NAME_BYTES: usize = 15;

/// The kernel's PATH_MAX; also for arguments and the text to look for in a body.
pub(super) const TEXT_BYTES: usize = 4096;

/// Flows in a table: at two lines of 64 bytes each, 16 Mi need 4 GiB at half load.
pub(super) const FLOWS: u32 = 16_777_216;

/// nginx sets no bound; a window with a thousand times is still kept per backend.
pub(super) const MAX_FAILS: u32 = 1000;

/// Good signals in a row before a backend is up again; more would keep it out for minutes.
pub(super) const RISE: u32 = 100;

/// Probes more often than this are a load of their own.
pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// One millisecond: the smallest duration that can be written.
pub(super) const SHORTEST_DURATION: Duration = Duration::from_millis(1);

/// Forgetting sooner would cut every pause in a conversation.
pub(super) const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// A CA bundle: the system's own is about 220 KiB.
pub(super) const CA_FILE_BYTES: usize = 4 << 20;
