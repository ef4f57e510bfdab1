//! What the drivers of interfaces can do for XDP, as the kernel tells it, and what is missing for native mode.
//!
//! Since Linux 6.3 the `netdev` family of generic netlink tells an interface's features, and since then the kernel
//! drops what is redirected to an interface without NDO_XMIT; nobody hears of it. Older kernels don't tell, and then
//! nothing is said here either.
//!
//! When they are asked matters. A veth has NDO_XMIT exactly while its *other* end polls (a program there, or GRO), so
//! its own program changes nothing. Many drivers (virtio_net, ice, ena) have it only while a program is attached
//! natively. So the answer counts that comes after attaching and before services are reachable.
//!
//! What counts is where packets go, not how the program there runs (tried on veth, Linux 6.18): from a generic
//! interface they are sent as socket buffers through the device's queue, to any interface; from a native one through
//! NDO_XMIT, which a generic interface needs as well and a native program there doesn't give. So modes may be mixed as
//! long as every interface has NDO_XMIT, and else none may be native.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::DataplaneError;
use super::advice::{self, Advice, ONE_BUFFER_MTU};
use super::attach::Target;
use super::generic::{attribute, each, find};
use super::neighbours::{Neighbours, failed};

// `netdev`: features by interface (Linux 6.3).
const NETDEV_DEV_GET: u8 = 1;
const NETDEV_IFINDEX: u16 = 1;
const NETDEV_XDP_FEATURES: u16 = 3;

// `ethtool`: offloads by interface (Linux 5.10).
const ETHTOOL_FEATURES_GET: u8 = 11;
const ETHTOOL_HEADER: u16 = 1;
const ETHTOOL_HEADER_IFINDEX: u16 = 1;
const ETHTOOL_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_BITS: u16 = 3;
const ETHTOOL_BIT: u16 = 1;
const ETHTOOL_BIT_NAME: u16 = 2;

/// What `ethtool -K … rxvlan` switches, as the kernel calls it.
pub const TAGS_ARE_STRIPPED: &str = "rx-vlan-hw-parse";

/// An interface's features, as bits of `enum netdev_xdp_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    const BASIC: u64 = 1 << 0;
    const REDIRECT: u64 = 1 << 1;
    const NDO_XMIT: u64 = 1 << 2;
    const RX_SG: u64 = 1 << 5;
    const NDO_XMIT_SG: u64 = 1 << 6;

    /// Those of these bits.
    #[cfg(test)]
    pub(crate) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether a program can run in the driver.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.has(Self::BASIC)
    }

    /// Whether frames of several buffers can be received.
    #[must_use]
    pub fn receives_many_buffers(self) -> bool {
        self.has(Self::RX_SG)
    }

    fn has(self, feature: u64) -> bool {
        self.0 & feature != 0
    }

    /// Why packets that a native program redirects to this interface would be lost.
    #[must_use]
    pub fn lack(self, interface: &str, mtu: u32) -> Option<String> {
        self.no_transmit(interface, mtu).map(|advice| advice.to_string())
    }

    /// As [`XdpFeatures::lack`], in parts.
    #[must_use]
    pub fn no_transmit(self, interface: &str, mtu: u32) -> Option<Advice> {
        if !self.has(Self::NDO_XMIT) {
            Some(advice::no_transmit(interface))
        } else if mtu > ONE_BUFFER_MTU && !self.has(Self::NDO_XMIT_SG) {
            Some(advice::no_long_transmit(interface, mtu))
        } else {
            None
        }
    }

    /// Why a native program on this interface could send nothing on. Meaningful once the program is there.
    #[must_use]
    pub fn no_redirect(self, interface: &str) -> Option<Advice> {
        (!self.has(Self::REDIRECT)).then(|| advice::no_redirect(interface))
    }
}

