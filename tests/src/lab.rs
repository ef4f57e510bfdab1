//! Labs: a client, a gateway and backends in network namespaces of their own, which disappear with their owner.
//!
//! Why namespaces: XDP, routing, ARP and TCP in them are the kernel's own, only the cables are not. A lab owns
//! processes, namespaces, pinned links and a directory; a guardian (see `guardian.rs`) ends all of it when the [`Lab`]
//! is dropped, and when its owner panics or is killed.
//!
//! Deliberately not here: `balancer` itself (tests start it as a black box), static neighbours, and netem (not every
//! kernel has it).

mod cabling;
mod guardian;
mod host;
mod name;
mod process;
mod subnet;
mod topology;

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use cabling::Hosts;
use guardian::{Belongings, Guardian};
use name::LabName;

pub use host::{Host, Interface};
pub use process::Process;
pub use subnet::Family;
pub use topology::Topology;

/// In a kept lab's directory: the script that ends it. Its presence tells a sweep to leave the lab alone.
const END_SCRIPT: &str = "end";

/// A running lab; dropping it ends it and waits until everything is gone.
#[derive(Debug)]
pub struct Lab {
    guardian: Guardian,
    belongings: Belongings,
    hosts: Hosts,
}

/// A lab that stays up without an owner.
#[derive(Debug, Clone)]
pub struct KeptLab {
    /// The shell command that ends it.
    pub end_command: String,
    /// Its hosts' roles and network namespaces.
    pub namespaces: Vec<(String, String)>,
}

impl Lab {
    /// Builds a lab; `label` (a-z, 0-9, _) is part of its unique name.
    ///
    /// # Errors
    /// Without root, or one of `ip`, `nsenter`, `setsid`, `ethtool`. What had been made by then is gone again.
    pub fn new(label: &str, topology: &Topology) -> Result<Self> {
        let belongings = Belongings::of(LabName::unique(label)?);
        // First of all, so that there is no moment in which the owner's death would leave something behind.
        let mut guardian = Guardian::watch_over(&belongings)?;
        let built = DirBuilder::new()
            .mode(0o700)
            .create(&belongings.dir)
            .with_context(|| format!("make the lab's directory {} (needs root)", belongings.dir.display()))
            .and_then(|()| cabling::build(belongings.name.as_str(), topology, &belongings.dir));
        match built {
            Ok(hosts) => Ok(Self { guardian, belongings, hosts }),
            Err(error) => {
                guardian.end()?;
                Err(error)
            }
        }
    }

    /// The lab's unique name, which all that belongs to it begins with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.belongings.name.as_str()
    }

    /// The first client.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.hosts.clients[0]
    }

    /// All clients.
    #[must_use]
    pub fn clients(&self) -> &[Host] {
        &self.hosts.clients
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> &Host {
        &self.hosts.gateway
    }

    /// The backend of this index, from 0.
    ///
    /// # Panics
    /// When the topology has fewer.
    #[must_use]
    pub fn backend(&self, index: usize) -> &Host {
        &self.hosts.backends[index]
    }

    /// All backends.
    #[must_use]
    pub fn backends(&self) -> &[Host] {
        &self.hosts.backends
    }

    /// The routers between the gateway and others, the one at the clients' side first.
    #[must_use]
    pub fn routers(&self) -> &[Host] {
        &self.hosts.routers
    }

    /// The virtual address, of the lab's first family; it is on the gateway's first interface.
    #[must_use]
    pub fn vip(&self) -> IpAddr {
        self.hosts.vips[0]
    }

    /// The virtual addresses, one for each of the lab's families.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.hosts.vips
    }

    /// The further addresses of the gateway that are there for SNAT.
    #[must_use]
    pub fn snat_addresses(&self) -> &[IpAddr] {
        &self.hosts.snat_addresses
    }

    /// A directory of the lab's own, mode 0700, below /run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.belongings.dir
    }

    /// For `--pin-dir`; made by whoever uses it, removed with the lab.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.belongings.pin_dir
    }

    /// For `--socket`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.belongings.dir.join("control.sock")
    }

    /// For `--state-dir`; made by whoever uses it.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.belongings.dir.join("state")
    }

    /// Leaves the lab up, with all processes told to [`Process::leave_running`], and says how to end it.
    ///
    /// # Errors
    /// When the script that ends it can't be written; the lab has ended then.
    pub fn keep(mut self) -> Result<KeptLab> {
        let Belongings { name, dir, pin_dir } = &self.belongings;
        let script = dir.join(END_SCRIPT);
        let quoted = |path: &Path| format!("'{}'", path.display());
        let text =
            format!("#!/bin/sh\nset -- end {name} {} {}\n{}", quoted(dir), quoted(pin_dir), guardian::SCRIPT);
        fs::write(&script, text)
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("write {}", script.display()))?;
        let Hosts { gateway, clients, backends, .. } = &self.hosts;
        let namespaces = [gateway].into_iter().chain(clients).chain(backends);
        let namespaces =
            namespaces.map(|host| (host.role().to_owned(), host.namespace().to_owned())).collect();
        self.guardian.keep()?;
        Ok(KeptLab { end_command: script.display().to_string(), namespaces })
    }

    /// Ends the labs whose owner and guardian are both dead (a machine that ran out of memory, say). Labs in use
    /// and kept ones stay. Any number of sweeps may run at once.
    ///
    /// Returns the names of those ended.
    ///
    /// # Errors
    /// When something of a dead lab can't be removed.
    pub fn sweep_leftovers() -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for place in ["/run/netns", "/run", "/sys/fs/bpf"] {
            let entries = match fs::read_dir(place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.with_context(|| format!("look for leftover labs in {place}"))?,
            };
            // An entry that vanishes meanwhile is being removed by another sweep.
            let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.extend(files.filter_map(|file| LabName::of_file(&file)));
        }
        let mut ended = Vec::new();
        for belongings in names.into_iter().map(Belongings::of) {
            if belongings.name.owner_lives() || belongings.dir.join(END_SCRIPT).exists() {
                continue;
            }
            belongings.end()?;
            ended.push(belongings.name.to_string());
        }
        Ok(ended)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A panic here would hide the test's own failure; the guardian has said on stderr what is left.
        if let Err(error) = self.guardian.end() {
            eprintln!("lab {}: {error:#}", self.belongings.name);
        }
    }
}
