//! This module's own handles on tables that the program writes, for what production has no call for: counting lines,
//! letting flows grow old, breaking and forgetting them, occupying locks and places, and allowing answers and searches anew.

use std::cell::Cell;
use std::mem::offset_of;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use aya::{Ebpf, Pod};
use balancer_common::abi::{self, Address4, Address6};
use balancer_common::flow::Seen;
use balancer_common::limits::{ANSWER_MOMENT_NS, JIFFIES_PER_TICK, SEARCHES_PER_MOMENT};
use balancer_common::table::{Kind, State, WAYS};
use rustix::time::{ClockId, clock_getres, clock_gettime};

/// Lines of an IPv4 flow, as words.
type Line4 = [u64; 8];
/// Lines of an IPv6 flow, as words.
type Line6 = [u64; 16];
/// `abi::Count`, as words.
type Count = [u64; 8];

/// The flow tables of both families.
pub(super) struct FlowMaps {
    half_open_4: Table<Line4>,
    established_4: Table<Line4>,
    half_open_6: Table<Line6>,
    established_6: Table<Line6>,
    counts: [Array<MapData, Count>; 2],
    locks: Array<MapData, u64>,
    /// What was there when it was last looked for: no line comes or goes without being counted, and looking takes a system
    /// call a bucket.
    known: Cell<Option<([Count; 4], [usize; 2])>>,
    /// There is half a flow, which comes and goes uncounted.
    is_torn: bool,
}

/// A table: its lines and their tags.
struct Table<L: Pod> {
    lines: Array<MapData, L>,
    tags: Array<MapData, [u8; WAYS as usize]>,
    /// The word of a line whose upper quarter is the backend's slot.
    slots: usize,
}

/// See [`Table::slots`].
const SLOTS_4: usize = offset_of!(abi::Line<Address4>, ip_delta) / 8;
/// As [`SLOTS_4`], of IPv6.
const SLOTS_6: usize = offset_of!(abi::Line<Address6>, ip_delta) / 8;
/// Where a half-open client's line says when its flow began: behind the first word of its `abi::Opening`.
const BEGAN_4: usize = offset_of!(abi::Line<Address4>, acknowledged) / 8 + 1;
/// As [`BEGAN_4`], of IPv6.
const BEGAN_6: usize = offset_of!(abi::Line<Address6>, acknowledged) / 8 + 1;

/// Where handshakes are counted.
const HALF_OPEN: u32 = 1;
/// More flows than any table has places.
const CROWD: u64 = 1 << 40;

