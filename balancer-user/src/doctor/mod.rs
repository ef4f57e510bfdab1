//! `balancer doctor`: looks at everything that a gateway depends on and that the configuration doesn't say, and tells what
//! is wrong, why that matters, and what mends it.
//!
//! Each topic has a file: it looks, which gives facts, and judges them, which gives findings and is pure. It works with a
//! daemon beside it and without, with a configuration and without, as root and not: what can't be seen is said. It changes
//! nothing but this: neighbours that nobody has talked to are asked for their hardware addresses, and the program is loaded
//! and let go of. Deliberately absent: health of backends (`status`), and anything that has never broken a gateway.

mod addresses;
mod clock;
mod configuration;
mod files;
mod finding;
mod host_names;
mod interfaces;
mod kernel;
mod programs;
mod resources;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::SystemTime;

use balancer_common::verdict::Reason;

use self::addresses::Addresses;
use self::clock::Clock;
use self::configuration::Configuration;
use self::files::Files;
use self::finding::{about, quoted};
use self::interfaces::{Interface, Interfaces};
use self::kernel::Kernel;
use self::programs::Programs;
use self::resources::Resources;
use crate::config::Config;
use crate::control::protocol::{Doctor, DoctorSchema, Finding, Severity, Timestamp};
use crate::daemon;
use crate::dataplane::links::{self, Pinned};
use crate::dataplane::neighbours::Neighbours;
use crate::dataplane::pins::PinDirectory;
use crate::dataplane::survey::{Abilities, Device};
use crate::dataplane::trial::{self, Owner};
use crate::dataplane::{DataplaneError, layout_version};

/// Where an instance has its files.
#[derive(Clone, Debug)]
pub struct Places {
    /// Configuration.
    pub config: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// State directory.
    pub state_dir: PathBuf,
    /// Pin directory.
    pub pin_dir: PathBuf,
}

impl Places {
    /// A command line for this instance.
    fn command(&self, verb: &str) -> String {
        let places = [
            ("config", &self.config),
            ("socket", &self.socket),
            ("state-dir", &self.state_dir),
            ("pin-dir", &self.pin_dir),
        ];
        let flags = places.map(|(flag, path)| format!(" --{flag} {}", quoted(path)));
        format!("balancer {verb}{}", flags.concat())
    }
}

/// What this process could not see.
#[derive(Debug, Default)]
struct Unseen(Vec<String>);

impl Unseen {
    fn push(&mut self, what: &str) {
        self.0.push(what.to_owned());
    }

    fn judge(&self, again: &str) -> Option<Finding> {
        let cause = format!("not seen: {}", self.0.join("; "));
        let about = about("unseen", Severity::Info, "this process");
        (!self.0.is_empty()).then(|| about.ill(cause, format!("sudo {again}")))
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(places: &Places) -> Doctor {
    let now = SystemTime::now();
    let again = places.command("doctor");
    let mut unseen = Unseen::default();
    let configuration = Configuration::look(places);
    let config = configuration.config.as_ref();
    let mut kernel = Kernel::look(again.clone(), &mut unseen);
    let wanted = config.map(daemon::wanted);
    // Without the right to open pins each would look damaged.
    let files = Files::look(places, wanted.filter(|_| kernel.trial.is_some()), &mut unseen);
    let network = network(places, config, &mut kernel, &mut unseen);

    let mut findings = vec![configuration.judge(places)];
    findings.extend(configuration.host_names.judge());
    findings.extend(kernel.judge());
    findings.extend(files.judge());
    findings.extend(network);
    findings.extend(Programs::look(config, &mut unseen).judge());
    let (is_taken, daemon) = (PinDirectory::could_be_adopted(&places.pin_dir), files.state.holder);
    findings.extend(Resources::look(config, wanted, is_taken, daemon, &mut unseen).judge());
    findings.extend(Clock::look(now, &mut unseen).judge());
    findings.extend(unseen.judge(&again));
    Doctor { schema: DoctorSchema::V1, as_of: Timestamp::from(now), findings }
}

/// What netlink tells; the kernel's facts that come from there are filled in.
fn network(
    places: &Places,
    config: Option<&Config>,
    kernel: &mut Kernel,
    unseen: &mut Unseen,
) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(ask(places, config, kernel, unseen)).map_err(|error| error.to_string())
    });
    looked.unwrap_or_else(|problem| {
        let about = about("network", Severity::Error, "netlink");
        vec![about.ask(
            problem,
            "let this process use netlink sockets (in a unit: RestrictAddressFamilies= AF_NETLINK)",
        )]
    })
}

