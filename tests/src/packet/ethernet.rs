//! The frame around a packet: addresses, VLAN tags, and what comes after it.

use std::net::IpAddr;

/// A hardware address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a customer's VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// EtherType of a provider's VLAN tag (802.1ad).
pub const PROVIDER_VLAN: u16 = 0x88a8;

/// Bytes of a header without tags.
pub const ETHERNET_BYTES: usize = 14;

/// An Ethernet frame without its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// VLAN tags, the outermost first: EtherType of the tag, then its control word.
    pub tags: Vec<(u16, u16)>,
    /// What it says is inside, if that isn't the truth.
    pub ether_type: Option<u16>,
    /// Bytes after the packet.
    pub padding: Vec<u8>,
    /// The frame ends after this many bytes.
    pub cut_to: Option<usize>,
}

impl Ethernet {
    /// The frame around a packet of this address's family.
    pub(super) fn around(&self, packet: &[u8], family: IpAddr) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET_BYTES + packet.len());
        frame.extend(self.destination);
        frame.extend(self.source);
        for (kind, control) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let inside = if family.is_ipv4() { IPV4 } else { IPV6 };
        frame.extend(self.ether_type.unwrap_or(inside).to_be_bytes());
        frame.extend(packet);
        frame.extend(&self.padding);
        frame.truncate(self.cut_to.unwrap_or(frame.len()));
        frame
    }
}
