//! A flow's rewrite, both directions: what a packet's addresses and ports become and what that does to its checksums.

use crate::abi::{FlowKey, WireAddress};
use crate::checksum::Delta;

/// The recipe for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    /// What the packet's tuple becomes.
    pub becomes: FlowKey<A>,
    /// For the IP header's checksum, which only IPv4 has; the TTL's decrement is in it.
    pub ip_delta: u16,
    /// For the TCP checksum, whose pseudo-header has the addresses and no TTL.
    pub tcp_delta: u16,
}

impl<A: WireAddress> Rewrite<A> {
    /// From one tuple to another.
    #[inline(always)]
    pub fn new(from: &FlowKey<A>, to: &FlowKey<A>) -> Self {
        let addresses = from.source.change(to.source, Delta::NONE);
        let addresses = from.destination.change(to.destination, addresses);
        let tcp = from.source_port.change(to.source_port, addresses);
        let tcp = from.destination_port.change(to.destination_port, tcp);
        Self { becomes: *to, ip_delta: addresses.ttl_decremented().folded(), tcp_delta: tcp.folded() }
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
        let there = Rewrite::new(client, backend);
        let back = Rewrite::new(&there.becomes, client);
        assert_eq!(back.becomes, *client);
        let field = field.to_ne_bytes();
        let returned = checksum::apply(checksum::apply(field, there.tcp_delta), back.tcp_delta);
        assert_eq!(returned, field);
        let answers = Rewrite::new(&there.becomes.reversed(), &client.reversed());
        assert_eq!(answers.becomes.reversed(), *client);
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
