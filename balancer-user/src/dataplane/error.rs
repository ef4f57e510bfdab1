//! What can go wrong between the controller and the kernel, sorted by what its user has to do.

use std::path::PathBuf;

use thiserror::Error;

use super::advice::Advice;
use crate::directory::DirectoryError;

/// How an error is to be treated: each kind has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A capability, a permission or a newer kernel is missing.
    Permission,
    /// Somebody else is there: another instance, or a program that isn't ours.
    Conflict,
    /// What the configuration names isn't there.
    Configuration,
    /// Everything else.
    Failed,
}

/// Why the data plane can't do what was asked.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// Built on plain stable Rust, without the BPF object.
    #[error("this binary carries no BPF object: run `cargo xtask build` and use target/release/balancer")]
    NoObject,
    /// Capabilities are missing.
    #[error(
        "missing {missing}: run as root, or give the process these capabilities (systemd: AmbientCapabilities=)"
    )]
    MissingCapabilities {
        /// Their names.
        missing: String,
    },
    /// The kernel refused the object.
    #[error("the kernel does not take the BPF object (Linux 5.15 or newer is needed): {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused the program.
    #[error("the kernel does not take the XDP program (Linux 5.15 or newer is needed): {0}")]
    Program(#[source] Box<aya::programs::ProgramError>),
    /// The object lacks something that this controller knows: a build that mixes versions.
    #[error("the BPF object has no {0}: rebuild with `cargo xtask build`")]
    ObjectLacks(&'static str),
    /// A map operation failed.
    #[error("{operation} in map {map}: {source}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The map's name.
        map: &'static str,
        /// The kernel's answer.
        source: Box<aya::maps::MapError>,
    },
    /// A map could not be mapped into memory.
    #[error("mapping {map} into memory: {source}")]
    Mapping {
        /// The map's name.
        map: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Frames can't be put before the program.
    #[error(
        "sending held connections on at once needs Linux 5.18, their clients' own retransmissions do it later: {0}"
    )]
    LiveFrames(#[source] Box<aya::programs::ProgramError>),
    /// More of something than the tables have slots for.
    #[error("no free slot for {what}: at most {limit} are possible")]
    NoSlot {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        limit: usize,
    },
    /// A pinned map isn't the one that this build would make.
    #[error(
        "the pinned map {path} can't be adopted: {difference}. Its flows and counters would be lost: \
         give them up with `balancer run --replace`, or go back to the version that made it"
    )]
    NotAdoptable {
        /// The pin.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The program on an interface is our own, of a version with another layout.
    #[error(
        "{path} holds what a version of balancer with the layout {version} has pinned, and its program is on {interfaces}; \
         this one has the layout {ours} and can't adopt it. All its flows and its counters would be lost: give them up with \
         `balancer run --replace`, or go back to the version that made it"
    )]
    OtherLayout {
        /// Where that is pinned.
        path: PathBuf,
        /// That layout.
        version: String,
        /// Where its program is.
        interfaces: String,
        /// The layout of this program.
        ours: String,
    },
    /// Something about the pin directory.
    #[error("pin directory {path}: {problem}")]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: Advice,
    },
    /// A directory is in use, or open to others.
    #[error(transparent)]
    Directory(DirectoryError),
    /// A pin could not be made or opened.
    #[error("pin {path}: {problem}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// An interface has a program already.
    #[error("{0}")]
    ForeignProgram(Advice),
    /// The kernel didn't attach the program.
    #[error("attaching to {interface} in {mode} mode: {problem}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What it said, and what helps.
        problem: String,
    },
    /// The program could be attached, but packets would be lost.
    #[error("native mode is not possible: {problem}")]
    NativeLacks {
        /// What is missing on which interface, and what helps.
        problem: String,
    },
    /// A netlink request failed.
    #[error("{request}: {source}")]
    Netlink {
        /// What was asked.
        request: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// An interface isn't there.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// Input or output.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl DataplaneError {
    /// How to treat it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::MissingCapabilities { .. } | Self::PinDirectory { .. } => Kind::Permission,
            // Or a kernel that is too old, which is the same to whoever waits for an exit code.
            Self::Load(_) | Self::Program(_) => Kind::Permission,
            Self::ForeignProgram(_) => Kind::Conflict,
            Self::NoInterface(_) => Kind::Configuration,
            _ => Kind::Failed,
        }
    }

    pub(super) fn map(
        operation: &'static str,
        map: &'static str,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { operation, map, source: Box::new(source) }
    }
}