async fn ask(
    places: &Places,
    config: Option<&Config>,
    kernel: &mut Kernel,
    unseen: &mut Unseen,
) -> Result<Vec<Finding>, DataplaneError> {
    let netlink = Neighbours::connect()?;
    let devices = netlink.devices().await?;
    if let Some(lo) = devices.iter().find(|device| device.is_loopback) {
        kernel.tells_features = netlink.abilities(lo.ifindex).await?.xdp.is_some();
    }
    let Some(config) = config else { return Ok(Vec::new()) };
    let mut interfaces = Interfaces {
        mode: config.gateway.xdp_mode,
        wanted: Vec::new(),
        known: devices.iter().map(|device| device.name.clone()).collect(),
    };
    for name in &config.gateway.interfaces {
        interfaces.wanted.push(interface(places, name, &devices, &netlink, unseen).await?);
    }
    let mtus = interfaces.wanted.iter().filter_map(|interface| Some(interface.device.as_ref()?.mtu));
    kernel.largest_mtu = mtus.max().unwrap_or_default();
    let mut findings = interfaces.judge();
    findings.extend(partial_checksums(places));
    findings.extend(Addresses::look(config, &devices, &netlink, unseen).await.judge());
    Ok(findings)
}

async fn interface(
    places: &Places,
    name: &str,
    devices: &[Device],
    netlink: &Neighbours,
    unseen: &mut Unseen,
) -> Result<Interface, DataplaneError> {
    let device = devices.iter().find(|device| device.name == name).cloned();
    let of_index = |index: u32| devices.iter().find(|device| device.ifindex == index);
    let abilities = match &device {
        Some(device) => netlink.abilities(device.ifindex).await?,
        None => Abilities::default(),
    };
    let program = device.as_ref().and_then(|device| device.program);
    let pins = places.pin_dir.join(layout_version());
    let is_on = |links: Vec<Pinned>| {
        let place = device.as_ref().zip(program);
        place.is_some_and(|(device, (id, _))| links.iter().any(|link| link.is_on(device.ifindex, id)))
    };
    let is_ours = match program {
        None => Some(false),
        // One of another version's is ours as well: `files` tells of it.
        Some(_) => {
            let others = PinDirectory::other_layouts_in(&places.pin_dir).unwrap_or_default();
            let layouts = others.into_iter().chain([pins]);
            let links: Result<Vec<_>, _> = layouts.map(|layout| links::pinned(&layout)).collect();
            links.ok().map(|links| is_on(links.concat()))
        }
    };
    if is_ours.is_none() {
        unseen.push(&format!("whose the XDP program on {name} is"));
    }
    let is_foreign = is_ours == Some(false);
    let found = device.as_ref();
    let master = found.and_then(|device| of_index(device.master?));
    let peer = found.filter(|device| device.kind.as_deref() == Some("veth") && device.below_is_in.is_none());
    Ok(Interface {
        name: name.to_owned(),
        driver: found.and_then(interfaces::driver),
        master: master.map(|master| (master.name.clone(), master.kind.clone().unwrap_or_default())),
        peer: peer.and_then(|device| of_index(device.below?)).map(|peer| peer.name.clone()),
        is_trunk: found.is_some_and(|device| {
            devices.iter().any(|above| above.is_vlan && above.below == Some(device.ifindex))
        }),
        owner: program.filter(|_| is_foreign).map_or_else(Owner::default, |(id, _)| trial::owner(id)),
        is_ours,
        abilities,
        device,
    })
}

/// Whoever sends them is seen by nothing else than that they have arrived.
fn partial_checksums(places: &Places) -> Option<Finding> {
    let dropped = trial::dropped(Reason::PartialChecksum, &places.pin_dir.join(layout_version())).ok()?;
    Some(judge_partial(dropped))
}

fn judge_partial(dropped: u64) -> Finding {
    let about = about("partial_checksums", Severity::Warning, "clients and backends on this machine");
    if dropped == 0 {
        return about.well("no packet has come with a checksum that was left to hardware");
    }
    about.ask(
        format!(
            "{dropped} packets have been dropped since the tables were made, as their checksums were left to hardware that isn't \
             there: virtual machines and containers on this machine that send so get no connection"
        ),
        "in each of them, or at its end of the cable: ethtool -K IF tx off",
    )
}
