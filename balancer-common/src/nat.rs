//! A flow's rewrite, both directions: what a packet's addresses and ports become and what that does to its checksums.

use crate::abi::FlowKey;
use crate::checksum::Delta;

/// The recipe for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What the packet's tuple becomes.
    pub becomes: FlowKey,
    /// For the IP header's checksum; the TTL's decrement is in it.
    pub ip_delta: u16,
    /// For the TCP checksum, whose pseudo-header has the addresses and no TTL.
    pub tcp_delta: u16,
}

impl Rewrite {
    /// From one tuple to another.
    #[inline(always)]
    pub const fn new(from: &FlowKey, to: &FlowKey) -> Self {
        let addresses = Delta::NONE
            .words(from.source.to_wire(), to.source.to_wire())
            .words(from.destination.to_wire(), to.destination.to_wire());
        let tcp = addresses
            .word(
                u16::from_ne_bytes(from.source_port.to_wire()),
                u16::from_ne_bytes(to.source_port.to_wire()),
            )
            .word(
                u16::from_ne_bytes(from.destination_port.to_wire()),
                u16::from_ne_bytes(to.destination_port.to_wire()),
            );
        Self { becomes: *to, ip_delta: addresses.ttl_decremented().folded(), tcp_delta: tcp.folded() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{Address, Port};
    use crate::checksum;

    fn any_key() -> impl Strategy<Value = FlowKey> {
        (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), any::<u16>()).prop_map(
            |(from, to, source, destination)| FlowKey {
                source: Address::from_wire(from),
                destination: Address::from_wire(to),
                source_port: Port::new(source),
                destination_port: Port::new(destination),
            },
        )
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_identity(client in any_key(), backend in any_key(), field in 0_u16..0xffff) {
            let there = Rewrite::new(&client, &backend);
            let back = Rewrite::new(&there.becomes, &client);
            prop_assert_eq!(back.becomes, client);
            let field = field.to_ne_bytes();
            let returned = checksum::apply(checksum::apply(field, there.tcp_delta), back.tcp_delta);
            prop_assert_eq!(returned, field);
        }

        #[test]
        fn the_answers_key_is_the_reversed_tuple(client in any_key(), backend in any_key()) {
            let there = Rewrite::new(&client, &backend);
            let back = Rewrite::new(&there.becomes.reversed(), &client.reversed());
            prop_assert_eq!(back.becomes.reversed(), client);
        }
    }
}