impl FlowMaps {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            half_open_4: Table::of(ebpf, "HALF_OPEN_4", "HALF_TAGS_4", SLOTS_4)?,
            established_4: Table::of(ebpf, "ESTABLISHED_4", "ESTAB_TAGS_4", SLOTS_4)?,
            half_open_6: Table::of(ebpf, "HALF_OPEN_6", "HALF_TAGS_6", SLOTS_6)?,
            established_6: Table::of(ebpf, "ESTABLISHED_6", "ESTAB_TAGS_6", SLOTS_6)?,
            counts: [array(ebpf, "COUNTS_4")?, array(ebpf, "COUNTS_6")?],
            locks: array(ebpf, "LOCKS")?,
            known: Cell::new(None),
            is_torn: false,
        })
    }

    /// Lines of handshakes and of established flows, two for each flow. The one line of a handshake that is held counts for
    /// both.
    pub(super) fn count(&self) -> Result<[usize; 2]> {
        let [v4, v6] = &self.counts;
        let now = [v4.get(&0, 0)?, v4.get(&HALF_OPEN, 0)?, v6.get(&0, 0)?, v6.get(&HALF_OPEN, 0)?];
        if let Some((then, lines)) = self.known.get()
            && then == now
        {
            return Ok(lines);
        }
        let lines = [
            self.half_open_4.count()? + self.half_open_6.count()?,
            self.established_4.count()? + self.established_6.count()?,
        ];
        if !self.is_torn {
            self.known.set(Some((now, lines)));
        }
        Ok(lines)
    }

    /// How many flows the program believes there are: handshakes and established ones.
    pub(super) fn counted(&self) -> Result<[u64; 2]> {
        let mut counted = [0; 2];
        for counts in &self.counts {
            let [established, half_open] = [0, HALF_OPEN].map(|which| counts.get(&which, 0));
            for (counted, [begun, ended, swept, ..]) in counted.iter_mut().zip([half_open?, established?]) {
                *counted += begun.wrapping_sub(ended).wrapping_sub(swept);
            }
        }
        Ok(counted)
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        self.is_torn = false;
        if self.count()? == [0, 0] && self.counted()? == [0, 0] {
            return Ok(());
        }
        self.known.set(None);
        self.half_open_4.clear()?;
        self.established_4.clear()?;
        self.half_open_6.clear()?;
        self.established_6.clear()?;
        for counts in &mut self.counts {
            counts.set(0, [0; 8], 0)?;
            counts.set(HALF_OPEN, [0; 8], 0)?;
        }
        Ok(())
    }

    pub(super) fn grow_older(&mut self, by: Duration) -> Result<()> {
        self.half_open_4.grow_older(by, Some(BEGAN_4))?;
        self.half_open_6.grow_older(by, Some(BEGAN_6))?;
        self.established_4.grow_older(by, None)?;
        self.established_6.grow_older(by, None)
    }

    pub(super) fn tear_apart(&mut self) -> Result<()> {
        self.known.set(None);
        self.is_torn = true;
        self.half_open_4.tear_apart()?;
        self.established_4.tear_apart()?;
        self.half_open_6.tear_apart()?;
        self.established_6.tear_apart()
    }

    /// As if another CPU had every lock, or none.
    pub(super) fn set_locks(&mut self, taken: bool) -> Result<()> {
        (0..self.locks.len()).try_for_each(|lock| Ok(self.locks.set(lock, u64::from(taken), 0)?))
    }

    /// As if there were far more handshakes than there may be, none of them where a new one could take its place.
    pub(super) fn crowd(&mut self) -> Result<()> {
        for counts in &mut self.counts {
            let [begun, rest @ ..] = counts.get(&HALF_OPEN, 0)?;
            let mut crowded = [begun + CROWD, 0, 0, 0, 0, 0, 0, 0];
            crowded[1..].copy_from_slice(&rest);
            counts.set(HALF_OPEN, crowded, 0)?;
        }
        Ok(())
    }
}

impl<L: Pod + AsRef<[u64]> + AsMut<[u64]>> Table<L> {
    fn of(ebpf: &Ebpf, lines: &str, tags: &str, slots: usize) -> Result<Self> {
        Ok(Self { lines: array(ebpf, lines)?, tags: array(ebpf, tags)?, slots })
    }

    fn count(&self) -> Result<usize> {
        let live = self.live()?;
        let held = live.iter().filter(|(_, line)| line.as_ref()[self.slots] >> 48 == 0).count();
        Ok(live.len() + held)
    }

    /// Indices of all lines that have a tag; each of them has to be live.
    fn live(&self) -> Result<Vec<(u32, L)>> {
        let mut live = Vec::new();
        for bucket in 0..self.tags.len() {
            let tags = self.tags.get(&bucket, 0)?;
            for way in 0..WAYS {
                if tags[way as usize] == 0 {
                    continue;
                }
                let index = bucket * WAYS + way;
                let line = self.lines.get(&index, 0)?;
                let state = State(line.as_ref()[0]);
                ensure!(state.kind() == Kind::Live, "line {index} has a tag and is {:?}", state.kind());
                live.push((index, line));
            }
        }
        Ok(live)
    }

    fn set_state(&mut self, index: u32, mut line: L, state: State) -> Result<()> {
        line.as_mut()[0] = state.0;
        Ok(self.lines.set(index, line, 0)?)
    }

