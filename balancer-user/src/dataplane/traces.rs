//! Packets that people want to see, as the packet path tells them (`balancer_common::abi::trace`), and whose it is to tell.
//!
//! The filters are a variable of the loaded program, its section `.bss`: another program begins without any. They hold for
//! a moment, and the controller puts their end off as long as somebody looks. Deliberately absent: names, which the daemon knows.
#![expect(unsafe_code, reason = "a record's bytes are taken for what they are")]

use std::net::IpAddr;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use balancer_common::abi::{TraceFilter, TraceState, Traced, Tracing};
use balancer_common::limits::{MAX_TRACES, TRACES_BYTES};

use super::DataplaneError;
use super::clock::monotonic_ns;
use super::ring::Ring;
use super::tables::take;

/// The section with the program's variables, of which there is one.
const VARIABLES: &str = ".bss";

/// What one trace wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Packets from or to this client only, those that pass included.
    pub client: Option<IpAddr>,
    /// Packets of the service in this slot only.
    pub service: Option<u16>,
}

/// Where traced packets are read.
///
/// # Errors
/// The object isn't one of ours.
pub fn take_told(ebpf: &mut Ebpf) -> Result<Ring<Traced>, DataplaneError> {
    Ring::take(ebpf, "TRACES", TRACES_BYTES, parse)
}

/// Where filters are written.
pub struct Tracer {
    state: PerCpuArray<MapData, TraceState>,
    tracing: Array<MapData, Tracing>,
    wishes: [Option<Wish>; MAX_TRACES],
}

impl Tracer {
    /// From a loaded object.
    ///
    /// # Errors
    /// The object isn't one of ours.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            state: take(ebpf, "TRACE_STATE")?,
            tracing: take(ebpf, VARIABLES)?,
            wishes: [None; MAX_TRACES],
        })
    }

    /// A place for one more trace, whose packets have its bit; `None`: there are as many as there may be.
    ///
    /// # Errors
    /// The program can't be told.
    pub fn begin(&mut self, wish: Wish, lasts: Duration) -> Result<Option<usize>, DataplaneError> {
        let Some(place) = self.wishes.iter().position(Option::is_none) else { return Ok(None) };
        self.wishes[place] = Some(wish);
        self.extend(lasts).inspect_err(|_| self.wishes[place] = None)?;
        Ok(Some(place))
    }

    /// The service that this one wants to see is in another slot now, or in the same.
    ///
    /// # Errors
    /// The program can't be told.
    pub fn lead(&mut self, place: usize, slot: u16, lasts: Duration) -> Result<(), DataplaneError> {
        if let Some(wish) = &mut self.wishes[place] {
            wish.service = Some(slot);
        }
        self.extend(lasts)
    }

    /// Nobody looks at this one any more.
    ///
    /// # Errors
    /// The program can't be told; it stops by itself when the time is over.
    pub fn end(&mut self, place: usize, lasts: Duration) -> Result<(), DataplaneError> {
        self.wishes[place] = None;
        self.extend(lasts)
    }

    /// All that are under way last so long from now on.
    ///
    /// # Errors
    /// The program can't be told.
    pub fn extend(&mut self, lasts: Duration) -> Result<(), DataplaneError> {
        let until_ns = monotonic_ns() + lasts.as_nanos() as u64;
        let filters =
            self.wishes.map(|wish| wish.map_or_else(TraceFilter::default, |wish| wish.filter(until_ns)));
        let is_on = self.wishes.iter().any(Option::is_some).into();
        let tracing = Tracing { is_on, filters };
        self.tracing.set(0, tracing, 0).map_err(DataplaneError::map("writing", VARIABLES))
    }

    /// How many packets each place wanted that it wasn't told, since the tables were made.
    ///
    /// # Errors
    /// The kernel doesn't tell.
    pub fn missed(&self) -> Result<[u64; MAX_TRACES], DataplaneError> {
        let state = self.state.get(&0, 0).map_err(DataplaneError::map("reading", "TRACE_STATE"))?;
        let of = |place: usize| state.iter().map(|cpu| cpu.budgets[place].missed).sum();
        Ok(std::array::from_fn(of))
    }
}

impl Wish {
    fn filter(self, until_ns: u64) -> TraceFilter {
        TraceFilter {
            until_ns,
            client: self.client.map(|client| client.to_canonical().into()).unwrap_or_default(),
            service: self.service.unwrap_or_default().into(),
        }
    }
}

/// Of a [`Traced`]'s bytes; anything else means nothing.
fn parse(record: &[u8]) -> Option<Traced> {
    let is_one = record.len() == size_of::<Traced>();
    // SAFETY: as many bytes as it has, and integers that may be anything.
    is_one.then(|| unsafe { record.as_ptr().cast::<Traced>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use balancer_common::abi::Address;

    use super::*;

    #[test]
    fn only_what_is_as_long_as_a_packet_is_one() {
        let bytes = [7; size_of::<Traced>() + 1];
        assert_eq!(parse(&bytes[1..]).map(|packet| packet.ifindex), Some(0x0707_0707));
        for length in [0, 1, bytes.len() - 2, bytes.len()] {
            assert_eq!(parse(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_client_is_looked_for_as_its_packets_name_it() {
        let of = |client: &str| Wish { client: client.parse().ok(), service: None }.filter(1).client;
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), Address::NONE);
        assert_eq!(Wish::default().filter(1).client, Address::NONE);
    }
}
