//! Flows as the controller sees them: counts them, and forgets those that have outlived their time.
//!
//! The packet path makes and changes flows; here they are only read and removed, both directions together. Whatever is
//! removed is looked at once more right before; a packet in the microseconds between comes too late by that much.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, IterableMap, MapData, MapError};
use balancer_common::abi::{Address4, Address6, FlowEntry, FlowKey, SIDE_CLIENT, WireAddress};
use balancer_common::flow::Stage;
use rustix::time::{ClockId, clock_gettime};

use super::DataplaneError;
use super::slots::Busy;
use super::tables::take;

/// Longer than the third repetition of a SYN (1, 2, 4 s apart); the next one is as good as new.
const HALF_OPEN_IDLE: Duration = Duration::from_secs(10);
/// A FIN that got lost is repeated within a few retransmission timeouts; nothing else can follow.
const CLOSED_IDLE: Duration = Duration::from_secs(15);
/// One side has ended, the other may take its time; but a vanished peer must not hold a place for hours.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);

/// How long flows live without a packet.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Established flows; the others have fixed times.
    pub established: Duration,
}

/// The flow tables.
pub struct FlowTable {
    v4: FamilyTables<Address4>,
    v6: FamilyTables<Address6>,
    lifetimes: Lifetimes,
}

type Entries<A> = HashMap<MapData, FlowKey<A>, FlowEntry<A>>;

/// Those of one address family.
struct FamilyTables<A> {
    established: Named<A>,
    half_open: Named<A>,
}

/// A table and its name, for errors.
struct Named<A> {
    map: Entries<A>,
    name: &'static str,
}

/// What one walk over the tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Established flows that haven't begun to close, by backend slot.
    pub established: BTreeMap<u16, u64>,
    /// Slots that any flow refers to.
    pub busy: Busy,
}

/// How far a flow is and until when it may be idle, from the client's and the backend's entry.
type Judge<A> = fn(&Lifetimes, &FlowEntry<A>, &FlowEntry<A>) -> (Option<Stage>, Duration, u64);

impl FlowTable {
    /// From a loaded object.
    pub fn take(ebpf: &mut Ebpf, lifetimes: Lifetimes) -> Result<Self, DataplaneError> {
        Ok(Self {
            v4: FamilyTables {
                established: Named::take(ebpf, "ESTABLISHED_4")?,
                half_open: Named::take(ebpf, "HALF_OPEN_4")?,
            },
            v6: FamilyTables {
                established: Named::take(ebpf, "ESTABLISHED_6")?,
                half_open: Named::take(ebpf, "HALF_OPEN_6")?,
            },
            lifetimes,
        })
    }

    /// Walks over all flows once, counts them and removes those whose time is over.
    pub fn sweep(&mut self) -> Result<Census, DataplaneError> {
        self.sweep_at(monotonic_ns())
    }

    /// As [`FlowTable::sweep`], when the clock of the packet path (`CLOCK_MONOTONIC`) says `now_ns`.
    pub fn sweep_at(&mut self, now_ns: u64) -> Result<Census, DataplaneError> {
        let mut census = Census::default();
        let ager = Ager { now_ns, lifetimes: self.lifetimes };
        self.v4.sweep(&ager, &mut census)?;
        self.v6.sweep(&ager, &mut census)?;
        Ok(census)
    }
}

/// Who is too old.
struct Ager {
    now_ns: u64,
    lifetimes: Lifetimes,
}

impl Ager {
    /// A packet that came after the walk had begun makes a flow as young as can be.
    fn is_over<A>(&self, entry: &FlowEntry<A>, allowed: Duration, last_seen_ns: u64) -> bool {
        Duration::from_nanos(self.now_ns.saturating_sub(last_seen_ns.max(entry.began_ns))) > allowed
    }
}

/// Only the client's own packets keep a handshake alive: a backend goes on answering a SYN that was forged.
fn in_handshake<A>(_: &Lifetimes, client: &FlowEntry<A>, _: &FlowEntry<A>) -> (Option<Stage>, Duration, u64) {
    (None, HALF_OPEN_IDLE, client.last_seen_ns)
}