    fn clear(&mut self) -> Result<()> {
        for (index, line) in self.live()? {
            self.set_state(index, line, State(line.as_ref()[0]).freed())?;
            self.tags.set(index / WAYS, [0; WAYS as usize], 0)?;
        }
        Ok(())
    }

    /// `began`: the word of a client's line in whose lower half is when its flow began.
    fn grow_older(&mut self, by: Duration, began: Option<usize>) -> Result<()> {
        let ticks = ticks(by)?;
        for (index, mut line) in self.live()? {
            let state = State(line.as_ref()[0]);
            if let Some(began) = began.filter(|_| Seen(state.marks()).is_from_client()) {
                let word = line.as_ref()[began];
                let earlier = (word as u32).wrapping_sub(ticks);
                line.as_mut()[began] = word & !u64::from(u32::MAX) | u64::from(earlier);
            }
            let seen = state.last_seen().wrapping_sub(ticks);
            let older = State(u64::from(seen) << 32 | state.0 & u64::from(u32::MAX));
            self.set_state(index, line, older)?;
        }
        Ok(())
    }

    /// Takes out the client's side of every flow.
    fn tear_apart(&mut self) -> Result<()> {
        for (index, line) in self.live()? {
            let state = State(line.as_ref()[0]);
            if Seen(state.marks()).is_from_client() {
                let mut tags = self.tags.get(&(index / WAYS), 0)?;
                tags[(index % WAYS) as usize] = 0;
                self.tags.set(index / WAYS, tags, 0)?;
                self.set_state(index, line, state.freed())?;
            }
        }
        Ok(())
    }
}

/// So much of the program's time.
fn ticks(time: Duration) -> Result<u32> {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    let ticks = time.as_nanos() / (resolution.tv_nsec as u128 * u128::from(JIFFIES_PER_TICK));
    u32::try_from(ticks).context("a time that ticks can't tell")
}

/// How many answers each CPU has sent lately: a moment and a number, see `abi::Budget`.
pub(super) struct Answers(PerCpuArray<MapData, [u64; 2]>);

impl Answers {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self(PerCpuArray::try_from(Map::PerCpuArray(second_handle(ebpf, "ANSWERS")?))?))
    }

    /// As if none had been sent.
    pub(super) fn allow_anew(&mut self) -> Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        Ok(self.0.set(0, PerCpuValues::try_from(vec![[0; 2]; cpus])?, 0)?)
    }
}

/// How often each CPU has looked for room lately, as [`Answers`].
pub(super) struct Searches(PerCpuArray<MapData, [u64; 2]>);

impl Searches {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self(PerCpuArray::try_from(Map::PerCpuArray(second_handle(ebpf, "SEARCHES")?))?))
    }

    /// As if no CPU might look once more in this moment, most of which is still to come.
    pub(super) fn exhaust(&mut self) -> Result<()> {
        let now = loop {
            let now = clock_gettime(ClockId::MonotonicCoarse);
            let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
            if now % ANSWER_MOMENT_NS < ANSWER_MOMENT_NS / 8 {
                break now;
            }
            thread::sleep(Duration::from_millis(4));
        };
        self.set([now / ANSWER_MOMENT_NS, SEARCHES_PER_MOMENT])
    }

    /// As if none had looked.
    pub(super) fn allow_anew(&mut self) -> Result<()> {
        self.set([0; 2])
    }

    fn set(&mut self, budget: [u64; 2]) -> Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        Ok(self.0.set(0, PerCpuValues::try_from(vec![budget; cpus])?, 0)?)
    }
}

/// The production code takes the maps out of the object, so this one finds a map by its id.
pub(super) fn second_handle(ebpf: &Ebpf, name: &str) -> Result<MapData> {
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    let data = match map {
        Map::Array(data) | Map::PerCpuArray(data) => data,
        _ => anyhow::bail!("{name} is a map of another kind"),
    };
    Ok(MapData::from_id(data.info()?.id())?)
}

fn array<V: Pod>(ebpf: &Ebpf, name: &str) -> Result<Array<MapData, V>> {
    Ok(Array::try_from(Map::Array(second_handle(ebpf, name)?))?)
}
