//! What must be true of the flow tables whenever nobody is at work on them, read raw, as the kernel has them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::mem::offset_of;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, MapData};
use balancer_common::abi::{
    self, Address, Address4, Address6, FlowKey, NextHop, Past, Port, Seed, WireAddress, socket,
};
use balancer_common::flow::Seen;
use balancer_common::nat::Deltas;
use balancer_common::table::{HELD, Hash, Kind, State, WAYS};

use super::super::gateway::Gateway;
use super::super::world::World;
use crate::case::ROUTER_MAC;

/// The raw tables of a program.
pub(super) struct Tables {
    v4: Family<Address4, 8>,
    v6: Family<Address6, 16>,
    locks: Array<MapData, u64>,
}

/// Those of a family, whose lines have so many words.
struct Family<A, const LINE: usize> {
    established: Table<A, LINE>,
    half_open: Table<A, LINE>,
    counts: Array<MapData, [u64; 8]>,
}

/// A table.
struct Table<A, const LINE: usize> {
    name: &'static str,
    lines: Array<MapData, [u64; LINE]>,
    tags: Array<MapData, [u8; WAYS as usize]>,
    /// Of established flows, which don't tell in their lines where the other line is.
    pasts: Option<Array<MapData, [u64; size_of::<Past>() / 8]>>,
    seed: Seed,
    family: std::marker::PhantomData<A>,
}

/// A live line.
#[derive(Clone, Copy, Debug)]
struct Line<A> {
    state: State,
    key: FlowKey<A>,
    becomes: FlowKey<A>,
    deltas: Deltas,
    service: u16,
    backend: u16,
    client: u64,
    twin: u32,
}

/// What is known of flows beside the tables.
pub(super) struct Known<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) worlds: &'a [&'static World],
    /// The slot of the interface that all packets come in on.
    pub(super) interface: u16,
    /// Whether half a flow may be left: somebody has taken lines out that were in the making.
    pub(super) may_be_torn: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) established: u64,
    pub(super) half_open: u64,
    /// Lines without another direction.
    pub(super) alone: u64,
}

impl Tables {
    pub(super) fn of(gateway: &mut Gateway) -> Result<Self> {
        let seed = gateway.seed()?;
        Ok(Self {
            v4: Family {
                established: Table::of(
                    gateway,
                    ["ESTABLISHED_4", "ESTAB_TAGS_4"],
                    Some("ESTAB_PAST_4"),
                    seed,
                )?,
                half_open: Table::of(gateway, ["HALF_OPEN_4", "HALF_TAGS_4"], None, seed)?,
                counts: gateway.array("COUNTS_4")?,
            },
            v6: Family {
                established: Table::of(
                    gateway,
                    ["ESTABLISHED_6", "ESTAB_TAGS_6"],
                    Some("ESTAB_PAST_6"),
                    seed,
                )?,
                half_open: Table::of(gateway, ["HALF_OPEN_6", "HALF_TAGS_6"], None, seed)?,
                counts: gateway.array("COUNTS_6")?,
            },
            locks: gateway.array("LOCKS")?,
        })
    }

    /// Looks at everything.
    pub(super) fn check(&self, known: &Known<'_>) -> Result<Found> {
        for lock in 0..self.locks.len() {
            let sequence = self.locks.get(&lock, 0)?;
            ensure!(sequence as u32 & HELD == 0, "lock {lock} is still taken: {sequence}");
        }
        let (v4, v6) = (self.v4.check(known)?, self.v6.check(known)?);
        Ok(Found {
            established: v4.established + v6.established,
            half_open: v4.half_open + v6.half_open,
            alone: v4.alone + v6.alone,
        })
    }

    /// Makes all flows older by so many ticks.
    pub(super) fn grow_older(&mut self, ticks: u32) -> Result<()> {
        self.v4.established.grow_older(ticks)?;
        self.v4.half_open.grow_older(ticks)?;
        self.v6.established.grow_older(ticks)?;
        self.v6.half_open.grow_older(ticks)
    }

    /// Flows that have begun in the tables and flows that the controller took out, in this life of the tables.
    pub(super) fn begun_and_swept(&self) -> Result<[u64; 2]> {
        let mut sums = [0; 2];
        for counts in [&self.v4.counts, &self.v6.counts] {
            for which in 0..counts.len() {
                let [begun, _, swept, ..] = counts.get(&which, 0)?;
                sums[0] += begun;
                sums[1] += swept;
            }
        }
        Ok(sums)
    }
}

