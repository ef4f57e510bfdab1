//! Packets for tests: built field by field, with every field open to nonsense, and whole frames compared by field.
//!
//! Checksums are summed from scratch over the finished bytes, and a translated packet is built anew from its fields:
//! nothing here knows the product's arithmetic, so the two can't be wrong in the same way. Deliberately absent: any
//! protocol but TCP and ICMP (others' frames pass untouched, so any bytes do), and any notion of a gateway.

mod difference;
mod ethernet;
mod icmp;
mod ip;
mod read_back;
mod sum;
mod tcp;
#[cfg(test)]
mod tests;

pub use difference::difference;
pub use ethernet::{ETHERNET_BYTES, Ethernet, IPV4, IPV6, Mac, PROVIDER_VLAN, VLAN};
pub use icmp::{Body, Icmp, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
pub use ip::{DONT_FRAGMENT, Extension, IPV4_BYTES, IPV6_BYTES, Ip, MORE_FRAGMENTS, WrongIp};
pub use read_back::{ReadBack, read_back};
pub use tcp::{Checksum, PROTOCOL_TCP, Packet, TCP_BYTES, flags};
