//! Tells aya which ABI types may be copied to and from the kernel as bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

use crate::abi::{
    Address, Backend, Clock, Interface, Pool, Roles, Seed, Service, ServiceKey, Signals, Tally, TraceState,
    Tracing, Traffic,
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

pod!(
    Address, Backend, Clock, Interface, Pool, Roles, Seed, Service, ServiceKey, Signals, Tally, TraceState,
    Tracing, Traffic,
);
