//! What the ends of the cables do to packets: the offloads, the same for every subject.
//!
//! On virtual cables they decide more than the subjects do. A wire carries frames of at most its MTU, with checksums in
//! them; virtual devices also carry packets of 64 KiB without any, which the kernel's own path takes as one.

use anyhow::Result;

use crate::lab::{Host, Lab};

use super::direct;

/// How the ends are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cables {
    /// Frames of wire size with their checksums, on every hop, each of them handled by itself on the gateway.
    Wire,
    /// As on a wire, but the gateway merges what it receives (GRO), as network cards' drivers have it.
    Merging,
    /// Packets of up to 64 KiB, without checksums, on every hop.
    Whole,
}

impl Cables {
    /// The words for `ethtool -K` on client and backend, and on the gateway. The hosts' `gro on` stays: without it, or
    /// a program, an end doesn't receive what XDP sends.
    #[must_use]
    pub fn words(self) -> [&'static str; 2] {
        match self {
            Self::Wire => ["tx off tso off gso on gro on", "tx off tso off gso on gro off"],
            Self::Merging => ["tx off tso off gso on gro on", "tx off tso off gso on gro on"],
            Self::Whole => ["tx on tso on gso on gro on", "tx on tso on gso on gro on"],
        }
    }

    /// Sets all ends.
    ///
    /// # Errors
    /// When ethtool refuses.
    pub fn set(self, lab: &Lab) -> Result<()> {
        let [hosts, gateway] = self.words();
        let set = |host: &Host, interface: &str, words: &str| {
            host.run(["ethtool", "-K", interface].into_iter().chain(words.split(' '))).map(drop)
        };
        let set_all = |host: &Host, words: &str| {
            host.interfaces().iter().try_for_each(|interface| set(host, &interface.name, words))
        };
        for host in [lab.client(), lab.backend(0)] {
            set_all(host, hosts)?;
            set(host, direct::INTERFACE, hosts)?;
        }
        set_all(lab.gateway(), gateway)
    }
}
