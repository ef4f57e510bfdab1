//! What a flow's rewrite does to checksums, both directions.

use crate::abi::{FlowKey, WireAddress};
use crate::checksum::Delta;

/// What changing a packet's tuple adds to its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deltas {
    /// To the IP header's, which only IPv4 has; the TTL's decrement is in it.
    pub ip: u16,
    /// To TCP's, whose pseudo-header has the addresses and no TTL.
    pub tcp: u16,
}

impl Deltas {
    /// Of a packet that leaves as if `other` answered it: the tuple of the flow's other direction, reversed. Not taken as a
    /// tuple of its own, of which two fill a good part of the packet path's stack.
    #[inline(always)]
    pub fn new<A: WireAddress>(key: &FlowKey<A>, other: &FlowKey<A>) -> Self {
        let addresses = key.source.change(other.destination, Delta::NONE);
        Self::with(key.destination.change(other.source, addresses), key, other)
    }

    /// The same, for who has summed up already what the addresses' change adds.
    #[inline(always)]
    pub const fn with<A: WireAddress>(addresses: Delta, key: &FlowKey<A>, other: &FlowKey<A>) -> Self {
        let tcp = key.source_port.change(other.destination_port, addresses);
        let tcp = key.destination_port.change(other.source_port, tcp);
        Self { ip: addresses.ttl_decremented().folded(), tcp: tcp.folded() }
    }

    /// Of the packets that answer: what was added is taken away again, but for the TTL.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        // Once for what is taken away, once of their own.
        let ip = Delta::NONE.word(self.ip, 0).ttl_decremented().ttl_decremented().folded();
        Self { ip, tcp: !self.tcp }
    }

    /// As a word, the IP header's in the upper half.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        (self.ip as u32) << 16 | self.tcp as u32
    }

    /// What [`Deltas::to_word`] returned.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self { ip: (word >> 16) as u16, tcp: word as u16 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{Address4, Address6, Port};
    use crate::checksum;

    fn any_key<A: WireAddress>(
        any_address: impl Strategy<Value = A> + Clone,
    ) -> impl Strategy<Value = FlowKey<A>> {
        (any_address.clone(), any_address, any::<u16>(), any::<u16>()).prop_map(
            |(source, destination, source_port, destination_port)| FlowKey {
                source,
                destination,
                source_port: Port::new(source_port),
                destination_port: Port::new(destination_port),
            },
        )
    }

    fn any_key4() -> impl Strategy<Value = FlowKey<Address4>> {
        any_key(any::<[u8; 4]>().prop_map(Address4::from_wire))
    }

    fn any_key6() -> impl Strategy<Value = FlowKey<Address6>> {
        any_key(any::<[u8; 16]>().prop_map(Address6::from_wire))
    }

    fn there_and_back<A: WireAddress>(client: &FlowKey<A>, backend: &FlowKey<A>, field: u16) {
        // The client's packets leave as answers to the backend's, and the other way round.
        let there = Deltas::new(client, backend);
        let back = Deltas::new(&backend.reversed(), &client.reversed());
        let field = field.to_ne_bytes();
        assert_eq!(checksum::apply(checksum::apply(field, there.tcp), back.tcp), field);
        let reversed = there.reversed();
        assert_eq!(checksum::apply(field, reversed.tcp), checksum::apply(field, back.tcp));
        assert_eq!(checksum::apply(field, reversed.ip), checksum::apply(field, back.ip));
        assert_eq!(Deltas::from_word(there.to_word()), there);
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_identity(client in any_key4(), backend in any_key4(), field in 0_u16..0xffff) {
            there_and_back(&client, &backend, field);
        }

        #[test]
        fn there_and_back_is_the_identity_in_ipv6(
            client in any_key6(),
            backend in any_key6(),
            field in 0_u16..0xffff,
        ) {
            there_and_back(&client, &backend, field);
        }
    }
}