impl Neighbours {
    /// An interface's features now; `None`: this kernel doesn't tell.
    pub async fn xdp_features(&self, ifindex: u32) -> Result<Option<XdpFeatures>, DataplaneError> {
        let interface = attribute(NETDEV_IFINDEX, &ifindex.to_ne_bytes());
        let answer = self.generic.ask(&self.netdev, NETDEV_DEV_GET, interface).await?;
        Ok(answer.and_then(|attributes| features_in(&attributes)))
    }

    /// Why native mode loses packets here, by interface. `native`: the interfaces on which a program runs natively; with
    /// none of them nothing is missing.
    pub async fn lacks(
        &self,
        targets: &[Target],
        native: &[&str],
    ) -> Result<BTreeMap<String, String>, DataplaneError> {
        let mut lacks = BTreeMap::new();
        if native.is_empty() {
            return Ok(lacks);
        }
        for Target { interface, ifindex, mtu, .. } in targets {
            let Some(features) = self.xdp_features(*ifindex).await? else { continue };
            let own = native.contains(&interface.as_str()).then(|| features.no_redirect(interface)).flatten();
            if let Some(lack) = own.or_else(|| features.no_transmit(interface, *mtu)) {
                lacks.insert(interface.clone(), lack.to_string());
            }
        }
        Ok(lacks)
    }

    /// The interfaces on which packets of VLANs come to XDP without their tag, so that they would be taken for others;
    /// with what to do.
    pub async fn hidden_tags(&self, targets: &[&Target]) -> Result<BTreeMap<String, String>, DataplaneError> {
        let mut stripping = Vec::new();
        for target in targets {
            if self.strips_tags(target.ifindex).await? {
                stripping.push(target);
            }
        }
        if stripping.is_empty() {
            return Ok(BTreeMap::new());
        }
        let trunks = self.trunks().await?;
        let hidden = stripping.into_iter().filter(|target| trunks.contains(&target.ifindex));
        let hidden = hidden.map(|target| &target.interface);
        Ok(hidden.map(|name| (name.clone(), advice::hidden_tags(name).to_string())).collect())
    }

    /// Whether the driver takes VLANs' tags off before XDP sees a packet; kernels before 5.10 don't tell.
    pub async fn strips_tags(&self, ifindex: u32) -> Result<bool, DataplaneError> {
        Ok(self.offloads(ifindex).await?.contains(TAGS_ARE_STRIPPED))
    }

    /// The offloads that are on, as the kernel calls them; none from kernels before 5.10, which don't tell.
    pub async fn offloads(&self, ifindex: u32) -> Result<BTreeSet<String>, DataplaneError> {
        let interface = attribute(ETHTOOL_HEADER_IFINDEX, &ifindex.to_ne_bytes());
        let header = attribute(ETHTOOL_HEADER | NESTED, &interface);
        let answer = self.generic.ask(&self.ethtool, ETHTOOL_FEATURES_GET, header).await?;
        Ok(answer.map(|attributes| offloads_in(&attributes)).unwrap_or_default())
    }

    /// The interfaces below VLAN interfaces.
    async fn trunks(&self) -> Result<BTreeSet<u32>, DataplaneError> {
        let mut links = self.handle.link().get().execute();
        let mut trunks = BTreeSet::new();
        while let Some(link) = links.try_next().await.map_err(failed("listing interfaces".into()))? {
            trunks.extend(below_vlan(&link));
        }
        Ok(trunks)
    }
}

/// Says of an attribute that it holds attributes, which `ethtool` insists on.
const NESTED: u16 = 1 << 15;

fn features_in(attributes: &[u8]) -> Option<XdpFeatures> {
    let bits = find(attributes, NETDEV_XDP_FEATURES)?;
    Some(XdpFeatures(u64::from_ne_bytes(bits.try_into().ok()?)))
}