impl<A: WireAddress, const LINE: usize> Family<A, LINE> {
    fn check(&self, known: &Known<'_>) -> Result<Found> {
        let established = self.established.check(known)?;
        let half_open = self.half_open.check(known)?;
        for key in half_open.keys() {
            ensure!(!established.contains_key(key), "{key:?} is in both tables");
        }
        let clients = |lines: &HashMap<FlowKey<A>, Line<A>>| {
            lines.values().filter(|line| is_from_client(line)).count() as u64
        };
        let (is_established, is_half_open) = (clients(&established), clients(&half_open));
        for (which, there) in [is_established, is_half_open].into_iter().enumerate() {
            let [begun, ended, swept, ..] = self.counts.get(&(which as u32), 0)?;
            let counted = begun.wrapping_sub(ended).wrapping_sub(swept);
            ensure!(
                counted == there,
                "table {which}: begun {begun}, ended {ended}, swept {swept}, and {there} are there"
            );
        }
        let alone = |lines: &HashMap<FlowKey<A>, Line<A>>| {
            lines.values().filter(|line| !lines.contains_key(&line.becomes.reversed())).count() as u64
        };
        Ok(Found {
            established: is_established,
            half_open: is_half_open,
            alone: alone(&established) + alone(&half_open),
        })
    }
}

fn is_from_client<A>(line: &Line<A>) -> bool {
    Seen(line.state.marks()).is_from_client()
}

