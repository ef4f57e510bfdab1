//! What the kernel tells of interfaces and of the way to a neighbour, for whoever only looks (`balancer doctor`).
//!
//! Deliberately absent: any opinion about it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use tokio::time::{Instant, sleep};

use super::DataplaneError;
use super::attach::Mode;
use super::features::{XdpFeatures, below_vlan};
use super::neighbours::{Neighbours, attached_program, failed};

/// For a neighbour's answer: the kernel asks once a second, and on a cable an answer takes microseconds.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An interface as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The kernel's index for it.
    pub ifindex: u32,
    /// `veth`, `bridge`, `vlan` and so on; `None`: a physical one.
    pub kind: Option<String>,
    /// Where its driver is found: bus, and its name on it.
    pub parent: (Option<String>, Option<String>),
    /// It is the loopback interface.
    pub is_loopback: bool,
    /// Nobody has set it down.
    pub is_up: bool,
    /// Its cable, or its other end, is there.
    pub has_carrier: bool,
    /// Its largest packet.
    pub mtu: u32,
    /// The interface that it is a part of.
    pub master: Option<u32>,
    /// The interface that it stands on; on a veth, its other end.
    pub below: Option<u32>,
    /// The network namespace of `below` where that is another one, by this one's number for it.
    pub below_is_in: Option<i32>,
    /// It is a VLAN's.
    pub is_vlan: bool,
    /// Its XDP program.
    pub program: Option<(u32, Mode)>,
}

/// What an interface's driver does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// For XDP; `None`: this kernel doesn't tell.
    pub xdp: Option<XdpFeatures>,
    /// The offloads that are on, as the kernel calls them.
    pub offloads: BTreeSet<String>,
}

/// A neighbour, by the index of an interface and its address there.
pub type Hop = (u32, IpAddr);

/// Which neighbours answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// They do.
    pub answering: BTreeSet<Hop>,
    /// They could not be asked, as for whoever may not (CAP_NET_ADMIN).
    pub not_asked: BTreeSet<Hop>,
}

impl Neighbours {
    /// All interfaces of this network namespace.
    pub async fn devices(&self) -> Result<Vec<Device>, DataplaneError> {
        let mut links = self.handle.link().get().execute();
        let mut devices = Vec::new();
        while let Some(link) = links.try_next().await.map_err(failed("listing interfaces".into()))? {
            devices.push(device(&link));
        }
        Ok(devices)
    }

    /// What an interface's driver does now.
    pub async fn abilities(&self, ifindex: u32) -> Result<Abilities, DataplaneError> {
        Ok(Abilities { xdp: self.xdp_features(ifindex).await?, offloads: self.offloads(ifindex).await? })
    }

    /// Which of these neighbours answer, or are known to have: those that aren't are asked, all at once.
    pub async fn answers(&self, hops: &BTreeSet<Hop>) -> Result<Answers, DataplaneError> {
        let until = Instant::now() + ANSWERS_WITHIN;
        let mut answers = Answers::default();
        let mut has_asked = false;
        loop {
            for hop in hops {
                if self.neighbour(hop.0, hop.1).await?.is_some() {
                    answers.answering.insert(*hop);
                }
            }
            for hop in hops.difference(&answers.answering).filter(|_| !has_asked) {
                if self.find(hop.0, hop.1).await.is_err() {
                    answers.not_asked.insert(*hop);
                }
            }
            has_asked = true;
            let is_complete = answers.answering.len() + answers.not_asked.len() >= hops.len();
            if is_complete || Instant::now() > until {
                return Ok(answers);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn device(link: &LinkMessage) -> Device {
    let flags = link.header.flags;
    let mut device = Device {
        ifindex: link.header.index,
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        is_vlan: below_vlan(link).is_some(),
        ..Device::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Controller(index) => device.master = Some(*index),
            LinkAttribute::Link(index) => device.below = Some(*index),
            LinkAttribute::LinkNetNsId(id) => device.below_is_in = Some(*id),
            LinkAttribute::Xdp(xdp) => device.program = attached_program(xdp),
            LinkAttribute::LinkInfo(infos) => device.kind = infos.iter().find_map(kind),
            LinkAttribute::ParentDevBusName(bus) => device.parent.0 = Some(bus.clone()),
            LinkAttribute::ParentDevName(name) => device.parent.1 = Some(name.clone()),
            _ => {}
        }
    }
    device
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_tells_its_other_end_and_whether_it_is_elsewhere() {
        let mut link = LinkMessage::default();
        (link.header.index, link.header.flags) = (7, LinkFlags::Up | LinkFlags::LowerUp);
        link.attributes = vec![
            LinkAttribute::IfName("wan0".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(3),
            LinkAttribute::LinkNetNsId(2),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        ];
        let wanted = Device {
            name: "wan0".into(),
            ifindex: 7,
            kind: Some("veth".into()),
            is_up: true,
            has_carrier: true,
            mtu: 1500,
            below: Some(3),
            below_is_in: Some(2),
            ..Device::default()
        };
        assert_eq!(device(&link), wanted);
    }
}
