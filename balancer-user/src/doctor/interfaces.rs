//! The interfaces of the configuration: there, up, ours, and able to run the program as it is wanted.
//!
//! How bad something is that only native mode needs depends on `xdp_mode`: with `auto` it costs speed, with `generic`
//! nothing. A program that runs natively already isn't taken off by any of it, so there packets are lost.

#[cfg(test)]
mod tests;

use std::fs;

use super::finding::{About, about};
use crate::config::XdpMode;
use crate::control::protocol::{Finding, Severity};
use crate::dataplane::advice::{self, ONE_BUFFER_MTU};
use crate::dataplane::attach::Mode;
use crate::dataplane::features::TAGS_ARE_STRIPPED;
use crate::dataplane::survey::{Abilities, Device};
use crate::dataplane::trial::Owner;

/// Offloads that join packets: as the kernel calls them, and as `ethtool` takes them.
const JOINING: [(&str, &str); 2] = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
/// What an interface may be a part of so that its packets are that one's.
const TAKES_OVER: [&str; 3] = ["bridge", "bond", "team"];

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Interfaces {
    pub(super) mode: XdpMode,
    /// Those of the configuration, in its order.
    pub(super) wanted: Vec<Interface>,
    /// The names of all that there are.
    pub(super) known: Vec<String>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// `None`: it doesn't exist.
    pub(super) device: Option<Device>,
    pub(super) abilities: Abilities,
    /// Of the device, where the kernel tells.
    pub(super) driver: Option<String>,
    /// Name and kind of what it is a part of.
    pub(super) master: Option<(String, String)>,
    /// Of a veth: the name of its other end, where that is in this network namespace.
    pub(super) peer: Option<String>,
    /// VLAN interfaces stand on it.
    pub(super) is_trunk: bool,
    /// Its program is this instance's; `None`: this process may not look.
    pub(super) is_ours: Option<bool>,
    /// Whose its program is else.
    pub(super) owner: Owner,
}