fn by_stage<A>(
    lifetimes: &Lifetimes,
    client: &FlowEntry<A>,
    backend: &FlowEntry<A>,
) -> (Option<Stage>, Duration, u64) {
    let stage = Stage::of(client, backend);
    let idle = match stage {
        Stage::Established => lifetimes.established,
        Stage::HalfClosed => HALF_CLOSED_IDLE,
        Stage::Closed => CLOSED_IDLE,
    };
    (Some(stage), idle, client.last_seen_ns.max(backend.last_seen_ns))
}

impl<A: WireAddress> FamilyTables<A> {
    fn sweep(&mut self, ager: &Ager, census: &mut Census) -> Result<(), DataplaneError> {
        self.half_open.sweep(ager, in_handshake, census)?;
        self.established.sweep(ager, by_stage, census)
    }
}

impl<A: WireAddress> Named<A> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DataplaneError> {
        Ok(Self { map: take(ebpf, name)?, name })
    }

    fn sweep(&mut self, ager: &Ager, judge: Judge<A>, census: &mut Census) -> Result<(), DataplaneError> {
        let mut over = Vec::new();
        // A key that is removed under the walk sends it back to the start; the bound ends a walk that keeps losing its
        // place.
        let bound = 2 * self.entries()?;
        for item in self.map.iter().take(bound) {
            let Ok((key, entry)) = item else { continue };
            let Some(twin) = self.twin(&entry)? else {
                // Made and removed together within microseconds, so alone means: in the making, or left over by a crash.
                if ager.is_over(&entry, HALF_OPEN_IDLE, entry.last_seen_ns) {
                    over.push((key, entry));
                }
                continue;
            };
            if entry.side != SIDE_CLIENT {
                continue;
            }
            let (stage, idle, last_seen_ns) = judge(&ager.lifetimes, &entry, &twin);
            if ager.is_over(&entry, idle, last_seen_ns) {
                over.push((key, entry));
                continue;
            }
            census.busy.backends.insert(entry.backend);
            census.busy.services.insert(entry.service);
            if stage == Some(Stage::Established) {
                *census.established.entry(entry.backend).or_default() += 1;
            }
        }
        over.into_iter().try_for_each(|(key, seen)| self.remove_if_still_over(&key, &seen, ager, judge))
    }

    /// The walk took its time: the tuple may belong to a new flow by now.
    fn remove_if_still_over(
        &mut self,
        key: &FlowKey<A>,
        seen: &FlowEntry<A>,
        ager: &Ager,
        judge: Judge<A>,
    ) -> Result<(), DataplaneError> {
        let Some(entry) = self.get(key)? else { return Ok(()) };
        if entry.began_ns != seen.began_ns {
            return Ok(());
        }
        if let Some(twin) = self.twin(&entry)? {
            let (_, idle, last_seen_ns) = judge(&ager.lifetimes, &entry, &twin);
            if !ager.is_over(&entry, idle, last_seen_ns) {
                return Ok(());
            }
        }
        // The client's side first: without it no packet of the client finds the other.
        for key in [*key, entry.becomes.reversed()] {
            match self.map.remove(&key) {
                Err(error) if !is_missing(&error) => {
                    return Err(DataplaneError::map("removing from", self.name)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn twin(&self, entry: &FlowEntry<A>) -> Result<Option<FlowEntry<A>>, DataplaneError> {
        self.get(&entry.becomes.reversed())
    }

    fn get(&self, key: &FlowKey<A>) -> Result<Option<FlowEntry<A>>, DataplaneError> {
        match self.map.get(key, 0) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(DataplaneError::map("reading", self.name)(error)),
        }
    }

    fn entries(&self) -> Result<usize, DataplaneError> {
        let info = self.map.map().info().map_err(DataplaneError::map("reading the size", self.name))?;
        Ok(info.max_entries() as usize)
    }
}

/// The packet path was faster. A look-up says so in aya's words, a removal in the kernel's.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// The clock of the packet path: `CLOCK_MONOTONIC`.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
