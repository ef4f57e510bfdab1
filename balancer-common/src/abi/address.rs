//! IP addresses and ports as they stand in packets and tables.
//!
//! Flows are kept by family, with addresses no longer than they must be; what is asked for once in a connection keeps
//! an [`Address`], which can be of either.

use core::fmt::Debug;
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::flow::Seed;
use crate::checksum::{Delta, Sum};

mod sealed {
    /// Only what is in this file is copied to and from the kernel as bytes.
    pub trait Sealed {}
    impl Sealed for super::Address4 {}
    impl Sealed for super::Address6 {}
}

/// An address of one family as it stands in the packet: [`Address4`] or [`Address6`] and no others.
pub trait WireAddress:
    Copy + Debug + Default + Ord + Hash + Into<Address> + From<Address> + sealed::Sealed + 'static
{
    /// What changing this address to `new` adds to a checksum that covers it.
    #[must_use]
    fn change(self, new: Self, delta: Delta) -> Delta;

    /// Adds the address to a sum.
    #[must_use]
    fn sum(self, sum: Sum) -> Sum;

    /// Whether no host on a network can have it: unspecified, loopback, multicast and beyond.
    fn is_no_hosts(self) -> bool;

    /// Some of its bits, to choose by.
    fn low_bits(self) -> u32;

    /// The address's part of a tuple's hash: its words, each times a word of the seed from `at` on.
    #[must_use]
    fn hashed(self, seed: &Seed, at: usize) -> u64;

    /// Words of the address.
    const WORDS: usize;

    /// What a [`Line`](super::Line) has behind its fields, so that it is whole cache lines.
    type Rest: Copy + Debug + Default + Eq;
}

/// An IPv4 address as it stands in the packet. In words, which is what tables are hashed and compared by.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address4([u32; 1]);

/// An IPv6 address as it stands in the packet, in words too.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address6([u32; 4]);

macro_rules! wire_address {
    ($name:ident, $words:literal, $rest:ty) => {
        impl $name {
            /// From the words of a header, as they stand in memory.
            #[inline(always)]
            pub const fn from_words(words: [u32; $words]) -> Self {
                Self(words)
            }

            /// The words for a header.
            #[inline(always)]
            pub const fn to_words(self) -> [u32; $words] {
                self.0
            }

            /// From the bytes of a header.
            pub const fn from_wire(bytes: [u8; 4 * $words]) -> Self {
                let mut words = [0; $words];
                let mut word = 0;
                while word < $words {
                    let at = 4 * word;
                    words[word] =
                        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                    word += 1;
                }
                Self(words)
            }

            /// The bytes for a header.
            pub const fn to_wire(self) -> [u8; 4 * $words] {
                let mut bytes = [0; 4 * $words];
                let mut word = 0;
                while word < $words {
                    let at = 4 * word;
                    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]] = self.0[word].to_ne_bytes();
                    word += 1;
                }
                bytes
            }
        }

        impl WireAddress for $name {
            #[inline(always)]
            fn change(self, new: Self, mut delta: Delta) -> Delta {
                for word in 0..$words {
                    delta = delta.long(self.0[word], new.0[word]);
                }
                delta
            }

            #[inline(always)]
            fn sum(self, mut sum: Sum) -> Sum {
                for word in self.0 {
                    sum = sum.word(word as u16).word((word >> 16) as u16);
                }
                sum
            }

            #[inline(always)]
            fn is_no_hosts(self) -> bool {
                self.is_nobodys()
            }

            #[inline(always)]
            fn low_bits(self) -> u32 {
                u32::from_be(self.0[$words - 1]) & 0xffff
            }

            #[inline(always)]
            fn hashed(self, seed: &Seed, at: usize) -> u64 {
                let mut sum = 0_u64;
                for word in 0..$words {
                    sum = sum.wrapping_add(seed.0[at + word].wrapping_mul(u64::from(self.0[word])));
                }
                sum
            }

            const WORDS: usize = $words;
            type Rest = $rest;
        }
    };
}

wire_address!(Address4, 1, [u64; 0]);
wire_address!(Address6, 4, [u64; 2]);

impl Address4 {
    /// This network, loopback, multicast, reserved and broadcast.
    #[inline(always)]
    fn is_nobodys(self) -> bool {
        matches!(u32::from_be(self.0[0]) >> 24, 0 | 127 | 224..)
    }
}

impl Address6 {
    /// Unspecified, loopback, IPv4 in its mapped form, and multicast.
    #[inline(always)]
    fn is_nobodys(self) -> bool {
        let [a, b, c, d] = self.0;
        let is_multicast = u32::from_be(a) >> 24 == 0xff;
        if a | b != 0 {
            return is_multicast;
        }
        let is_below_two = c == 0 && u32::from_be(d) <= 1;
        is_below_two || c == MAPPED
    }
}

/// The third word of an IPv4 address in its mapped form.
const MAPPED: u32 = 0xffff_u32.to_be();