/// The active features are a list of bits with their names: their numbers are the kernel's own business.
fn offloads_in(attributes: &[u8]) -> BTreeSet<String> {
    let bits = find(attributes, ETHTOOL_FEATURES_ACTIVE).and_then(|active| find(active, ETHTOOL_BITS));
    let bits = each(bits.unwrap_or_default()).filter(|(kind, _)| *kind == ETHTOOL_BIT);
    let names = bits.filter_map(|(_, bit)| find(bit, ETHTOOL_BIT_NAME));
    names.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()).collect()
}

/// The interface below this one, if it is a VLAN's.
pub(super) fn below_vlan(link: &LinkMessage) -> Option<u32> {
    let mut is_vlan = false;
    let mut below = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => is_vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan)),
            LinkAttribute::Link(index) => below = Some(*index),
            _ => {}
        }
    }
    below.filter(|_| is_vlan)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A veth whose other end polls, and one whose other end doesn't, both on Linux 6.18.
    const WHOLE: u64 = 0b110_0111;
    const DEAF: u64 = 0b010_0011;

    #[test]
    fn nothing_is_missing_where_redirected_packets_arrive() {
        assert_eq!(XdpFeatures(WHOLE).lack("lan0", 9000), None);
        assert_eq!(XdpFeatures(WHOLE).no_redirect("lan0"), None);
    }

    #[test]
    fn without_transmit_the_interface_and_the_remedy_are_named() {
        let lack = XdpFeatures(DEAF).lack("lan0", 1500).unwrap();
        for words in ["lan0", "no XDP transmit", "`ethtool -K PEER gro on`", "generic"] {
            assert!(lack.contains(words), "{words}: {lack}");
        }
    }

    #[test]
    fn transmit_of_many_buffers_is_missed_only_with_packets_that_need_it() {
        let single = XdpFeatures(WHOLE & !XdpFeatures::NDO_XMIT_SG);
        assert_eq!(single.lack("lan0", ONE_BUFFER_MTU), None);
        let lack = single.lack("lan0", 9000).unwrap();
        assert!(
            lack.contains("its MTU is 9000") && lack.contains("`ip link set dev lan0 mtu 3498`"),
            "{lack}"
        );
    }

    #[test]
    fn a_driver_without_redirect_is_no_help() {
        assert!(XdpFeatures(WHOLE & !XdpFeatures::REDIRECT).no_redirect("lan0").is_some());
    }

    #[test]
    fn features_are_found_in_the_answer() {
        let answer = [attribute(NETDEV_IFINDEX, &[1, 0, 0, 0]), attribute(3, &WHOLE.to_ne_bytes())].concat();
        assert_eq!(features_in(&answer), Some(XdpFeatures(WHOLE)));
        assert_eq!(features_in(&attribute(NETDEV_XDP_FEATURES, &[1])), None);
        assert_eq!(features_in(&[]), None);
    }

    #[test]
    fn offloads_are_found_by_their_names() {
        let bit = |name: &[u8]| attribute(ETHTOOL_BIT, &attribute(ETHTOOL_BIT_NAME, name));
        let answer = |bits: &[u8]| attribute(ETHTOOL_FEATURES_ACTIVE, &attribute(ETHTOOL_BITS, bits));
        let found = offloads_in(&answer(&[bit(b"rx-gro\0"), bit(b"rx-vlan-hw-parse\0")].concat()));
        assert!(found.contains(TAGS_ARE_STRIPPED) && found.len() == 2, "{found:?}");
        assert!(!offloads_in(&answer(&bit(b"rx-gro\0"))).contains(TAGS_ARE_STRIPPED));
        assert!(offloads_in(&[]).is_empty());
    }

    #[test]
    fn a_trunk_is_what_a_vlan_interface_is_on() {
        let link = |kind| {
            let mut link = LinkMessage::default();
            link.attributes =
                vec![LinkAttribute::Link(7), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
            link
        };
        assert_eq!(below_vlan(&link(InfoKind::Vlan)), Some(7));
        assert_eq!(below_vlan(&link(InfoKind::MacVlan)), None);
    }
}
