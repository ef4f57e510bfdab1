//! Tells aya which ABI types may be copied to and from the kernel as bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

use crate::abi::{
    Address, Backend, FlowEntry, FlowKey, Interface, Pool, Roles, Service, ServiceKey, Tally, Traffic,
    WireAddress,
};

macro_rules! pod {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)`, made of integers and byte arrays, valid for every bit pattern,
            // and without implicit padding: the size assertions of the abi are sums of the fields.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod!(Address, Backend, Interface, Pool, Roles, Service, ServiceKey, Tally, Traffic);

// SAFETY: as above, for the two addresses that there are.
unsafe impl<A: WireAddress> aya::Pod for FlowKey<A> {}
// SAFETY: as above.
unsafe impl<A: WireAddress> aya::Pod for FlowEntry<A> {}