/// The driver's name, which is the device's own or found by its place on a bus.
pub(super) fn driver(device: &Device) -> Option<String> {
    let on_bus = || {
        let (bus, name) = (device.parent.0.as_deref()?, device.parent.1.as_deref()?);
        let link = fs::read_link(format!("/sys/bus/{bus}/devices/{name}/driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    };
    device.kind.clone().or_else(on_bus)
}

impl Interfaces {
    pub(super) fn judge(&self) -> Vec<Finding> {
        let findings = self.wanted.iter().flat_map(|interface| interface.judge(self.mode, &self.known));
        findings.chain(self.mtus()).collect()
    }

    /// Packets that fit on one side and not on the other.
    fn mtus(&self) -> Vec<Finding> {
        let devices = || self.wanted.iter().filter_map(|interface| interface.device.as_ref());
        let Some(widest) = devices().max_by_key(|device| device.mtu) else { return Vec::new() };
        let judge = |device: &Device| {
            let about = about("mtu", Severity::Warning, &device.name);
            if device.mtu == widest.mtu {
                return about.well(format!("no other interface takes larger packets ({} bytes)", device.mtu));
            }
            about.suggest(
                format!(
                    "packets of {} bytes from {} don't fit it ({}): they are answered with ICMP \"too big\", and where that is \
                     filtered connections hang",
                    widest.mtu, widest.name, device.mtu
                ),
                &format!("ip link set dev {} mtu {}", device.name, widest.mtu),
            )
        };
        devices().map(judge).collect()
    }
}

impl Interface {
    fn judge(&self, mode: XdpMode, known: &[String]) -> Vec<Finding> {
        let exists = self.about("interface_exists", Severity::Error);
        let Some(device) = &self.device else {
            let cause = format!("there is no interface {}", self.name);
            return vec![exists.ask(
                cause,
                format!("make it, or write another in [gateway] interfaces: {}", known.join(", ")),
            )];
        };
        let driver = self.driver.as_ref().map(|driver| format!("driver {driver}, ")).unwrap_or_default();
        let mut findings =
            vec![exists.well(format!("{driver}MTU {}", device.mtu)), self.up(device), self.part_of()];
        findings.extend(self.foreign(device));
        let runs = device.program.filter(|_| self.is_ours == Some(true)).map(|(_, mode)| mode);
        if mode == XdpMode::Generic || runs == Some(Mode::Generic) {
            let cause = if runs.is_some() {
                "the program runs here in generic mode"
            } else {
                "generic mode is wanted"
            };
            findings.push(self.about("xdp_native", Severity::Info).well(cause));
            return findings;
        }
        let needed =
            if mode == XdpMode::Native || runs.is_some() { Severity::Error } else { Severity::Warning };
        findings.push(self.native(runs.is_some(), needed));
        findings.extend(self.transmit(device, runs.is_some(), needed));
        findings.extend(self.buffers(device, runs.is_some(), needed));
        findings.extend(self.joins(runs.is_some(), needed));
        findings.extend(self.tags(needed));
        findings
    }

    fn about(&self, id: &'static str, severity: Severity) -> About {
        about(id, severity, &self.name)
    }

    fn up(&self, device: &Device) -> Finding {
        let severity = if device.is_up { Severity::Warning } else { Severity::Error };
        let about = self.about("interface_up", severity);
        match (device.is_up, device.has_carrier) {
            (true, true) => about.well("it is up"),
            (true, false) => about.ask(
                "it has no carrier",
                "plug its cable in, or set its other end up; on a veth: ip link set dev PEER up",
            ),
            (false, _) => about.ill("it is down", format!("ip link set dev {} up", self.name)),
        }
    }

    fn part_of(&self) -> Finding {
        let about = self.about("interface_master", Severity::Warning);
        match &self.master {
            Some((master, kind)) if TAKES_OVER.contains(&kind.as_str()) => about.ask(
                format!(
                    "it is a part of {master} ({kind}): addresses and routes are that one's, so that backends seem to be behind an \
                     interface where the program doesn't run"
                ),
                format!("write \"{master}\" in its place in [gateway] interfaces, or: ip link set dev {} nomaster", self.name),
            ),
            _ => about.well("it stands for itself"),
        }
    }

    fn foreign(&self, device: &Device) -> Option<Finding> {
        let about = self.about("foreign_program", Severity::Error);
        match (device.program, self.is_ours) {
            (None, _) => Some(about.well("there is no other XDP program on it")),
            (Some((id, mode)), Some(true)) => {
                Some(about.well(format!("program {id} on it is ours, in {} mode", mode.name())))
            }
            (Some((id, mode)), Some(false)) => {
                let advice = advice::foreign(&self.name, Some(id));
                let name =
                    self.owner.name.as_ref().map(|name| format!("; its name is {name}")).unwrap_or_default();
                let command = match (self.owner.link, mode) {
                    (Some(link), _) => format!("bpftool link detach id {link}"),
                    (None, Mode::Native) => format!("ip link set dev {} xdp off", self.name),
                    (None, Mode::Generic) => format!("ip link set dev {} xdpgeneric off", self.name),
                };
                Some(about.ill(advice.cause + &name, command))
            }
            (Some(_), None) => None,
        }
    }

    fn native(&self, runs: bool, needed: Severity) -> Finding {
        let about = self.about("xdp_native", needed);
        match self.abilities.xdp {
            _ if runs => about.well("the program runs here in native mode"),
            None => about.well("the driver is not known to lack native XDP"),
            Some(features) if !features.is_native() => {
                let mut advice = advice::no_native(&self.name);
                if needed == Severity::Warning {
                    advice.cause.push_str(", so the program falls back to generic mode, which is slower");
                }
                about.advised(advice)
            }
            Some(features) => match features.no_redirect(&self.name) {
                Some(advice) => about.advised(advice),
                None => about.well("the driver has native XDP"),
            },
        }
    }

    /// Many drivers have transmit only while a program is there; a veth's depends on its other end alone.
    fn transmit(&self, device: &Device, runs: bool, needed: Severity) -> Option<Finding> {
        let is_veth = device.kind.as_deref() == Some("veth");
        let features = self.abilities.xdp.filter(|features| features.is_native() && (is_veth || runs))?;
        let about = self.about("xdp_transmit", needed);
        let Some(advice) = features.no_transmit(&self.name, device.mtu) else {
            return Some(about.well("what XDP redirects to it is sent"));
        };
        // A buffer more is nothing that its other end could give.
        if !is_veth || features.no_transmit(&self.name, 0).is_none() {
            return Some(about.advised(advice));
        }
        Some(match (&self.peer, device.below, device.below_is_in) {
            (Some(peer), ..) => about.ill(advice.cause, format!("ethtool -K {peer} gro on")),
            (None, Some(index), Some(namespace)) => about.ask(
                advice.cause,
                format!(
                    "in the network namespace {namespace} (`ip netns list-id`), where its other end has the index {index}: ethtool \
                     -K PEER gro on"
                ),
            ),
            _ => about.advised(advice),
        })
    }

    fn buffers(&self, device: &Device, runs: bool, needed: Severity) -> Option<Finding> {
        let features = self.abilities.xdp.filter(|features| features.is_native() && !runs)?;
        let about = self.about("xdp_frags", needed);
        Some(if device.mtu > ONE_BUFFER_MTU && !features.receives_many_buffers() {
            about.suggest(advice::one_buffer(&self.name).cause, &advice::lower_mtu(&self.name))
        } else {
            about.well(format!("the driver takes packets of its MTU ({})", device.mtu))
        })
    }

    /// Before Linux 5.10 nobody tells, and nothing is said.
    fn joins(&self, runs: bool, needed: Severity) -> Option<Finding> {
        let offloads = &self.abilities.offloads;
        if offloads.is_empty() || runs {
            return None;
        }
        // Some drivers switch it off themselves, virtio among them.
        let about = self.about("lro", needed.min(Severity::Warning));
        let joining = JOINING.iter().find(|(name, _)| offloads.contains(*name));
        Some(match joining {
            Some((_, offload)) => about.advised(advice::joins_packets(&self.name, offload)),
            None => about.well("it hands packets on as they came"),
        })
    }

    fn tags(&self, needed: Severity) -> Option<Finding> {
        let about = self.about("vlan_tags", needed);
        self.is_trunk.then(|| {
            if self.abilities.offloads.contains(TAGS_ARE_STRIPPED) {
                about.advised(advice::hidden_tags(&self.name))
            } else {
                about.well("packets of its VLANs come with their tags")
            }
        })
    }
}
