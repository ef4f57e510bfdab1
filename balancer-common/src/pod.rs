//! Tells aya which ABI types may be copied to and from the kernel as bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

use crate::abi::{Backend, FlowEntry, FlowKey, Interface, Pool, Service, ServiceKey, Traffic};

macro_rules! pod {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)`, made of integers and byte arrays, valid for every bit pattern, and without implicit
            // padding: the size assertions in abi.rs are sums of the fields.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod!(Backend, FlowEntry, FlowKey, Interface, Pool, Service, ServiceKey, Traffic);