impl<A: WireAddress, const LINE: usize> Table<A, LINE> {
    fn of(
        gateway: &mut Gateway,
        [name, tags]: [&'static str; 2],
        pasts: Option<&'static str>,
        seed: Seed,
    ) -> Result<Self> {
        let (lines, tags) = (gateway.array(name)?, gateway.array(tags)?);
        let pasts = pasts.map(|pasts| gateway.array(pasts)).transpose()?;
        Ok(Self { name, lines, tags, pasts, seed, family: std::marker::PhantomData })
    }

    /// All live lines by their key.
    fn check(&self, known: &Known<'_>) -> Result<HashMap<FlowKey<A>, Line<A>>> {
        let live = self.live()?;
        let mut by_key = HashMap::new();
        let mut services = HashMap::new();
        for (index, line) in &live {
            let tell = || format!("{}, line {index}: {line:?}", self.name);
            self.check_place(*index, line).with_context(tell)?;
            check_recipe(line, known).with_context(tell)?;
            let client = if is_from_client(line) { line.key } else { line.becomes.reversed() };
            let listen = (client.destination, client.destination_port);
            let other = *services.entry(line.service).or_insert(listen);
            ensure!(other == listen, "{}: the service of another flow", tell());
            if !known.may_be_torn {
                check_twin(*index, line, &live).with_context(tell)?;
            }
            let twice = by_key.insert(line.key, *line);
            ensure!(twice.is_none(), "{}: there is another one", tell());
        }
        Ok(by_key)
    }

    /// All lines that aren't free; those have to be live and to have a tag, and no others have one.
    fn live(&self) -> Result<HashMap<u32, Line<A>>> {
        let mut live = HashMap::new();
        for index in 0..self.lines.len() {
            let words = self.lines.get(&index, 0)?;
            let state = State(words[0]);
            let has_tag = self.tag(index)? != 0;
            match state.kind() {
                Kind::Free => ensure!(!has_tag, "{}: free line {index} has a tag", self.name),
                Kind::Live => {
                    ensure!(has_tag, "{}: line {index} has no tag", self.name);
                    live.insert(index, line_of(&words, self.twin_of(index, &words)?));
                }
                Kind::Claimed | Kind::Leaving => bail!("{}: line {index} is {:?}", self.name, state.kind()),
            }
        }
        Ok(live)
    }

    /// The line of the other direction.
    fn twin_of(&self, index: u32, line: &[u64; LINE]) -> Result<u32> {
        Ok(match &self.pasts {
            Some(pasts) => (pasts.get(&index, 0)?[0] >> 32) as u32,
            // The first half word of its `abi::Opening`.
            None => line[offset_of!(abi::Line<A>, acknowledged) / 8] as u32,
        })
    }

    fn tag(&self, index: u32) -> Result<u8> {
        Ok(self.tags.get(&(index / WAYS), 0)?[(index % WAYS) as usize])
    }

    /// It is where its key may be.
    fn check_place(&self, index: u32, line: &Line<A>) -> Result<()> {
        let hash = Hash::of(&line.key, &self.seed);
        ensure!(self.tag(index)? == hash.tag(), "has another key's tag");
        ensure!(hash.bucket(self.tags.len()) == index / WAYS, "is in another key's bucket");
        Ok(())
    }

    fn grow_older(&mut self, ticks: u32) -> Result<()> {
        for index in 0..self.lines.len() {
            let mut words = self.lines.get(&index, 0)?;
            let state = State(words[0]);
            if state.kind() == Kind::Live {
                let seen = state.last_seen().wrapping_sub(ticks);
                words[0] = u64::from(seen) << 32 | state.0 & u64::from(u32::MAX);
                self.lines.set(index, words, 0)?;
            }
        }
        Ok(())
    }
}

/// What its packets become is right for its client, and all of one flow.
fn check_recipe<A: WireAddress>(line: &Line<A>, known: &Known<'_>) -> Result<()> {
    let (client, towards_backend) = if is_from_client(line) {
        (line.key, line.becomes)
    } else {
        (line.becomes.reversed(), line.key.reversed())
    };
    let from = socket(client.source.into(), client.source_port);
    let listen = socket(client.destination.into(), client.destination_port);
    let belongs = |world: &&&World| world.flow_of(from, listen).is_some();
    let world = known.worlds.iter().find(belongs).context("is no flow of this storm")?;
    let flow = world.flow_of(from, listen).context("it belongs to this world")?;
    let (backend, source) = world.backend_and_source(flow);
    let to = socket(towards_backend.destination.into(), towards_backend.destination_port);
    let seen = socket(towards_backend.source.into(), towards_backend.source_port);
    same("backend", &to, &backend)?;
    same("source", &seen.ip(), &source)?;
    ensure!(world.may_be_seen_from(from.port(), seen.port()), "port {} isn't the gateway's", seen.port());
    same("deltas", &line.deltas, &Deltas::new(&line.key, &line.becomes.reversed()))?;
    same("backend's slot", &Some(line.backend), &known.gateway.slot(world))?;
    let client = NextHop { mac: ROUTER_MAC, interface: known.interface }.to_word();
    same("way to the client", &line.client, &client)
}

/// The other direction is there, and the two lead to each other.
fn check_twin<A: WireAddress>(index: u32, line: &Line<A>, live: &HashMap<u32, Line<A>>) -> Result<()> {
    let twin = live.get(&line.twin).context("its other direction isn't there")?;
    ensure!(twin.key == line.becomes.reversed(), "leads to another flow's line: {twin:?}");
    ensure!(twin.becomes == line.key.reversed(), "its other direction becomes another's: {twin:?}");
    ensure!(twin.twin == index, "its other direction leads to another line: {twin:?}");
    ensure!(is_from_client(twin) != is_from_client(line), "both are of the same direction: {twin:?}");
    same("service", &twin.service, &line.service)
}

fn same<T: PartialEq + Debug>(what: &str, is: &T, should: &T) -> Result<()> {
    ensure!(is == should, "{what}: {is:?} instead of {should:?}");
    Ok(())
}

/// From the words of a line.
fn line_of<A: WireAddress, const LINE: usize>(words: &[u64; LINE], twin: u32) -> Line<A> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let key_bytes = 2 * 4 * A::WORDS + 4;
    let rest = 8 + 2 * key_bytes;
    let half = |at: usize| u16::from_ne_bytes([bytes[rest + at], bytes[rest + at + 1]]);
    Line {
        state: State(words[0]),
        key: key_of(&bytes[8..]),
        becomes: key_of(&bytes[8 + key_bytes..]),
        deltas: Deltas { ip: half(0), tcp: half(2) },
        service: half(4),
        backend: half(6),
        client: words[rest / 8 + 1],
        twin,
    }
}

fn key_of<A: WireAddress>(bytes: &[u8]) -> FlowKey<A> {
    let length = 4 * A::WORDS;
    let address = |at: usize| {
        let bytes = &bytes[at..at + length];
        let ip = match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) => IpAddr::from(bytes),
            Err(_) => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        A::from(Address::from(ip))
    };
    let port = |at: usize| Port::from_wire([bytes[at], bytes[at + 1]]);
    FlowKey {
        source: address(0),
        destination: address(length),
        source_port: port(2 * length),
        destination_port: port(2 * length + 2),
    }
}