/// An address of either family; IPv4 in its mapped form, `::ffff:a.b.c.d`, which no packet on a wire has.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Address6);

impl Address {
    /// None: all zero, as no packet has it.
    pub const NONE: Self = Self(Address6([0; 4]));

    /// Some bits of all of it, in no order: the upper ones are the best.
    #[inline(always)]
    pub const fn scattered(self) -> u64 {
        let [a, b, c, d] = self.0.0;
        let sum = (a as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let sum = sum.wrapping_add((b as u64).wrapping_mul(0xc4ce_b9fe_1a85_ec53));
        let sum = sum.wrapping_add((c as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
        sum.wrapping_add((d as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The IPv4 address in it, if it is one.
    #[inline(always)]
    pub const fn to_v4(self) -> Option<Address4> {
        match self.0.0 {
            [0, 0, MAPPED, v4] => Some(Address4([v4])),
            _ => None,
        }
    }
}

impl From<Address4> for Address {
    #[inline(always)]
    fn from(address: Address4) -> Self {
        Self(Address6([0, 0, MAPPED, address.0[0]]))
    }
}

impl From<Address6> for Address {
    #[inline(always)]
    fn from(address: Address6) -> Self {
        Self(address)
    }
}

impl From<Address> for Address4 {
    /// Of an IPv6 address, what stands where IPv4 would: who keeps families apart never asks for it.
    #[inline(always)]
    fn from(address: Address) -> Self {
        Self([address.0.0[3]])
    }
}

impl From<Address> for Address6 {
    #[inline(always)]
    fn from(address: Address) -> Self {
        address.0
    }
}

impl From<Ipv4Addr> for Address4 {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_wire(address.octets())
    }
}

impl From<Ipv6Addr> for Address6 {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_wire(address.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Address4::from(v4).into(),
            IpAddr::V6(v6) => Address6::from(v6).into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.to_v4() {
            Some(v4) => Self::V4(v4.to_wire().into()),
            None => Self::V6(address.0.to_wire().into()),
        }
    }
}

/// A TCP port as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// From the bytes of a header.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The bytes for a header.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// Two neighbours from the word that they are in a header.
    #[inline(always)]
    pub const fn both_from_word(word: u32) -> [Self; 2] {
        let (low, high) = (Self(word as u16), Self((word >> 16) as u16));
        if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
    }

    /// This one and the next as the word that they are in a header.
    #[inline(always)]
    pub const fn to_word_with(self, next: Self) -> u32 {
        let (low, high) = if cfg!(target_endian = "little") { (self, next) } else { (next, self) };
        low.0 as u32 | (high.0 as u32) << 16
    }

    /// From the number that people write.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self::from_wire(number.to_be_bytes())
    }

    /// The number that people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.to_wire())
    }

    /// What changing this port to `new` adds to a checksum that covers it.
    #[inline(always)]
    #[must_use]
    pub const fn change(self, new: Self, delta: Delta) -> Delta {
        delta.word(self.0, new.0)
    }
}

/// An address and a port, as people write them.
pub fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.number())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_of_either_family_comes_back(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
            let v4 = IpAddr::from(v4);
            prop_assert_eq!(IpAddr::from(Address::from(v4)), v4);
            let v6 = Ipv6Addr::from(v6);
            if v6.to_ipv4_mapped().is_none() {
                prop_assert_eq!(IpAddr::from(Address::from(IpAddr::V6(v6))), IpAddr::V6(v6));
            }
        }
    }

    #[test]
    fn who_no_host_can_be_is_known() {
        for text in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1"] {
            assert!(Address4::from(text.parse::<Ipv4Addr>().unwrap()).is_no_hosts(), "{text}");
        }
        for text in ["1.0.0.0", "10.0.0.1", "126.1.1.1", "128.0.0.1", "223.255.255.255"] {
            assert!(!Address4::from(text.parse::<Ipv4Addr>().unwrap()).is_no_hosts(), "{text}");
        }
        for text in ["::", "::1", "::ffff:10.0.0.1", "ff02::1"] {
            assert!(Address6::from(text.parse::<Ipv6Addr>().unwrap()).is_no_hosts(), "{text}");
        }
        for text in ["::2", "2001:db8::1", "fe80::1", "fd00::1", "64:ff9b::1"] {
            assert!(!Address6::from(text.parse::<Ipv6Addr>().unwrap()).is_no_hosts(), "{text}");
        }
    }

    #[test]
    fn ports_are_numbers_for_people_and_bytes_for_the_wire() {
        assert_eq!(Port::new(443).to_wire(), [1, 187]);
        assert_eq!(Port::from_wire([1, 187]).number(), 443);
        let word = u32::from_ne_bytes([1, 187, 0, 80]);
        assert_eq!(Port::both_from_word(word), [Port::new(443), Port::new(80)]);
        assert_eq!(Port::new(443).to_word_with(Port::new(80)), word);
    }
}
