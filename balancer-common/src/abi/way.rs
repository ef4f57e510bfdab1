//! How frames leave: interfaces and next hops.

/// How frames reach a backend or a client: one word, as a neighbour may change under traffic.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Destination address of the frame.
    pub mac: [u8; 6],
    /// Slot of the interface; 0: not resolved.
    pub interface: u16,
}

impl NextHop {
    /// As the word that is stored.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        let [low, high] = self.interface.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, low, high])
    }

    /// Whether this is its address: the lower six bytes of a word, whatever is above.
    #[inline(always)]
    pub const fn has_mac(self, word: u64) -> bool {
        (self.to_word() ^ word) << 16 == 0
    }

    /// From the stored word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, low, high] = word.to_ne_bytes();
        Self { mac: [a, b, c, d, e, f], interface: u16::from_ne_bytes([low, high]) }
    }
}

/// An interface that frames may leave through.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index; 0: this slot holds no interface.
    pub ifindex: u32,
    /// The largest IP packet that it takes.
    pub mtu: u32,
    /// Source address of frames; a word with what is behind.
    pub mac: [u8; 6],
    /// Zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<NextHop>() == 8 && align_of::<NextHop>() == 8);
const _: () = assert!(size_of::<Interface>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_survives_its_word() {
        let hop = NextHop { mac: [2, 0, 0, 0xaa, 0xbb, 0xcc], interface: 0x0102 };
        assert_eq!(NextHop::from_word(hop.to_word()), hop);
        assert!(hop.has_mac(hop.to_word()) && hop.has_mac(hop.to_word() ^ 1 << 48));
        assert!(!hop.has_mac(hop.to_word() ^ 1 << 47) && !hop.has_mac(hop.to_word() ^ 1));
    }
}
